//! The reference is true: its example and every block of it can be used, and every word of the language is in it.

use std::fs;

use carnet_proxy::rules::Kind;

use crate::stage::{named, rules};

#[test]
fn the_example_file_can_be_used() {
    let rules = rules(&doc("rules.example.toml"));
    assert_eq!(rules.decide(&named("a.ads.example")).rule.unwrap().id.as_deref(), Some("ads"));
    assert_eq!(rules.decide(&named("www.example.org")).rule.unwrap().id.as_deref(), Some("own servers"));
}

#[test]
fn every_block_of_the_reference_can_be_used() {
    let text = doc("rules.md");
    let blocks: Vec<_> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 4, "{} blocks", blocks.len());
    for block in blocks {
        rules(block);
    }
}

#[test]
fn the_reference_has_every_key_and_every_kind_of_mistake() {
    let text = doc("rules.md");
    for key in [
        "id",
        "name",
        "to",
        "ports",
        "uid",
        "exe",
        "cgroup",
        "protocol",
        "alpn",
        "ja4",
        "ech",
        "action",
        "block",
        "reason",
        "log",
        "tap",
        "rate",
        "burst",
        "upstream",
        "unread",
        "names",
        "file",
        "subdomains",
        "kind",
        "address",
        "user",
        "password-file",
        "by-name",
    ] {
        assert!(text.contains(&format!("\n| `{key}` |")), "{key}");
    }
    for kind in Kind::ALL {
        assert!(text.contains(&format!("\n| `{}` |", kind.name())), "{kind:?}");
    }
}

fn doc(name: &str) -> String {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
