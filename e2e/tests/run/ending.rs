//! How runs end: exit codes, signals, and that nothing is left.

use std::os::unix::fs::PermissionsExt;
use std::{fs, iter};

use carnet_e2e::command::{Process, Run, Traces, carnet_run};
use carnet_e2e::sockets::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Scratch, run};

#[test]
fn the_exit_code_is_the_commands() {
    let plain = Scratch::new();
    fs::write(plain.path(), "no program").unwrap();
    fs::set_permissions(plain.path(), fs::Permissions::from_mode(0o644)).unwrap();
    for (command, expected, said) in [
        (&["true"][..], 0, ""),
        (&["sh", "-c", "exit 7"], 7, ""),
        (&["sh", "-c", "exit 255"], 255, ""),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15, ""),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9, ""),
        (&["sh", "-c", "kill -ABRT $$"], 128 + 6, ""),
        (&["carnet-no-such-program"], 127, "carnet: cannot start carnet-no-such-program: No such file"),
        (&[plain.path()], 126, "Permission denied"),
        (&["/"], 126, "Permission denied"),
    ] {
        let ended = run(&[&["--"], command].concat());
        assert_eq!(ended.code, expected, "{command:?} {ended:?}");
        assert!(ended.errors.contains(said), "{command:?} {ended:?}");
        assert_eq!(ended.errors.lines().last(), Some("carnet: 0 flows, 0 B up, 0 B down"), "{ended:?}");
    }
}

#[test]
fn a_wrong_command_line() {
    let many: Vec<&str> = iter::repeat_n(["--through", "inspect"], 33).flatten().chain(["--", "true"]).collect();
    for (arguments, said) in [
        (&[][..], "COMMAND"),
        (&["--"], "COMMAND"),
        (&["--no-such-flag", "--", "true"], "--no-such-flag"),
        (&["--through", "mitmdump", "--", "true"], "{port}"),
        (&["--through", "localhost:80", "--", "true"], "Write numbers"),
        (&["--through", "127.0.0.1:0", "--", "true"], "port 0"),
        (&["--through", "'x {port}", "--", "true"], "quotation mark"),
        (&["--loop-limit", "0", "--", "true"], "--loop-limit"),
        (&["--start-timeout", "soon", "--", "true"], "--start-timeout"),
        (&["--color", "pink", "--", "true"], "--color"),
        (&many, "at most"),
    ] {
        let ended = run(arguments);
        assert_eq!((ended.code, &ended.output[..]), (2, ""), "{arguments:?} {ended:?}");
        assert!(ended.errors.contains(said), "{arguments:?} {ended:?}");
    }
}

#[test]
fn a_commands_arguments_are_its_own() {
    let words = r#"printf "<%s>" "$0" "$@""#;
    let ended = run(&["sh", "-c", words, "--json", "a b", "", "--", "--help", "\n"]);
    assert_eq!(ended.output, "<--json><a b><><--><--help><\n>");
    assert_eq!(ended.code, 0);
}

#[test]
fn standard_input_is_the_commands() {
    let mut run = Run::start(&mut carnet_run(&["--", "cat"]));
    let bytes: Vec<u8> = iter::repeat_n("passes through. ", 100_000).flat_map(|text| text.bytes()).collect();
    run.write(&bytes);
    run.close_input();
    let ended = run.end();
    assert_eq!(ended.code, 0);
    assert!(ended.output.as_bytes() == bytes, "{} of {} bytes", ended.output.len(), bytes.len());
}

#[test]
fn signals_are_passed_on() {
    for (signal, name) in
        [(Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP"), (Signal::SIGINT, "INT"), (Signal::SIGUSR1, "USR1")]
    {
        let script = format!("trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 0.01; done");
        let mut caught = Run::start(&mut carnet_run(&["--", "sh", "-c", &script]));
        assert_eq!(caught.line(), "ready");
        send(&caught, signal);
        let ended = caught.end();
        assert_eq!((ended.code, &ended.output[..]), (9, "got\n"), "{signal} {ended:?}");

        let mut uncaught = Run::start(&mut carnet_run(&["--", "sh", "-c", "echo ready; exec sleep 1000"]));
        assert_eq!(uncaught.line(), "ready");
        send(&uncaught, signal);
        let ended = uncaught.end();
        assert_eq!(ended.code, 128 + signal as i32, "{ended:?}");
        assert_eq!(ended.errors, "carnet: 0 flows, 0 B up, 0 B down\n");
    }
}

#[test]
fn a_signal_before_the_command_has_started() {
    let mut run = Run::start(&mut carnet_run(&["--through", "sleep 1000 {port}", "--", "echo", "started"]));
    until("the service", || (!run.service_processes(0).is_empty()).then_some(()));
    let traces = Traces::of(&run);
    send(&run, Signal::SIGTERM);
    until("its end", || run.has_ended().then_some(()));
    let ended = run.end();
    assert_eq!((ended.code, &ended.output[..], &ended.errors[..]), (128 + 15, "", ""));
    traces.assert_gone("SIGTERM before the command");
}

#[test]
fn what_the_command_leaves_behind_ends() {
    let ended = run(&["--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let left: u32 = ended.output.trim().parse().unwrap();
    assert!(!Process::of(left).is_some_and(|process| process.lives()), "{left} is still there");
}

#[test]
fn nothing_is_left() {
    let mut run = Run::idle(&["--through", "inspect", "--through", &format!("'{}' {{port}}", crate::THROUGH)]);
    let traces = Traces::of(&run);
    // What is looked for is found while the run lives.
    assert!(traces.processes.len() >= 5, "run, guardian, two services, command: {traces:?}");
    assert!(traces.programs.len() >= 7 && traces.links.len() >= 7 && traces.maps.len() >= 3, "{traces:?}");
    let there = traces.left();
    assert_eq!(format!("{there:?}"), format!("{traces:?}"));

    run.close_input();
    let ended = run.end();
    assert_eq!(ended.code, 0);
    traces.assert_gone("the command has ended");
}

fn send(run: &Run, signal: Signal) {
    kill(Pid::from_raw(run.pid().cast_signed()), signal).unwrap();
}
