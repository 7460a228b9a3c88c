//! Any text is answered: with a policy, or with mistakes that have a place in it.

use carnet_policy::file::{Finding, Nowhere, PolicyFile};
use proptest::prelude::*;
use proptest::sample::select;

use crate::stage::{Somewhere, folder, read};

/// The text of a policy with everything in it.
const FULL: &str = include_str!("../../../../docs/policy.example.toml");

fn assert_in_text(text: &str, findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.place.file == "policy.toml") {
        let place = &finding.place;
        assert!(text.get(place.span.clone()).is_some(), "{finding:?}");
        let line = text.split('\n').nth(place.line - 1).unwrap_or_else(|| panic!("{finding:?}"));
        let start: usize = text.split('\n').take(place.line - 1).map(|line| line.len() + 1).sum();
        let column = text[start..place.span.start].chars().count() + 1;
        assert_eq!(place.column, column, "{finding:?} in {line:?}");
        assert!(!place.text.contains(char::is_control) && place.marked.start < place.marked.end, "{finding:?}");
        assert!(finding.to_string().starts_with("policy.toml:"));
    }
}

fn answered(text: &str) {
    match read(text) {
        Ok((file, resolved)) => {
            assert_in_text(text, &file.warnings(&resolved, &Somewhere));
            assert_in_text(text, &resolved.notes);
            assert!(resolved.policy.validate().is_ok());
            // Where it can be read, it can be read again, and where no host is asked nothing is missed.
            let again = PolicyFile::read("policy.toml", text, &folder(), &Somewhere).unwrap();
            assert_eq!(again.1.policy, resolved.policy);
            assert!(PolicyFile::read("policy.toml", text, &folder(), &Nowhere).is_ok());
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert_in_text(text, &mistakes);
        }
    }
}

/// A value in TOML, right or wrong for whatever key it is given to.
fn value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        select(&WORDS[..]).prop_map(|word| format!("{word:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        (0..70_000_u32).prop_map(|number| number.to_string()),
        select(&["true", "1.5", "1979-05-27", "nan", "'", "\"", "[", "{", "", "[[]]"][..]).prop_map(str::to_owned),
        "\\PC{0,8}".prop_map(|text| format!("{text:?}")),
    ];
    scalar.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
            prop::collection::vec((select(&KEYS[..]), inner), 0..4).prop_map(|pairs| {
                let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
                format!("{{ {} }}", pairs.join(", "))
            }),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        6 => (select(&KEYS[..]), value()).prop_map(|(key, value)| format!("{key} = {value}")),
        3 => select(&HEADERS[..]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
    ];
    prop::collection::vec(line, 0..20).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_text_at_all(text in any::<String>()) {
        answered(&text);
    }

    #[test]
    fn keys_and_values_in_any_order(text in text()) {
        answered(&text);
    }

    #[test]
    fn a_policy_with_a_few_characters_changed(
        changes in prop::collection::vec((0..FULL.len(), prop_oneof![any::<char>(), select(&['"', '[', ']', '=', '\n', '0', '@'][..])]), 1..4),
    ) {
        let mut characters: Vec<char> = FULL.chars().collect();
        for (at, character) in changes {
            characters[at] = character;
        }
        answered(&characters.into_iter().collect::<String>());
    }

    #[test]
    fn a_policy_that_ends_early(end in 0..FULL.len()) {
        answered(&FULL[..end]);
    }

    #[test]
    fn a_policy_without_some_of_its_lines(without in prop::collection::vec(any::<bool>(), 80)) {
        let lines: Vec<_> = FULL.lines().zip(without).filter(|(_, without)| !without).map(|(line, _)| line).collect();
        answered(&lines.join("\n"));
    }
}

const KEYS: [&str; 44] = [
    "default",
    "block-quic",
    "strict",
    "provider",
    "filter",
    "sets",
    "control",
    "read",
    "register",
    "administer",
    "name",
    "rank",
    "listen",
    "owner",
    "records",
    "on-dead",
    "direct",
    "reach",
    "sockname",
    "in-flight-limit",
    "weight",
    "match",
    "action",
    "context",
    "context-base64",
    "prefixes",
    "ports",
    "file",
    "protocol",
    "remote",
    "remote-port",
    "uid",
    "gid",
    "exe",
    "cgroup",
    "netns",
    "via",
    "not-protocol",
    "not-remote",
    "not-uid",
    "not-exe",
    "not-via",
    "sets.a",
    "match.uid",
];

const HEADERS: [&str; 9] = [
    "[[provider]]",
    "[[provider.filter]]",
    "[[filter]]",
    "[control]",
    "[sets.a]",
    "[sets]",
    "[[sets.a]]",
    "[provider]",
    "[filter.match]",
];

const WORDS: [&str; 30] = [
    "permit",
    "block",
    "redirect",
    "skip",
    "aware",
    "open",
    "closed",
    "tcp",
    "udp",
    "alice",
    "root",
    "%adm",
    "@a",
    "@",
    "%",
    "10.0.0.0/8",
    "10.0.0.1/8",
    "::/0",
    "::1",
    "443",
    "8000-8999",
    "9-1",
    "127.0.0.1:80",
    "[::1]:80",
    "/usr/bin/curl",
    "/user.slice",
    "/",
    "private.txt",
    "blue",
    "dlp",
];
