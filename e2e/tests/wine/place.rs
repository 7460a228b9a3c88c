//! Where Wine's processes are: the sockets of a Windows program are made and connected by its wineserver, so wineserver's
//! cgroup decides whose they are, and wineserver is who the kernel sees.

use std::fs;
use std::path::Path;

use carnet_e2e::command::{Ended, Run, carnet_run, finish};
use carnet_e2e::flow_log::FlowLog;
use carnet_e2e::netns;
use carnet_e2e::origin::{Exchange, Origin};
use carnet_e2e::programs::{Started, program};
use carnet_e2e::sockets::until;

use crate::service::Service::Windows;
use crate::service::{Library, Services, windows_service};

#[test]
fn the_program_and_its_wineserver_are_in_the_services_cgroup() {
    let services = Services::build(Library::Shim);
    let through = services.through(Windows, 0);
    netns::alone(|| {
        let run = Run::idle(&["--through", &through]);
        let executable = |pid| fs::read_link(format!("/proc/{pid}/exe")).unwrap().display().to_string();
        let mut programs: Vec<_> = run.service_processes(0).into_iter().map(executable).collect();
        programs.sort();
        let [program, server] = &programs[..] else { panic!("two processes: {programs:?}") };
        assert!(program.contains("wine64") && server.contains("wineserver"), "{programs:?}");
    });
}

/// One that was there before is not the service's, and neither are the listeners it makes.
#[test]
fn a_wineserver_outside_the_services_cgroup_makes_listeners_that_are_not_the_services() {
    let services = Services::build(Library::Shim);
    let directory = services.prepare(&windows_service(), 0);
    netns::alone(|| {
        let _server = wineserver(&directory);
        let through = format!("'{}' {{port}}", directory.join("windows-service").display());
        let run = &["--start-timeout", "2", "--through", &through, "--", "echo", "started"];
        let ended = finish(&mut carnet_run(run));
        assert_eq!((ended.code, &ended.output[..]), (3, ""), "{ended:?}");
        assert!(ended.errors.contains("does not listen on its port after 2s"), "{ended:?}");
    });
}

/// Windows programs can be the command, too. All of one Wine are one application to the kernel.
#[test]
fn a_windows_application_is_its_wineserver_in_the_flow_log() {
    let services = Services::build(Library::Plain);
    let directory = services.prepare(&services.compile("client.c"), 0);
    netns::alone(|| {
        let (ended, log, address) = of_the_client(&services, &directory);
        assert_eq!((ended.code, ended.output.trim()), (0, "5"), "{ended:?}");
        let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        assert_eq!((flow.destination(), flow.chain(), flow.bytes()), (address, vec![("inspect", false)], (5, 5)));
        // The kernel keeps 15 characters of a name.
        assert!(flow.text("program").unwrap().starts_with("wineserver"), "{flow:?}");
    });
}

/// Nothing tells of it: the connections belong to a cgroup that is not governed.
#[test]
fn a_windows_application_whose_wineserver_is_elsewhere_is_not_governed() {
    let services = Services::build(Library::Plain);
    let directory = services.prepare(&services.compile("client.c"), 0);
    netns::alone(|| {
        let _server = wineserver(&directory);
        let (ended, log, _) = of_the_client(&services, &directory);
        assert_eq!((ended.code, ended.output.trim()), (0, "5"), "{ended:?}");
        assert_eq!(log.flows.len(), 0, "{log:#?}");
    });
}

/// `carnet run` of `client.c`, and where the client went.
fn of_the_client(services: &Services, directory: &Path) -> (Ended, FlowLog, std::net::SocketAddr) {
    let origin = Origin::echo_at_the_end("127.0.0.1:0");
    let log = services.file("flows.json");
    let mut run = carnet_run(&["--json", "--log"]);
    run.arg(&log).arg("--").arg(directory.join("windows-service")).arg(origin.address.port().to_string());
    let ended = finish(&mut run);
    until("the origin to see the end", || (origin.served().len() == 1).then_some(()));
    assert_eq!(origin.served(), [Exchange { received: 5, sent: 5, ..Exchange::default() }]);
    (ended, FlowLog::read(&log), origin.address)
}

/// Started in the test's own cgroup, for the Wine of this directory, and listening.
fn wineserver(directory: &Path) -> Started {
    let tmp = directory.join("tmp");
    let mut server = program("/usr/lib/wine/wineserver64");
    server.args(["-f", "-p"]).env("WINEPREFIX", directory.join("prefix")).env("TMPDIR", &tmp);
    let server = Started::by(&mut server);
    until("wineserver's socket", || is_below(&tmp, "socket").then_some(()));
    server
}

fn is_below(directory: &Path, name: &str) -> bool {
    fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        entry.file_name() == name || is_directory && is_below(&entry.path(), name)
    })
}
