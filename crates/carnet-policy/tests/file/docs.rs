//! What the documents show can be used.

use std::collections::BTreeSet;
use std::fs;

use carnet_policy::file::{Finding, Id, Level, Nowhere, PolicyFile};

use crate::stage::folder;

fn document(name: &str) -> String {
    fs::read_to_string(format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What is said about a text where no host is asked.
fn said(name: &str, text: &str) -> Vec<Finding> {
    match PolicyFile::read(name, text, &folder(), &Nowhere) {
        Ok((file, resolved)) => [file.warnings(&resolved, &Nowhere), resolved.notes].concat(),
        Err(mistakes) => mistakes.findings().to_vec(),
    }
}

#[test]
fn the_example_can_be_used_and_nothing_is_to_be_said_of_it() {
    let said = said("policy.example.toml", &document("policy.example.toml"));
    let ids: Vec<_> = said.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, [Id::NotLookedUp], "{said:#?}");
}

#[test]
fn every_block_of_the_reference_can_be_used() {
    let reference = document("policy.md");
    let blocks: Vec<_> = reference.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(blocks.len() >= 5, "{}", blocks.len());
    for block in blocks {
        let said = said("policy.md", block);
        assert!(said.iter().all(|finding| finding.level() < Level::Mistake), "{block}\n{said:#?}");
    }
}

#[test]
fn the_reference_explains_every_finding_and_no_other() {
    let reference = document("policy.md");
    let ids: BTreeSet<_> = Id::ALL.iter().map(|id| id.name()).collect();
    let from = reference.find("## What is said").unwrap();
    let told = reference[from..].lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once("` |")?.0));
    assert_eq!(told.collect::<BTreeSet<_>>(), ids);
}
