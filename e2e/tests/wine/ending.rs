//! The end of a run, of a Windows program and of its wineserver, and what is left of them.

use carnet_e2e::command::{Process, Run, turn};
use carnet_e2e::netns;
use carnet_e2e::sockets::{connect, is_idle, listen, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::service::Service::Windows;
use crate::service::{Library, Services};

#[test]
fn a_run_that_ends_leaves_no_wine_behind() {
    with_a_windows_service(|mut run, wine| {
        run.close_input();
        // This sees that the cgroup has gone, too.
        let ended = run.end();
        assert_eq!(ended.code, 0, "{ended:?}");
        all_gone(&wine);
    });
}

/// As where a test fails: nobody tells wineserver to end, and it is no child of anybody's.
#[test]
fn a_run_that_is_killed_leaves_no_wine_behind() {
    with_a_windows_service(|run, wine| {
        let cgroup = run.cgroup();
        drop(run);
        all_gone(&wine);
        until("the run's cgroup to go", || (!cgroup.exists()).then_some(()));
    });
}

#[test]
fn a_windows_service_that_is_killed_ends_the_command() {
    with_a_windows_service(|run, wine| {
        kill_one(&wine, "wine64");
        let ended = run.end();
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(ended.errors.contains("windows-service was killed by SIGKILL"), "{ended:?}");
        all_gone(&wine);
    });
}

/// The program has lost its sockets and does not end: Wine lets it wait for ever. The listener is gone, so connections are
/// refused; none passes by.
#[test]
fn a_windows_service_without_its_wineserver_is_a_dead_service() {
    let _turn = turn();
    with_a_windows_service(|mut run, wine| {
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap();
        kill_one(&wine, "wineserver");
        let refused = until("the listener to go", || run.in_app(|| connect(destination)).err());
        assert_eq!(refused, libc::ECONNREFUSED);
        assert!(is_idle(&server));
        run.close_input();
        let ended = run.end();
        assert_eq!(ended.code, 0, "{ended:?}");
        all_gone(&wine);
    });
}

/// A run whose command waits, and the processes of its service: the program and its wineserver.
fn with_a_windows_service(act: impl FnOnce(Run, Vec<Process>) + Send) {
    let services = Services::build(Library::Shim);
    let through = services.through(Windows, 0);
    netns::alone(|| {
        let run = Run::idle(&["--through", &through]);
        let wine: Vec<_> = run.service_processes(0).into_iter().filter_map(Process::of).collect();
        assert_eq!(wine.len(), 2, "{wine:?}");
        act(run, wine);
    });
}

fn kill_one(processes: &[Process], executable: &str) {
    let runs = |process: &&Process| {
        let path = std::fs::read_link(format!("/proc/{}/exe", process.pid)).unwrap();
        path.file_name().unwrap().to_string_lossy().contains(executable)
    };
    let process = processes.iter().find(runs).unwrap();
    kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGKILL).unwrap();
}

fn all_gone(processes: &[Process]) {
    until("the processes to end", || (!processes.iter().any(Process::lives)).then_some(()));
}
