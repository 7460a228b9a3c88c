//! `docs/contract.md` and the suite say the same.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    collections::BTreeSet,
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// As for `carnet-contract --list | head`.
#[test]
fn a_reader_may_have_seen_enough() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_carnet-contract"))
        .args(["--list", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Far more than a pipe holds, so that it writes after this.
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}

/// Tables between `<!-- carnet-contract ARGUMENTS -->` and `<!-- end -->` are what the program prints with these
/// arguments, or where its answers differ from those of Wine. `CARNET_BLESS=1` writes them.
#[test]
fn tables_are_what_the_program_prints() {
    let document = read();
    let mut new = String::new();
    let mut rest = &document[..];
    while let Some((before, after)) = rest.split_once("<!-- carnet-contract ") {
        let (arguments, after) = after.split_once(" -->\n").unwrap();
        let (_old, after) = after.split_once("<!-- end -->").unwrap();
        let table = match arguments {
            WINE => wine_differs(),
            _ => suite(&arguments.split(' ').collect::<Vec<_>>()),
        };
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
    assert!(new.contains(&format!("<!-- carnet-contract {WINE} -->")), "no table of what Wine does");
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

/// Wine has none of the operations, so it is compared with Linux where no engine answers. Cases with the same two answers
/// are one row.
fn wine_differs() -> String {
    let (answers, cases) = (include_str!("wine-8.0.txt"), cases());
    let all = ids();
    let mut rows: Vec<([String; 2], Vec<String>)> = Vec::new();
    for (id, wine) in answers.lines().map(|line| line.split_once(": ").unwrap()) {
        let case = cases.iter().find(|case| case["id"] == id).unwrap_or_else(|| panic!("{id} is no case"));
        let linux = case["without_engine"].as_str().or(case["linux"].as_str()).unwrap_or("cannot occur");
        let pair = [linux, wine].map(str::to_owned);
        match rows.iter_mut().find(|(known, _)| *known == pair) {
            _ if linux == wine => {}
            Some((_, ids)) => ids.push(id.to_owned()),
            None => rows.push((pair, vec![id.to_owned()])),
        }
    }
    let mut text = "| cases | Carnet on Linux without an engine | Wine 8.0 |\n| --- | --- | --- |\n".to_owned();
    for ([linux, wine], ids) in rows {
        text += &format!("| {} | {linux} | {wine} |\n", shortened(&ids, &all).join(", "));
    }
    text
}

/// In backticks, and `family.*` where all cases of a family are there.
fn shortened(group: &[String], all: &BTreeSet<String>) -> Vec<String> {
    let mut words = Vec::new();
    for id in group {
        let (family, _) = id.rsplit_once('.').unwrap();
        let relatives = all.iter().filter(|id| id.starts_with(&format!("{family}.")));
        let whole = relatives.clone().count() > 1 && relatives.clone().all(|id| group.contains(id));
        let word = if whole { format!("`{family}.*`") } else { format!("`{id}`") };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
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

/// Stands where the arguments of the program stand otherwise.
const WINE: &str = "against tests/wine-8.0.txt";
