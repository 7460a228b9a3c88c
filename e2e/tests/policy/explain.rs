//! What becomes of a connection, without any being made.

use std::fs;

use carnet_e2e::programs::Scratch;
use serde_json::Value;

use crate::{EXAMPLE, Said, says};

/// `carnet explain` of the example.
fn explain(arguments: &[&str]) -> Said {
    says(&[&["explain", EXAMPLE], arguments].concat())
}

fn services(said: &Said) -> Vec<String> {
    said.object()["services"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_flow_is_followed_to_its_destination() {
    let said = explain(&["--to", "192.0.2.1:443", "--uid", "1000"]);
    let lines: Vec<_> = said.output.lines().collect();
    assert_eq!(
        lines[..7],
        [
            "hop 1: the application connects to 192.0.2.1:443",
            "  provider  filter                          weight  action    what becomes of it",
            "  (host)    no mail but by the mail server     100  block     does not match: remote-port",
            "  dlp       backups of people                  300  skip      does not match: remote",
            "  dlp       web of people                      200  redirect  decides",
            "  scanner   web                                  0  redirect  matches, but the filter \"web of people\" of \"dlp\" decides before",
            "  -> to the provider \"dlp\" (rank 10), which listens on 127.0.0.1:15001, [::1]:15001",
        ]
    );
    assert_eq!(lines.iter().filter(|line| line.starts_with("hop ")).count(), 3);
    assert!(said.output.ends_with("and 2 services have it: \"dlp\", \"scanner\"\n"), "{said:?}");
    assert_eq!((said.code, &said.errors[..]), (0, ""));

    let object = explain(&["--to", "192.0.2.1:443", "--uid", "1000", "--json"]).object();
    let by: Vec<_> = object["hops"].as_array().unwrap().iter().map(|hop| hop["by"].clone()).collect();
    assert_eq!(by, [Value::Null, "dlp".into(), "scanner".into()]);
    assert_eq!(object["hops"][0]["filters"][1]["condition"], "remote");
    assert_eq!(object["hops"][0]["filters"][2]["fate"], "decides");
    assert_eq!(object["end"], "destination");
}

#[test]
fn who_connects_and_who_is_dead_make_a_difference() {
    for (arguments, expected) in [
        (&["--to", "192.0.2.1:443"][..], &["scanner"][..]),
        (&["--to", "192.0.2.1:443", "--uid", "1000", "--dead", "scanner"], &["dlp"]),
        (&["--to", "10.0.0.1:443", "--uid", "1000"], &["scanner"]),
        (&["--to", "[fe80::1]:443", "--uid", "1000"], &[]),
        (&["--to", "192.0.2.1:443", "--uid", "1000", "--cgroup", "/system.slice/dlp.service/worker"], &["scanner"]),
        (&["--to", "192.0.2.1:25", "--cgroup", "/system.slice/mail.service/smtp"], &[]),
    ] {
        let said = explain(&[arguments, &["--json"]].concat());
        assert_eq!(
            (services(&said), said.code),
            (expected.iter().map(ToString::to_string).collect(), 0),
            "{arguments:?}"
        );
    }
}

#[test]
fn what_is_refused_is_an_answer_of_one() {
    for (arguments, expected) in [
        (&["--to", "192.0.2.1:25"][..], "blocked"),
        (&["--to", "192.0.2.1:443", "--uid", "1000", "--dead", "dlp"], "dead"),
        (&["--to", "127.0.0.1:15002"], "not-direct"),
        (&["--to", "192.0.2.1:443", "--udp"], "quic"),
    ] {
        let said = explain(&[arguments, &["--json"]].concat());
        let object = said.object();
        let last = object["hops"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (said.code, &last["reason"], &object["end"]),
            (1, &expected.into(), &"refused".into()),
            "{arguments:?}"
        );
    }
}

#[test]
fn names_of_what_is_not_there_are_compared() {
    let scratch = Scratch::new();
    let policy = scratch.file("policy.toml");
    let text = "[[filter]]\nname = 'a'\naction = 'block'\n\
        match = { uid = 'nosuchuser', gid = 'nosuchgroup', exe = '/no/such/program', cgroup = '/no.slice', netns = 'nosuch' }\n";
    fs::write(&policy, text).unwrap();
    let policy = policy.to_str().unwrap();
    let whole = [
        "--uid",
        "nosuchuser",
        "--gid",
        "nosuchgroup",
        "--exe",
        "/no/such/program",
        "--cgroup",
        "/no.slice/a",
        "--netns",
        "nosuch",
    ];
    let code = |arguments: &[&str]| says(&[&["explain", policy, "--to", "192.0.2.1:1"], arguments].concat()).code;
    assert_eq!(code(&whole), 1);
    for missing in 0..5 {
        let mut arguments = whole.to_vec();
        arguments.drain(2 * missing..2 * missing + 2);
        assert_eq!(code(&arguments), 0, "{arguments:?}");
    }
}

#[test]
fn a_wrong_command_line_and_a_wrong_policy_are_told_apart_from_no() {
    for (arguments, expected) in [
        (&["--to", "example.org:443"][..], "--to"),
        (&[], "--to"),
        (&["--to", "192.0.2.1:1", "--dead", "dpl"], "the policy has no provider \"dpl\""),
        (&["--to", "192.0.2.1:1", "--exe", "curl"], "no whole path, such as /usr/bin/ssh"),
        (&["--to", "192.0.2.1"], "write ADDR:PORT"),
        (&["--to", "::1:443"], "an IPv6 address in brackets: [::1]:443"),
        (&["--to", "192.0.2.1:0"], "no connection goes to port 0"),
        (&["--to", "192.0.2.1:1", "--uid", "-5"], "no name and no number"),
        (
            &["--to", "192.0.2.1:1", "--uid", "rooot"],
            "neither this host nor the file has a user \"rooot\": did you mean \"root\"?",
        ),
        (&["--to", "192.0.2.1:1", "--gid", "no-such-group"], "has a group \"no-such-group\": write a number"),
    ] {
        let said = explain(arguments);
        assert!(said.code == 2 && said.output.is_empty() && said.errors.contains(expected), "{arguments:?}: {said:?}");
    }
    let scratch = Scratch::new();
    let policy = scratch.file("policy.toml");
    fs::write(&policy, "defualt = 'block'\n").unwrap();
    let said = says(&["explain", policy.to_str().unwrap(), "--to", "192.0.2.1:1"]);
    assert!(said.code == 2 && said.output.is_empty() && said.errors.contains("did you mean \"default\"?"), "{said:?}");
    let object = says(&["explain", policy.to_str().unwrap(), "--to", "192.0.2.1:1", "--json"]);
    assert_eq!((object.code, &object.object()["findings"][0]["id"]), (2, &"unknown-key".into()), "{object:?}");
    assert_eq!(says(&["explain", "/no/such/policy", "--to", "192.0.2.1:1"]).code, 3);
}

/// A policy in a folder of its own.
fn policy(text: &str) -> (Scratch, String) {
    let scratch = Scratch::new();
    let policy = scratch.file("policy.toml");
    fs::write(&policy, text).unwrap();
    let policy = policy.to_str().unwrap().to_owned();
    (scratch, policy)
}

#[test]
fn what_was_not_said_and_what_is_taken_for_granted_is_told() {
    let said = explain(&["--to", "192.0.2.1:443"]);
    assert!(said.output.contains("does not match: uid (none was given: --uid)\n"), "{said:?}");
    assert!(said.output.contains("taken for granted: not said: uid, exe, cgroup: what no filter names\n"), "{said:?}");
    let object = explain(&["--to", "192.0.2.1:443", "--json"]).object();
    assert_eq!(object["unsaid"], serde_json::json!(["uid", "exe", "cgroup"]));

    let said = explain(&["--to", "192.0.2.1:443", "--uid", "alice", "--host", "none"]);
    assert!(said.output.contains("taken for granted: \"alice\" is none of the numbers in the file\n"), "{said:?}");

    let unknown = "[[filter]]\nname = 'a'\naction = 'block'\nmatch = { uid = 'no-such-user' }\n";
    let (_scratch, path) = policy(unknown);
    let said = says(&["explain", &path, "--to", "192.0.2.1:1", "--uid", "no-such-user"]);
    assert!(
        said.code == 1 && said.output.contains("no user \"no-such-user\", which `carnet check` refuses"),
        "{said:?}"
    );
}

#[test]
fn a_user_is_in_its_primary_group() {
    let text = "[[filter]]\nname = 'a'\naction = 'block'\nmatch = { uid = 'root', gid = 'root' }\n";
    let (_scratch, path) = policy(text);
    let said = says(&["explain", &path, "--to", "192.0.2.1:1", "--uid", "root"]);
    assert!(said.code == 1 && said.output.contains("the group is 0, the user's primary one\n"), "{said:?}");
    assert_eq!(says(&["explain", &path, "--to", "192.0.2.1:1", "--uid", "root", "--gid", "1"]).code, 0);
}

#[test]
fn a_provider_without_a_listener_of_the_family_does_not_get_the_connection() {
    let provider = |name: &str, rank: u16, listen: &str, more: &str| {
        format!(
            "[[provider]]\nname = '{name}'\nrank = {rank}\nlisten = '{listen}:{rank}'\nowner = {{ uid = {rank} }}\n{more}\n\
             [[provider.filter]]\nname = 'all'\naction = 'redirect'\n"
        )
    };
    let reason = |path: &str, to: &str| {
        let object = says(&["explain", path, "--to", to, "--json"]).object();
        let last = object["hops"].as_array().unwrap().last().unwrap().clone();
        (object["services"].as_array().unwrap().len(), last["reason"].as_str().unwrap().to_owned())
    };
    let (_first, unaware) = policy(&provider("b", 1, "[::1]", "records = 'unaware'"));
    assert_eq!(reason(&unaware, "10.0.0.1:1"), (0, "family".into()));
    assert_eq!(reason(&unaware, "[::ffff:10.0.0.1]:1"), (0, "family".into()));
    assert_eq!(reason(&unaware, "[2001:db8::1]:1"), (1, "default".into()));
    let said = says(&["explain", &unaware, "--to", "10.0.0.1:1"]);
    assert!(
        said.code == 1 && said.output.contains("has no listener that an IPv4 socket gets to, and on-dead is"),
        "{said:?}"
    );

    let (_second, open) = policy(&provider("b", 1, "127.0.0.1", "records = 'unaware'\non-dead = 'open'"));
    let said = says(&["explain", &open, "--to", "[2001:db8::1]:1"]);
    assert!(said.code == 0 && said.output.contains("redirects, but the provider has no IPv6 listener"), "{said:?}");

    let (_third, aware) = policy(&provider("b", 1, "127.0.0.1", ""));
    assert_eq!(reason(&aware, "[2001:db8::1]:1"), (1, "default".into()));
    let said = says(&["explain", &aware, "--to", "[2001:db8::1]:1"]);
    assert!(said.output.contains("taken for granted: the socket is not for IPv6 alone; "), "{said:?}");
}

#[test]
fn of_many_filters_those_that_match_are_shown() {
    let mut text = String::new();
    for port in 1..=100 {
        text += &format!(
            "[[filter]]\nname = 'f'\naction = 'permit'\nmatch = {{ remote-port = [{port}, 443] }}\nweight = {}\n",
            port / 100
        );
    }
    let (_scratch, path) = policy(&text);
    let said = says(&["explain", &path, "--to", "[::ffff:192.0.2.1]:7"]);
    assert!(said.output.contains("  + 99 more that do not match or are not asked (--all shows them)\n"), "{said:?}");
    assert!(said.output.starts_with("hop 1: the application connects to 192.0.2.1:7\n"), "{said:?}");
    let all = says(&["explain", &path, "--to", "192.0.2.1:7", "--all"]);
    assert_eq!(all.output.matches("does not match: remote-port").count(), 99);
    let said = says(&["explain", &path, "--to", "192.0.2.1:443"]);
    assert!(said.output.contains("matches, but \"f\" (line 497) is heavier\n"), "{said:?}");
}
