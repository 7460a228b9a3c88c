//! The suite as a Windows program. Wine has none of the operations, so what is shown there is that every case ends, and
//! that the answers are those which are known of it.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{env, fs, path::Path, process::Command};

use serde_json::Value;

#[test]
fn every_case_ends() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_carnet-contract")).args(["--unredirected", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cases = report["cases"].as_array().unwrap();
    let answers =
        cases.iter().filter_map(|case| Some(format!("{}: {}\n", case["id"].as_str()?, case["observed"].as_str()?)));
    let answers: Vec<String> = answers.collect();

    let version = report["version"].as_str().unwrap();
    println!("{version}\n{}", answers.concat());
    assert!(answers.len() > 100, "{} answers", answers.len());
    for answer in &answers {
        assert!(!answer.contains("no answer: none in"), "{answer}");
        assert!(!answer.contains("no answer: the case panicked"), "{answer}");
    }
    if env::var_os("WINELOADER").is_some() {
        assert!(version.contains(", Wine "), "this is Wine, and it does not say so: {version}");
    }
    // There is nothing to compare other systems with: their answers are what they are asked for.
    match version.ends_with(", Wine 8.0") {
        true => as_wine_answers(&answers.concat()),
        false => println!("not compared: the answers in the file are those of Wine 8.0"),
    }
}

/// `CARNET_BLESS=1` writes what is answered now.
fn as_wine_answers(answers: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wine-8.0.txt");
    if env::var_os("CARNET_BLESS").is_some() {
        fs::write(&file, answers).unwrap();
    }
    let known = fs::read_to_string(file).unwrap();
    for (answer, known) in answers.lines().zip(known.lines()) {
        assert_eq!(answer, known, "CARNET_BLESS=1 takes the new answer");
    }
    assert_eq!(answers.lines().count(), known.lines().count(), "CARNET_BLESS=1 takes the new answers");
}
