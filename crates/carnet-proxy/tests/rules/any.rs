//! Any text is answered: with rules, or with mistakes that have a place in it.

use carnet_proxy::rules::Mistake;
use proptest::{collection::vec, prelude::*, sample::select};

use crate::stage::{PATH, named, read};

/// The text of a file with everything in it.
const FULL: &str = include_str!("../../../../docs/rules.example.toml");

fn assert_in_text(text: &str, mistakes: &[Mistake]) {
    for mistake in mistakes.iter().filter(|mistake| mistake.place.file == PATH) {
        let place = &mistake.place;
        assert!(text.get(place.span.clone()).is_some(), "{mistake:?}");
        let start: usize = text.split('\n').take(place.line - 1).map(|line| line.len() + 1).sum();
        assert_eq!(place.column, text[start..place.span.start].chars().count() + 1, "{mistake:?}");
        assert!(!place.text.contains(char::is_control) && place.marked.start < place.marked.end, "{mistake:?}");
        assert!(!mistake.what.contains(char::is_control) && !mistake.action.contains(char::is_control), "{mistake:?}");
    }
}

fn answered(text: &str) {
    match read(text) {
        Ok(rules) => {
            let decision = rules.decide(&named("www.example.org"));
            assert!(decision.rule.is_none_or(|rule| text.split('\n').nth(rule.line - 1).is_some()));
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
        3 => select(&WORDS[..]).prop_map(|word| format!("{word:?}")),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => select(&["true", "1.5", "1979-05-27", "0x10", "443", "'", "\"", "[", "{", "", "[[]]"][..]).prop_map(str::to_owned),
        1 => "\\PC{0,8}".prop_map(|text| format!("{text:?}")),
    ];
    scalar.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
            (select(&KEYS[..]), inner).prop_map(|(key, value)| format!("{{ {key} = {value} }}")),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        6 => (select(&KEYS[..]), value()).prop_map(|(key, value)| format!("{key} = {value}")),
        3 => select(&HEADERS[..]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
    ];
    vec(line, 0..20).prop_map(|lines| lines.join("\n"))
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
    fn a_file_with_a_few_characters_changed(
        changes in vec((0..FULL.len(), prop_oneof![any::<char>(), select(&['"', '[', ']', '=', '\n', '0', '@'][..])]), 1..4),
    ) {
        let mut characters: Vec<char> = FULL.chars().collect();
        for (at, character) in changes {
            characters[at] = character;
        }
        answered(&characters.into_iter().collect::<String>());
    }

    #[test]
    fn a_file_that_ends_early(end in 0..FULL.len()) {
        answered(&FULL[..end]);
    }

    #[test]
    fn a_file_without_some_of_its_lines(without in vec(any::<bool>(), 100)) {
        let lines: Vec<_> = FULL.lines().zip(without).filter(|(_, without)| !without).map(|(line, _)| line).collect();
        answered(&lines.join("\n"));
    }
}

const KEYS: [&str; 32] = [
    "rule",
    "default",
    "names",
    "upstream",
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
    "file",
    "subdomains",
    "kind",
    "address",
    "user",
    "password-file",
    "by-name",
    "rule.name",
    "names.a",
    "upstream.b",
];

const HEADERS: [&str; 7] =
    ["[[rule]]", "[rule]", "[default]", "[names.a]", "[names]", "[upstream.b]", "[[upstream.b]]"];

const WORDS: [&str; 24] = [
    "allow",
    "block",
    "open",
    "reset",
    "alert",
    "403",
    "example.org",
    "*.example.org",
    "*",
    "@a",
    "@",
    "alice",
    "broken",
    "10.0.0.0/8",
    "::1",
    "8000-8999",
    "tls",
    "10/s",
    "ads.txt",
    "wrong.txt",
    "/usr/bin/curl",
    "/",
    "socks5",
    "127.0.0.1:1080",
];
