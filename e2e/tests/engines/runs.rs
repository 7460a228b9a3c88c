//! `carnet run` whose command is another `carnet run`, or starts one.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use carnet_e2e::Relay;
use carnet_e2e::command::{Ended, Process, Run, Traces, carnet, carnet_run, finish, undisturbed};
use carnet_e2e::flow_log::{Flow, FlowLog};
use carnet_e2e::programs::Scratch;
use carnet_e2e::sockets::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A client, see `carnet-e2e-load`.
const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");

/// The inner command's connection goes through the inner service, and what that dials through the outer one.
#[test]
fn a_connection_goes_through_the_services_of_both() {
    let server = echo_server();
    let (ended, [outer, inner]) = run_in_run(&[LOAD, "finish", "1", &server.addresses[0].to_string()]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let destination = server.addresses[0];

    let flow = only(&inner, destination);
    assert_eq!(flow.text("program"), Some("carnet-e2e-load"));
    assert_eq!((flow.chain(), flow.text("ended")), (vec![("inspect", false)], Some("closed")));
    assert_eq!(flow.bytes(), (1, 1));
    assert_eq!(inner.flows.len(), 1, "{inner:#?}");

    // The outer run has the inner service's connection, as one of its command's.
    let onward = only(&outer, destination);
    assert_eq!(onward.text("program"), Some("carnet-inspect"), "the inner run's built-in service");
    assert_eq!((onward.chain(), onward.text("ended")), (vec![("inspect", false)], Some("closed")));
    assert_eq!(onward.bytes(), (1, 1));

    // ... and says of the application's own connection that it was left to the inner run.
    let [left] = &outer.flows.iter().filter(|flow| flow.destination() != destination).collect::<Vec<_>>()[..] else {
        panic!("one more: {outer:#?}")
    };
    assert_eq!(left.text("program"), Some("carnet-e2e-load"));
    assert_eq!((left.text("decision"), left.text("left_alone")), (Some("left-alone"), Some("other-engine")));
    assert_eq!((left.chain(), left.text("ended")), (vec![], None), "its end is the inner run's to tell");
}

/// Services' names and the run's own output are not mixed up: each run has its own log and its own exit code.
#[test]
fn exit_codes_and_logs_are_each_runs_own() {
    let (ended, [outer, inner]) = run_in_run(&["sh", "-c", "exit 7"]);
    assert_eq!(ended.code, 7, "{ended:?}");
    assert_eq!((outer.flows.len(), inner.flows.len()), (0, 0));
    assert_eq!((outer.warnings.len(), inner.warnings.len()), (0, 0));
}

/// The inner run's cgroup is in that of the process that started it, so whatever ends the outer run ends the inner one.
#[test]
fn the_inner_run_is_inside_and_ends_with_the_outer_one() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let run = idle_in_run();
        let outer = run.cgroup();
        let inner = inner_run(&outer.join("app")).expect("the inner run's cgroup");
        assert!(inner.join("app").exists() && inner.join("services/0").exists(), "{inner:?}");
        let traces = Traces::of(&run);
        assert!(traces.links.len() > 20, "both runs': {traces:?}");
        kill(Pid::from_raw(run.pid().cast_signed()), signal).unwrap();
        traces.assert_gone(&format!("{signal} to the outer run"));
        assert!(!outer.exists() && !inner.exists());
    }
}

/// An inner run that was killed together with its guardian leaves its cgroup. The next inner run of that place removes it,
/// while the outer one goes on.
#[test]
fn an_inner_run_removes_what_an_earlier_one_has_left() {
    let carnet = carnet().display().to_string();
    let script = format!(
        "'{carnet}' run -- sh -c 'echo ready; exec sleep 1000'; echo again; read line; '{carnet}' run -- echo swept; cat"
    );
    let mut run = Run::start(&mut carnet_run(&["--", "sh", "-c", &script]));
    assert_eq!(run.line_within(STARTING), "ready");
    let app = run.cgroup().join("app");
    let left = inner_run(&app).expect("the inner run's cgroup");
    let name = left.file_name().unwrap().to_str().unwrap().to_owned();
    let supervisor: i32 = name.split(['-']).nth(1).unwrap().parse().unwrap();
    let guardian = guardian_of(&run, supervisor);
    for pid in [guardian, supervisor] {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    }
    for pid in [guardian, supervisor] {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    assert_eq!(run.line_within(STARTING), "again");
    assert!(left.exists(), "nobody was there to remove it");
    run.say("");
    assert_eq!(run.line_within(STARTING), "swept");
    until("the cgroup to go", || (!left.exists()).then_some(()));
    assert!(app.exists() && !run.has_ended());
    run.close_input();
    assert_eq!(run.end().code, 0);
}

/// Owners' cgroups are looked for eleven levels deep, which is five runs in one another.
#[test]
fn too_many_runs_in_one_another_are_refused() {
    let nested = |runs: usize| {
        let carnet = carnet().display().to_string();
        let inner: Vec<&str> = std::iter::repeat_n([&carnet[..], "run", "--"], runs - 1).flatten().collect();
        finish(&mut carnet_run(&[&["--"], &inner[..], &["echo", "reached"]].concat()))
    };
    let ended = nested(5);
    assert_eq!((ended.code, &ended.output[..]), (0, "reached\n"), "{ended:?}");
    let ended = nested(6);
    assert_eq!((ended.code, &ended.output[..]), (3, ""), "{ended:?}");
    assert!(ended.errors.contains("13 levels deep") && ended.errors.contains("--through A --through B"), "{ended:?}");
}

/// It goes on without, and a run alone is as good as any.
#[test]
fn without_sys_admin_it_says_so() {
    let server = echo_server();
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let address = server.addresses[0].to_string();
    let (carnet, log_path) = (carnet().display().to_string(), log.display().to_string());
    let run = ["run", "--json", "--log", &log_path, "--", LOAD, "finish", "1", &address];
    let ended = finish(without_sys_admin().args(run));
    assert_eq!(ended.code, 0, "{ended:?}");
    let told = FlowLog::read(&log);
    let [warning] = &told.warnings[..] else { panic!("one warning: {told:#?}") };
    assert!(warning.contains("may not look for other engines") && warning.contains("CAP_SYS_ADMIN"), "{warning}");
    assert_eq!(only(&told, server.addresses[0]).chain(), [("inspect", false)]);

    let ended = finish(undisturbed(Command::new(&carnet).args(run)));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(FlowLog::read(&log).warnings, [""; 0]);
}

/// `carnet` without `CAP_SYS_ADMIN`.
fn without_sys_admin() -> Command {
    let mut command = Command::new("setpriv");
    undisturbed(&mut command).args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]).arg(carnet());
    command
}

fn echo_server() -> Relay {
    Relay::start(0, Command::new(env!("CARGO_BIN_EXE_carnet-e2e-relay")).arg("server"))
}

/// A run of a run of the command, and the logs of the outer and the inner one.
fn run_in_run(command: &[&str]) -> (Ended, [FlowLog; 2]) {
    let scratch = Scratch::new();
    let logs = ["outer", "inner"].map(|name| scratch.file(name).display().to_string());
    let carnet = carnet().display().to_string();
    let inner = [&carnet, "run", "--json", "--log", &logs[1], "--"];
    let ended = finish(&mut carnet_run(&[&["--json", "--log", &logs[0], "--"], &inner[..], command].concat()));
    (ended, logs.map(|log| FlowLog::read(log.as_ref())))
}

/// A run of a run that does nothing until its input ends.
fn idle_in_run() -> Run {
    let carnet = carnet().display().to_string();
    let mut run = Run::start(&mut carnet_run(&["--", &carnet, "run", "--", "sh", "-c", "echo ready; exec cat"]));
    assert_eq!(run.line_within(STARTING), "ready");
    run
}

/// The cgroup of a run in this one.
fn inner_run(app: &PathBuf) -> Option<PathBuf> {
    let entries = fs::read_dir(app).unwrap().flatten();
    entries
        .map(|entry| entry.path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("carnet.run-"))
}

fn guardian_of(run: &Run, supervisor: i32) -> i32 {
    let is_it = |process: &Process| {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
        let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{supervisor}"))
            && line.split(|&byte| byte == 0).nth(1) == Some(b"__guardian")
    };
    Traces::of(run).processes.into_iter().find(is_it).expect("the inner run's guardian").pid.cast_signed()
}

fn only(log: &FlowLog, destination: SocketAddr) -> &Flow {
    let [flow] = log.to(destination)[..] else { panic!("one flow to {destination}: {log:#?}") };
    flow
}

/// Two engines are loaded, one after the other.
const STARTING: std::time::Duration = std::time::Duration::from_secs(30);
