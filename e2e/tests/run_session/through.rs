//! What a run's connections go through, and what its log says.

use std::process::Command;

use carnet_e2e::command::{Run, carnet, finish, undisturbed};
use carnet_e2e::enter;
use carnet_e2e::flow_log::FlowLog;

use crate::{Host, LOAD, plain};

#[test]
fn the_hosts_services_come_first_and_each_has_a_flow_once() {
    let host = Host::new();
    let destination = host.destination().to_string();
    let log = host.daemon.file("log.json");
    let command = ["--", LOAD, "finish", "5", &destination];
    let through = ["--json", "--log", log.to_str().unwrap(), "--through", "inspect", "--through", "inspect"];
    let ended = finish(&mut host.run(&[&through[..], &command].concat()));
    assert_eq!((ended.code, &ended.errors[..]), (0, ""), "{}", host.daemon.log());

    let log = FlowLog::read(&log);
    assert_eq!((log.flows.len(), log.to(host.destination()).len()), (5, 5), "{log:#?}");
    for flow in &log.flows {
        assert_eq!(plain(&flow.chain()), ["host", "inspect", "inspect-2"], "{flow:?}");
        assert_eq!((flow.text("program"), flow.text("ended")), (Some("carnet-e2e-load"), Some("closed")));
        assert_eq!((flow.text("decision"), flow.bytes()), (Some("redirected"), (1, 1)));
    }
    assert_eq!((&log.summary["flows"], &log.summary["events_lost"]), (&5.into(), &0.into()));
    assert!(log.warnings.is_empty(), "{log:#?}");
    host.assert_no_session();
}

#[test]
fn a_line_of_text_is_as_ever() {
    let host = Host::new();
    let destination = host.destination().to_string();
    let ended = finish(&mut host.run(&["--", LOAD, "finish", "1", &destination]));
    let lines: Vec<_> = ended.errors.lines().collect();
    let [line, summary] = lines[..] else { panic!("a flow and a summary, not {ended:?}") };
    assert_eq!((ended.code, summary), (0, "carnet: 1 flow, 1 B up, 1 B down"));
    let fields: Vec<_> = line.split("  ").collect();
    let [_, program, to, bytes, _, end, chain] = fields[..] else { panic!("{fields:?}") };
    assert!(program.starts_with("carnet-e2e-load["), "{line}");
    assert_eq!((to, bytes, end), (&destination[..], "1 B up, 1 B down", "closed"));
    assert!(chain.starts_with("host > inspect@"), "{line}");
    host.assert_no_session();
}

#[test]
fn two_runs_at_once_have_their_own_services_alone() {
    let host = Host::new();
    let destination = host.destination().to_string();
    let script = r#"echo ready; read line; exec "$0" finish 3 "$1""#;
    let command = ["--json", "--", "sh", "-c", script, LOAD, &destination];
    let mut runs = [(); 2].map(|()| Run::start(&mut host.run(&command)));
    for run in &mut runs {
        assert_eq!(run.line(), "ready");
    }
    assert_eq!((host.daemon.status().sessions, host.runs().len()), (2, 2));
    for run in &mut runs {
        run.say("go on");
    }
    for run in runs {
        let own = format!("inspect@{}", run.pid());
        let ended = run.end();
        assert_eq!(ended.code, 0, "{ended:?}");
        let log = FlowLog::parse(&ended.errors);
        assert_eq!(log.flows.len(), 3, "{log:#?}");
        assert!(log.flows.iter().all(|flow| flow.chain() == [("host", false), (&own[..], false)]), "{log:#?}");
    }
    host.assert_no_session();
}

#[test]
fn without_loopback_connections_to_it_have_the_hosts_services_alone() {
    let host = Host::new();
    let destination = host.destination().to_string();
    let ended = finish(&mut host.run(&["--json", "--no-loopback", "--", LOAD, "finish", "2", &destination]));
    assert_eq!(ended.code, 0, "{ended:?}");
    let log = FlowLog::parse(&ended.errors);
    assert_eq!(log.flows.len(), 2, "flows of the command are told whoever has them: {log:#?}");
    assert!(log.flows.iter().all(|flow| flow.chain() == [("host", false)]), "{log:#?}");
}

#[test]
fn what_the_host_refuses_is_in_the_log() {
    let refused = "[[filter]]\nname = \"no\"\nmatch = { remote = \"192.0.2.7\" }\naction = \"block\"\n\n";
    let host = Host::with(refused);
    let log = host.daemon.file("log.json");
    let options = ["--json", "--log", log.to_str().unwrap()];
    finish(&mut host.run(&[&options[..], &["--", LOAD, "finish", "1", "192.0.2.7:80"]].concat()));
    let log = FlowLog::read(&log);
    let [flow] = &log.flows[..] else { panic!("{log:#?}") };
    assert_eq!((flow.text("decision"), flow.text("reason")), (Some("refused"), Some("blocked")), "{flow:?}");
}

#[test]
fn an_engine_of_its_own_is_had_by_asking_for_it_and_where_nothing_is_governed() {
    let host = Host::new();
    let destination = host.destination().to_string();
    let load = ["--", LOAD, "finish", "1", &destination];
    let mut own = enter(&host.ground.app, carnet().to_str().unwrap());
    undisturbed(&mut own).args(["run", "--json", "--own-engine"]).args(load);
    let mut elsewhere = Command::new(carnet());
    undisturbed(&mut elsewhere).args(["run", "--json", "--socket"]).arg(host.daemon.socket()).args(load);
    for command in [&mut own, &mut elsewhere] {
        let ended = finish(command);
        assert_eq!(ended.code, 0, "{ended:?}");
        let log = FlowLog::parse(&ended.errors);
        assert!(log.to(host.destination()).iter().any(|flow| flow.chain() == [("inspect", false)]), "{log:#?}");
    }
    host.assert_no_session();
}
