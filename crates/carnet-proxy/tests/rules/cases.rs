//! What is said about files, word for word: `cases.txt` has each file and what is said. `CARNET_BLESS=1` writes anew
//! what is said now.

use std::{collections::BTreeSet, env, fs};

use carnet_proxy::rules::Kind;

use crate::stage::{read, said};

#[test]
fn what_is_said_is_what_the_cases_have() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rules/cases.txt");
    let cases = fs::read_to_string(path).unwrap();
    let mut all = String::new();
    let mut seen = BTreeSet::new();
    for case in cases.split("==== ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (text, _) = rest.split_once("----\n").unwrap();
        let mistakes = read(text).err().unwrap_or_default();
        all += &format!("==== {name}\n{text}----\n{}", said(&mistakes));
        seen.extend(mistakes.iter().map(|mistake| mistake.kind));
    }
    if env::var_os("CARNET_BLESS").is_some() {
        fs::write(path, &all).unwrap();
        return;
    }
    for (number, (expected, said)) in (1..).zip(cases.lines().zip(all.lines())) {
        assert_eq!(expected, said, "line {number} of cases.txt");
    }
    assert_eq!(cases, all);
    let unseen: Vec<_> = Kind::ALL.iter().filter(|kind| !seen.contains(kind)).collect();
    assert!(unseen.is_empty(), "each kind of mistake has a case, but not {unseen:?}");
}
