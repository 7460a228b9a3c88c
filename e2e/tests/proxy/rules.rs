use carnet_e2e::sockets::until;

use crate::site::Site;

const RULES: &str = r#"
[[rule]]
name = "ads.example"
action = "block"
block = "403"
reason = "advertisements"

[[rule]]
name = ["curl.example", "*.secret.example"]
action = "block"
block = "alert"
"#;

/// A ClientHello as curl sends it, for curl.example.
const HELLO: &[u8] = include_bytes!("../../../crates/carnet-proxy/tests/hello/curl.bin");

#[test]
fn names_are_told() {
    Site::with("", &[], |mut site| {
        assert!(site.get("Some.Example:80").starts_with("HTTP/1.1 200 "));
        let flow = site.said("flow");
        assert_eq!((&flow["protocol"], &flow["name"]), (&"http".into(), &"some.example".into()), "{flow}");
        assert_eq!((&flow["action"], flow["rule"].is_null()), (&"allow".into(), true), "{flow}");
        assert_eq!((flow["uid"].as_u64(), flow["pid"].as_u64()), (Some(0), Some(std::process::id().into())), "{flow}");
        assert_eq!(flow["destination"], site.origin.address.to_string());

        site.ask(HELLO);
        let flow = site.said("flow");
        assert_eq!(flow["protocol"], "tls", "{flow}");
        assert!(flow["ja4"].as_str().unwrap().starts_with('t'), "{flow}");
    });
}

#[test]
fn what_is_blocked_says_why_where_its_protocol_can() {
    Site::with(RULES, &[], |mut site| {
        let answer = site.get("ads.example");
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("advertisements"), "{answer}");
        let flow = site.said("flow");
        assert_eq!((&flow["action"], &flow["reason"]), (&"block".into(), &"advertisements".into()), "{flow}");
        assert!(site.get("good.example").starts_with("HTTP/1.1 200 "));

        assert_eq!(site.ask(HELLO), [21, 3, 3, 0, 2, 2, 49], "a fatal alert: access_denied");
        // Where the protocol has no words for it, it is a reset.
        assert_eq!(site.ask(b"GET / HTTP/1.1\r\nHost: curl.example\r\n\r\n"), b"");

        let asked = || site.origin.served().iter().filter(|exchange| !exchange.path.is_empty()).count();
        until("the one request that passed to be served", || (asked() == 1).then_some(()));
    });
}

#[test]
fn rules_are_read_again_and_a_mistake_keeps_those_that_hold() {
    Site::with("", &[], |mut site| {
        assert!(site.get("ads.example").starts_with("HTTP/1.1 200 "));
        assert_eq!(site.reload(RULES)["in_force"], true);
        assert!(site.get("ads.example").starts_with("HTTP/1.1 403 "));
        let said = site.reload("[[rule]]\naction = \"block\"\nnmae = \"x\"\n");
        assert_eq!(said["in_force"], false, "{said}");
        assert!(said["mistakes"][0].as_str().unwrap().contains("nmae"), "{said}");
        assert!(site.get("ads.example").starts_with("HTTP/1.1 403 "));
    });
}
