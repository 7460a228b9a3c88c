//! Kills: of the run, of the daemon.

use carnet_e2e::command::Run;
use carnet_e2e::flow_log::FlowLog;
use carnet_e2e::sockets::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Host, LOAD, plain};

/// Makes a connection for every line of its input.
const SCRIPT: &str = r#"echo ready; while read line; do "$0" finish 1 "$1" && echo done; done"#;

#[test]
fn a_kill_of_the_run_ends_its_session_and_all_that_it_started() {
    let host = Host::new();
    let mut run = Run::start(&mut host.run(&["--", "sh", "-c", "echo ready; exec cat"]));
    assert_eq!(run.line(), "ready");
    assert_eq!((host.daemon.status().sessions, host.runs().len()), (1, 1));
    kill(Pid::from_raw(run.pid().cast_signed()), Signal::SIGKILL).unwrap();
    until("the run to be gone", || run.has_ended().then_some(()));
    until("its cgroup to be gone", || host.runs().is_empty().then_some(()));
    host.assert_no_session();
}

#[test]
fn while_the_daemon_is_dead_connections_are_inspected_and_the_next_one_has_the_session_again() {
    let mut host = Host::new();
    let destination = host.destination().to_string();
    let log = host.daemon.file("log.json");
    let options = ["--json", "--log", log.to_str().unwrap(), "--", "sh", "-c", SCRIPT, LOAD, &destination];
    let mut run = Run::start(&mut host.run(&options));
    assert_eq!(run.line(), "ready");
    connect(&mut run);
    // Its line has been told.
    until("the first line", || (std::fs::read_to_string(&log).unwrap().lines().count() == 1).then_some(()));
    host.daemon.kill();
    connect(&mut run);
    host.daemon.restart();
    assert!(host.daemon.status().adopted);
    until("the session to be back", || (host.daemon.status().sessions == 1).then_some(()));
    connect(&mut run);
    run.close_input();
    let ended = run.end();
    assert_eq!((ended.code, &ended.errors[..]), (0, ""), "{}", host.daemon.log());

    let log = FlowLog::read(&log);
    assert!(log.flows.len() >= 2, "the first and the last: {log:#?}");
    assert!(log.flows.iter().all(|flow| plain(&flow.chain()) == ["host", "inspect"]), "{log:#?}");
    assert!(log.warnings.iter().any(|warning| warning.contains("registered again")), "{log:#?}");
    host.assert_no_session();
}

#[test]
fn a_run_that_ends_while_the_daemon_is_dead_does_not_keep_others_from_coming_back() {
    let mut host = Host::new();
    let destination = host.destination().to_string();
    let command = ["--json", "--", "sh", "-c", SCRIPT, LOAD, &destination];
    let [mut one, mut other] = [(); 2].map(|()| Run::start(&mut host.run(&command)));
    assert_eq!((one.line(), other.line()), ("ready".into(), "ready".into()));
    host.daemon.kill();
    one.close_input();
    let ended = one.end();
    assert_eq!(ended.code, 0, "{ended:?}");
    host.daemon.restart();
    until("the session to be back", || (host.daemon.status().sessions == 1).then_some(()));
    connect(&mut other);
    other.close_input();
    let ended = other.end();
    assert_eq!(ended.code, 0, "{ended:?}");
    let log = FlowLog::parse(&ended.errors);
    assert!(log.flows.len() == 1 && plain(&log.flows[0].chain()) == ["host", "inspect"], "{log:#?}");
}

#[test]
fn where_everything_is_removed_the_command_ends_unless_it_may_go_on() {
    for (options, code) in [(&[][..], 3), (&["--open"][..], 0)] {
        let mut host = Host::new();
        let destination = host.destination().to_string();
        let command = ["--", "sh", "-c", SCRIPT, LOAD, &destination];
        let mut run = Run::start(&mut host.run(&[options, &command].concat()));
        assert_eq!(run.line(), "ready");
        let down = host.daemon.down();
        assert_eq!(down.code, 0, "{down:?}");
        if code == 0 {
            connect(&mut run);
            run.close_input();
        }
        let ended = run.end();
        assert_eq!(ended.code, code, "{ended:?}");
        let said = ended.errors.contains("is over, so the command was ended; with --open");
        assert_eq!(said, code != 0, "{ended:?}");
        assert!(host.runs().is_empty());
    }
}

fn connect(run: &mut Run) {
    run.say("connect");
    assert_eq!(run.line(), "done");
}
