//! `docs/contract.md` and the suite say the same.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{collections::BTreeSet, env, fs, path::PathBuf, process::Command};

use serde_json::Value;

/// Tables between `<!-- carnet-contract ARGUMENTS -->` and `<!-- end -->` are what the program prints with these
/// arguments. `CARNET_BLESS=1` writes them.
#[test]
fn tables_are_what_the_program_prints() {
    let document = read();
    let mut new = String::new();
    let mut rest = &document[..];
    while let Some((before, after)) = rest.split_once("<!-- carnet-contract ") {
        let (arguments, after) = after.split_once(" -->\n").unwrap();
        let (_old, after) = after.split_once("<!-- end -->").unwrap();
        let table = suite(&arguments.split(' ').collect::<Vec<_>>());
        new += &format!("{before}<!-- carnet-contract {arguments} -->\n\n{}\n\n<!-- end -->", table.trim());
        rest = after;
    }
    new += rest;

    if env::var_os("CARNET_BLESS").is_some() {
        fs::write(path(), &new).unwrap();
    }
    for (line, expected) in read().lines().zip(new.lines()) {
        assert_eq!(line, expected, "CARNET_BLESS=1 cargo test -p carnet-contract --test document");
    }
    assert_eq!(read().len(), new.len());
    let groups: BTreeSet<String> = cases().iter().map(|case| format!("--group {}", text(case, "group"))).collect();
    for needed in groups.iter().map(String::as_str).chain(["--differences", "--unknown"]) {
        assert!(new.contains(&format!("<!-- carnet-contract --list --markdown {needed} -->")), "no table of {needed}");
    }
}

/// In backticks a word that begins as an id is one, or a pattern of some that ends in `.*`.
#[test]
fn every_case_is_in_the_document_and_every_id_there_is_a_case() {
    let document = read();
    let ids = ids();
    let first = |id: &str| id.split('.').next().unwrap().to_owned();
    let families: BTreeSet<String> = ids.iter().map(|id| first(id)).collect();
    let mut named = BTreeSet::new();
    for word in document.split('`').skip(1).step_by(2) {
        if !word.contains('.') || word.contains([' ', '/']) || !families.contains(&first(word)) {
            continue;
        }
        match word.strip_suffix('*') {
            Some(prefix) => assert!(ids.iter().any(|id| id.starts_with(prefix)), "{word} names no case"),
            None => {
                assert!(ids.contains(word), "{word} is no case");
                named.insert(word.to_owned());
            }
        }
    }
    assert_eq!(ids.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the document");
}

fn ids() -> BTreeSet<String> {
    cases().iter().map(|case| text(case, "id")).collect()
}

fn cases() -> Vec<Value> {
    let list: Value = serde_json::from_str(&suite(&["--list", "--json"])).unwrap();
    list["cases"].as_array().unwrap().clone()
}

fn text(case: &Value, field: &str) -> String {
    case[field].as_str().unwrap().to_owned()
}

fn suite(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_carnet-contract")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn read() -> String {
    fs::read_to_string(path()).unwrap()
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/contract.md")
}
