//! What is said about files, word for word: `cases.txt` has each file and what is said. `CARNET_BLESS=1` writes anew
//! what is said now.

use std::collections::BTreeSet;
use std::{env, fs};

use carnet_policy::file::Id;

use crate::stage::findings;

#[test]
fn what_is_said_is_what_the_cases_have() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/file/cases.txt");
    let cases = fs::read_to_string(path).unwrap();
    let mut said = String::new();
    let mut seen = BTreeSet::new();
    for case in cases.split("==== ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (text, _) = rest.split_once("----\n").unwrap();
        let all = findings(text);
        assert!(all.iter().all(|finding| finding.place.marked.start < finding.place.marked.end));
        let answers: Vec<_> = all.iter().map(|finding| format!("{finding}\n")).collect();
        said += &format!("==== {name}\n{text}----\n{}", answers.concat());
        seen.extend(all.iter().map(|finding| finding.id));
    }
    if env::var_os("CARNET_BLESS").is_some() {
        fs::write(path, &said).unwrap();
    } else {
        assert!(cases == said, "{}", difference(&cases, &said));
    }
    let unseen: Vec<_> = Id::ALL.iter().filter(|id| !seen.contains(id)).map(|id| id.name()).collect();
    // Too large for a case: `many.rs` has them.
    assert_eq!(unseen, ["too-many-services"], "each kind of finding has a case");
}

fn difference(expected: &str, said: &str) -> String {
    let (at, (expected, said)) =
        expected.lines().zip(said.lines()).enumerate().find(|(_, (a, b))| a != b).unwrap_or((0, ("", "")));
    format!("line {} of cases.txt is {expected:?}, and what is said is {said:?}", at + 1)
}
