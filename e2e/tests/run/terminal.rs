//! On a terminal: `script`, which every Debian system has (bsdutils), gives the run one.

use std::process::Command;

use carnet_e2e::command::{Run, carnet, undisturbed};
use carnet_engine::cgroup::Hierarchy;

use crate::{LOAD, echo_server};

#[test]
fn the_terminal_is_the_commands() {
    // The reading is what a process of a background group could not do.
    let mut run = on_terminal(&[
        "--",
        "sh",
        "-c",
        "test -t 0 && test -t 1 && test -t 2 && tty; read line </dev/tty; echo \"got $line\"",
    ]);
    assert!(run.line().starts_with("/dev/pts/"));
    run.say("a line");
    assert_eq!(run.line(), "a line", "the terminal's echo");
    assert_eq!(run.line(), "got a line");
    let ended = run.end();
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn ctrl_c_ends_it() {
    let mut run = on_terminal(&["--", "sh", "-c", "grep -o carnet.run-.*/ /proc/self/cgroup; exec sleep 1000"]);
    let cgroup = run.line();
    run.write(CTRL_C);
    let ended = run.end();
    assert_eq!(ended.code, 130, "{ended:?}");
    assert!(ended.output.contains("carnet: 0 flows"), "the log has its end: {ended:?}");
    assert_gone(&cgroup);
}

#[test]
fn ctrl_c_is_for_the_command_to_decide() {
    let script = "n=0; trap 'n=$((n+1)); echo \"got $n\"' INT; grep -o carnet.run-.*/ /proc/self/cgroup; \
                  while [ $n -lt 2 ]; do sleep 0.01; done; \"$0\" finish 1 \"$1\"; exit 5";
    let server = echo_server();
    let mut run = on_terminal(&["--", "sh", "-c", script, LOAD, &server.addresses[0].to_string()]);
    let cgroup = run.line();
    for expected in ["got 1", "got 2"] {
        run.write(CTRL_C);
        // Once each: the terminal sends it to the command, and carnet does not as well.
        assert_eq!(run.line().trim_start_matches("^C"), expected);
    }
    let ended = run.end();
    // Services are no target of Ctrl-C, so the connection made after it was inspected.
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(ended.output.contains("inspect"), "{ended:?}");
    assert_gone(&cgroup);
}

#[test]
fn colours_and_columns() {
    let server = echo_server();
    let destination = server.addresses[0].to_string();
    let ended = on_terminal(&["--", LOAD, "finish", "1", &destination]).end();
    assert!(ended.output.contains("\x1b["), "{ended:?}");
    assert!(ended.output.contains("closed\x1b[0m    "), "padded: {ended:?}");
    for plain in [&["--color", "never"][..], &["--json"]] {
        let ended = on_terminal(&[plain, &["--", LOAD, "finish", "1", &destination]].concat()).end();
        assert!(ended.output.contains(&destination) && !ended.output.contains('\x1b'), "{ended:?}");
    }
}

fn on_terminal(arguments: &[&str]) -> Run {
    let carnet = carnet();
    let words = [carnet.to_str().unwrap(), "run"].into_iter().chain(arguments.iter().copied());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let mut command = Command::new("script");
    // A shell that stayed would get Ctrl-C too.
    command.args(["--quiet", "--return", "--command", &format!("exec {}", line.join(" ")), "/dev/null"]);
    command.env("SHELL", "/bin/sh").env("TERM", "xterm");
    Run::start(undisturbed(&mut command))
}

fn assert_gone(cgroup: &str) {
    assert!(cgroup.starts_with("carnet.run-"), "{cgroup}");
    assert!(!Hierarchy::find().unwrap().mount().join(cgroup).exists(), "{cgroup} is left");
}

const CTRL_C: &[u8] = b"\x03";
