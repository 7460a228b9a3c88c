//! What it writes, and how it ends.

use std::process::{Command, Stdio};

use carnet_e2e::command::{Ended, carnet, finish};
use carnet_e2e::netns::alone;

use crate::doctor;

#[test]
fn text_says_the_same_as_json() {
    // In a namespace of its own some things are found.
    let (ended, answer) = alone(|| (plain(&["doctor"]), doctor(&[])));
    // Runs of other tests come and go.
    let lasts = |finding: &&serde_json::Value| !finding["id"].as_str().unwrap().starts_with("run-");
    let findings: Vec<_> = answer.report["findings"].as_array().unwrap().iter().filter(lasts).collect();
    assert!(findings.iter().any(|finding| finding["level"] == "note"), "{findings:#?}");
    assert!(ended.output.lines().all(|line| line.chars().count() <= 80 || !line.trim().contains(' ')), "{ended:?}");
    let joined = unwrapped(&ended.output);
    let mut lines = joined.iter().map(|line| &line[..]).peekable();
    let mut area = "";
    let mut seen = 0;
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("  ") {
            let (level, what) = text.split_once(' ').unwrap();
            if what.contains("carnet.run-") {
                lines.next_if(|line| line.starts_with(ACTION));
                continue;
            }
            let is_it = |finding: &&&serde_json::Value| finding["area"] == area && finding["what"] == what.trim_start();
            let finding = findings.iter().find(is_it).unwrap_or_else(|| panic!("{line} is not in {findings:#?}"));
            assert_eq!(finding["level"], level);
            let action = lines.next_if(|line| line.starts_with(ACTION)).map(|line| &line[ACTION.len()..]);
            match finding["do"].as_str().unwrap() {
                "" | "Nothing" => assert_eq!(action, None),
                expected => assert_eq!(action, Some(expected)),
            }
            seen += 1;
        } else if lines.peek().is_some() {
            area = line;
        } else {
            assert!(line.starts_with("carnet doctor: nothing stands in the way"), "{line}");
        }
    }
    assert_eq!((seen, ended.code), (findings.len(), answer.code));
}

#[test]
fn the_object_has_these_fields_and_no_others() {
    let answer = doctor(&[]);
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&answer.report), ["findings", "kernel", "version", "worst"]);
    for finding in answer.report["findings"].as_array().unwrap() {
        assert_eq!(names(finding), ["area", "details", "do", "id", "level", "what"]);
        assert!(finding["details"].is_object());
    }
    let running = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(answer.report["kernel"], running.trim_end());
}

#[test]
fn a_cgroup_that_is_none_is_a_wrong_command_line() {
    for path in ["/etc", "no/such/cgroup", "..", ""] {
        let ended = plain(&["doctor", "--cgroup", path]);
        assert_eq!(ended.code, 2, "{path}: {ended:?}");
        assert!(ended.errors.contains("--cgroup") && ended.output.is_empty(), "{path}: {ended:?}");
        // Of no value at all it is the parser that tells, without the usage.
        assert!(path.is_empty() || ended.errors.contains("Usage: carnet doctor "), "{path}: {ended:?}");
    }
    // As /proc/PID/cgroup has it.
    assert_eq!(plain(&["doctor", "--cgroup", "/"]).code, 0);
}

#[test]
fn a_reader_who_goes_away_is_no_failure() {
    let mut child = Command::new(carnet()).arg("doctor").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}

/// Lines that go on below their beginning, as one.
fn unwrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let goes_on = line.starts_with("           ") && !line.starts_with(ACTION);
        match lines.last_mut() {
            Some(last) if goes_on => *last += &format!(" {}", line.trim_start()),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

const ACTION: &str = "           do: ";

fn plain(arguments: &[&str]) -> Ended {
    finish(Command::new(carnet()).args(arguments))
}
