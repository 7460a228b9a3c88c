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
        (&["--to", "192.0.2.1:1", "--exe", "curl"], "no whole path"),
    ] {
        let said = explain(arguments);
        assert!(said.code == 2 && said.output.is_empty() && said.errors.contains(expected), "{arguments:?}: {said:?}");
    }
    let scratch = Scratch::new();
    let policy = scratch.file("policy.toml");
    fs::write(&policy, "defualt = 'block'\n").unwrap();
    let said = says(&["explain", policy.to_str().unwrap(), "--to", "192.0.2.1:1"]);
    assert!(said.code == 2 && said.output.is_empty() && said.errors.contains("did you mean \"default\"?"), "{said:?}");
    assert_eq!(says(&["explain", "/no/such/policy", "--to", "192.0.2.1:1"]).code, 3);
}
