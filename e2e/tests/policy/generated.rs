//! What is generated from the definition of the command line.

use std::fs;
use std::process::Command;

use carnet_e2e::programs::Scratch;

use crate::{Said, says};

#[test]
fn bash_takes_the_completions() {
    let scratch = Scratch::new();
    let script = scratch.file("carnet.bash");
    let said = says(&["completions", "bash"]);
    assert_eq!((said.code, &said.errors[..]), (0, ""));
    fs::write(&script, said.output).unwrap();
    // What a shell does when somebody types `carnet ch` and the tab key.
    let typed =
        r#"source "$0"; COMP_WORDS=(carnet ch); COMP_CWORD=1; _carnet carnet ch carnet; echo "${COMPREPLY[@]}""#;
    let said = Said::by(Command::new("bash").args(["--norc", "-c", typed]).arg(&script));
    assert_eq!((said.code, &said.output[..], &said.errors[..]), (0, "check\n", ""));
}

#[test]
fn manual_pages_are_written_into_a_folder() {
    let scratch = Scratch::new();
    let folder = scratch.file("man1");
    let path = folder.to_str().unwrap();
    let said = says(&["man", path]);
    assert!(said.code == 3 && said.errors.contains("cannot write manual pages"), "{said:?}");
    fs::create_dir(&folder).unwrap();
    let said = says(&["man", path]);
    assert_eq!((said.code, &said.output[..], &said.errors[..]), (0, "", ""));
    let page = fs::read_to_string(folder.join("carnet-explain.1")).unwrap();
    assert!(page.contains(".TH carnet-explain 1") && page.contains("ADDR:PORT"), "{page}");
    assert!(!folder.join("carnet-__exec.1").exists());
}
