//! To be taken for another program or another user.

use std::fs;
use std::net::SocketAddr;
use std::os::linux::fs::MetadataExt;
use std::process::{Command, Stdio};

use carnet::Redirect;
use carnet_abi::{EVENT_CONNECT, REASON_STRANGER};
use carnet_e2e::Sandbox;
use carnet_e2e::programs::{Scratch, Started, succeed};
use carnet_e2e::raw::{self, NOBODY};
use carnet_e2e::sockets::{accept, assert_joined, connect, connect_on, is_idle, listen, stream, until};
use carnet_policy::{Condition, HostAction, Line, Match, Owner, Service as Kind};
use libc::{EACCES, ECONNREFUSED, EPERM};
use socket2::Socket;

use super::{Stage, as_user, assert_refused};

/// The executable is that of the process, whatever code it has been given.
#[test]
fn with_ld_preload_a_connection_is_any_programs() {
    let stage = Stage::new();
    let scratch = Scratch::new();
    let [source, library] = ["connect.c", "connect.so"].map(|name| scratch.file(name));
    fs::write(&source, CONNECTS).unwrap();
    succeed(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source));
    let port = stage.destination.port().to_string();
    let mut command = stage.sandbox.app_command("cat");
    let process = Started::by(command.env("LD_PRELOAD", &library).env("PORT", port).stdin(Stdio::piped()));
    let flow = Redirect::of(&accept(&stage.service.listeners[0])).flow().unwrap();
    let cat = fs::metadata(format!("/proc/{}/exe", process.id())).unwrap().st_ino();
    assert_eq!((flow.origin().pid, flow.origin().exe.inode), (process.id(), cat));
    assert_eq!(fs::metadata("/bin/cat").unwrap().st_ino(), cat);
}

/// Connects when it is loaded, if it is told where to.
const CONNECTS: &str = r#"
#include <arpa/inet.h>
#include <stdlib.h>
__attribute__((constructor)) static void connects(void) {
    char *port = getenv("PORT");
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 0) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (port) connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof(to));
}
"#;

/// Whose a listener is can be given away with `fchown()`, by those who may.
#[test]
fn a_listener_cannot_be_made_the_owners() {
    const OWNER: u32 = 54_321;
    let mut stage = Stage::new();
    let at = stage.service.listeners[0].local_addr().unwrap();
    stage.service.listeners.clear();
    stage.sandbox.policy.providers[0].owners = vec![Owner::Uid(OWNER)];
    stage.sandbox.apply();
    let false_one = as_user(&stage.sandbox, || {
        let listener = listen(&at.to_string());
        let given = nix::unistd::fchown(&listener, Some(OWNER.into()), None);
        assert_eq!(given.unwrap_err() as i32, EPERM);
        listener
    });
    assert_refused(&mut stage.sandbox, stage.destination, ECONNREFUSED, REASON_STRANGER);
    drop(false_one);
}

/// An unaware service says nothing of the flow that a connection is of. What it dials when its client has gone is taken for
/// a flow that it still has to that destination.
#[test]
fn what_an_unaware_service_dials_late_is_taken_for_another_users() {
    let mut sandbox = Sandbox::new();
    let (unaware, after) = (sandbox.service(Kind::Unaware), sandbox.service(Kind::Aware));
    let server = listen("127.0.0.1:0");
    let to = server.local_addr().unwrap();
    let theirs = as_user(&sandbox, || connect(to)).unwrap();
    let at_service = accept(&unaware.listeners[0]);
    assert_eq!(Redirect::of(&at_service).flow().unwrap().origin().uid, NOBODY);
    drop((theirs, at_service));
    until("the user's flow to be over", || (sandbox.engine.open_flights().unwrap() == 0).then_some(()));
    let (_roots, at_service) = sandbox.arrive(&unaware, to);
    let _late = sandbox.in_service(unaware.index, || connect(to)).unwrap();
    let flow = Redirect::of(&accept(&after.listeners[0])).flow().unwrap();
    assert_eq!(flow.id(), Redirect::of(&at_service).flow().unwrap().id());
    assert!(flow.origin().inferred && flow.origin().uid == 0);
}

/// Nor does it say which of several flows. A user who has two that differ, be it by the cgroup or the program, is nobody.
#[test]
fn a_user_can_make_his_own_origin_ambiguous_behind_an_unaware_service() {
    let mut sandbox = Sandbox::new();
    let (unaware, after) = (sandbox.service(Kind::Unaware), sandbox.service(Kind::Aware));
    let server = listen("127.0.0.1:0");
    let to = server.local_addr().unwrap();
    let other = sandbox.app_cgroup().child("other").unwrap();
    let _one = as_user(&sandbox, || connect(to)).unwrap();
    let _two = sandbox.ground().within(&other, || raw::as_nobody(|| connect(to))).unwrap();
    let _held = [(); 2].map(|()| accept(&unaware.listeners[0]));
    let _onward = sandbox.in_service(unaware.index, || connect(to)).unwrap();
    let flow = Redirect::of(&accept(&after.listeners[0])).flow().unwrap();
    assert!(flow.origin().ambiguous && flow.origin().uid != NOBODY, "{:?}", flow.origin());
}

/// Whose flow it was is not known any more. Who dials now is.
#[test]
fn a_service_that_is_blocked_does_not_get_past_with_an_ambiguous_record() {
    let mut sandbox = Sandbox::new();
    let (unaware, aware) = (sandbox.service(Kind::Unaware), sandbox.service(Kind::Aware));
    let (server, other) = (listen("127.0.0.1:0"), listen("127.0.0.1:0"));
    let [to, elsewhere] = [&server, &other].map(|listener| listener.local_addr().unwrap());
    let _clients = [as_user(&sandbox, || connect(to)), sandbox.in_app(|| connect(to))];
    let _held = [(); 2].map(|()| accept(&unaware.listeners[0]));
    let _onward = sandbox.in_service(unaware.index, || connect(to)).unwrap();
    let accepted = accept(&aware.listeners[0]);
    assert!(Redirect::of(&accepted).flow().unwrap().origin().ambiguous);
    let dial = |with_record: bool| {
        let socket = stream(elsewhere);
        if with_record {
            Redirect::of(&accepted).records().unwrap().apply_to(&socket).unwrap();
        }
        connect_on(socket, &elsewhere.into()).map(drop)
    };
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let [of_aware, of_unaware] = [&aware, &unaware]
        .map(|service| line_of(&mut sandbox, |sandbox| drop(sandbox.in_service(service.index, || connect(nowhere)))));
    let of_app = line_of(&mut sandbox, |sandbox| drop(sandbox.in_app(|| connect(nowhere))));
    let cases = [
        (of_aware, false, Err(EACCES)),
        (of_aware, true, Err(EACCES)),
        (of_unaware, true, Err(EACCES)),
        (of_app, true, Ok(())),
    ];
    for (line, with_record, answer) in cases {
        sandbox.policy.filters.clear();
        let by_cgroup = Match { cgroups: Condition::only([line]), ..Match::default() };
        let ports = elsewhere.port()..=elsewhere.port();
        sandbox.host_filter(by_cgroup.on_ports(ports), HostAction::Block);
        assert_eq!(sandbox.in_service(aware.index, || dial(with_record)), answer, "{line:?} {with_record}");
    }
}

/// The next service's connection is in the name of the application, whose record does not say who else has led it there.
#[test]
fn a_service_that_strays_does_not_get_past_filters_on_itself_through_another_service() {
    let mut sandbox = Sandbox::new();
    let services = [(); 3].map(|()| sandbox.service(Kind::Aware));
    let (server, other) = (listen("127.0.0.1:0"), listen("127.0.0.1:0"));
    let [to, elsewhere] = [&server, &other].map(|listener| listener.local_addr().unwrap());
    let line = line_of(&mut sandbox, |sandbox| drop(sandbox.in_service(0, || connect(to))));
    drop(accept(&services[1].listeners[0]));
    sandbox.policy.providers[2].filters[0].matches = Match { cgroups: Condition::only([line]), ..Match::default() };
    sandbox.apply();

    let (_client, at_first) = sandbox.arrive(&services[0], to);
    let dial = |socket: Socket, to: SocketAddr| sandbox.in_service(0, || connect_on(socket, &to.into())).unwrap();
    let socket = sandbox.in_service(0, || stream(elsewhere));
    sandbox.in_service(0, || Redirect::of(&at_first).records().unwrap().apply_to(&socket)).unwrap();
    let strays = dial(socket, elsewhere);
    let at_second = accept(&services[1].listeners[0]);
    let _onward = sandbox.in_service(1, || carnet::dial(&at_second)).unwrap();
    let flow = Redirect::of(&accept(&services[2].listeners[0])).flow().unwrap();
    assert_eq!((flow.destination(), flow.origin().destination), (elsewhere, to));
    assert!(is_idle(&other));

    // It is the way of that connection, not the socket's or the flow's: back on its way it is the application's again.
    raw::disconnect(&strays).unwrap();
    let _back = dial(strays.into(), to);
    let at_second = accept(&services[1].listeners[0]);
    let mut onward = sandbox.in_service(1, || carnet::dial(&at_second)).unwrap();
    assert_joined(&mut onward, &mut accept(&server));
}

/// The cgroups of who connects, as records say them.
fn line_of(sandbox: &mut Sandbox, connects: impl FnOnce(&Sandbox)) -> Line {
    sandbox.events();
    connects(sandbox);
    Line(sandbox.events_until(|event| event.kind == EVENT_CONNECT).last().unwrap().record.line)
}
