//! Sockets that are older than the engine, or that come from elsewhere.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;

use carnet_abi::{EVENT_CONNECT, EVENT_SOCKET};
use carnet_e2e::programs::Started;
use carnet_e2e::sockets::{accept, assert_joined, connect, connect_on, is_idle, listen, stream};
use carnet_e2e::{Ground, Sandbox};
use carnet_engine::cgroup::Cgroup;
use carnet_policy::Service as Kind;
use libc::{EACCES, EPERM};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Stage, as_user};

/// A socket is of its cgroup from the beginning, so it makes no difference when the programs come.
#[test]
fn made_before_the_engine_and_connected_after() {
    let ground = Ground::new();
    let to_be_gone = ground.app.child("gone").unwrap();
    let server = listen("127.0.0.1:0");
    let make = || stream(server.local_addr().unwrap());
    let ordinary = ground.within(&ground.app, make);
    let orphan = ground.within(&to_be_gone, make);
    remove(to_be_gone);
    let mut sandbox = Sandbox::on(ground);
    let service = sandbox.service(Kind::Aware);
    for socket in [ordinary, orphan] {
        let to = server.local_addr().unwrap();
        let _client = sandbox.in_app(|| connect_on(socket, &to.into())).unwrap();
        accept(&service.listeners[0]);
        assert!(is_idle(&server));
    }
}

/// The same where the cgroup goes while the engine is there.
#[test]
fn made_in_a_cgroup_that_is_gone() {
    let stage = Stage::new();
    let to_be_gone = stage.sandbox.app_cgroup().child("gone").unwrap();
    let socket = stage.sandbox.ground().within(&to_be_gone, || stream(stage.destination));
    remove(to_be_gone);
    let _client = stage.sandbox.in_app(|| connect_on(socket, &stage.destination.into())).unwrap();
    stage.assert_redirected();
}

/// What is connected already is let be: nobody could inspect the rest of it.
#[test]
fn connected_before_the_engine_stays_so() {
    let ground = Ground::new();
    let server = listen("127.0.0.1:0");
    let mut client = ground.within(&ground.app, || connect(server.local_addr().unwrap())).unwrap();
    let mut sandbox = Sandbox::on(ground);
    let service = sandbox.service(Kind::Aware);
    assert_joined(&mut client, &mut accept(&server));
    assert!(service.listeners.iter().all(is_idle));
    assert!(sandbox.events().iter().all(|event| event.kind != EVENT_CONNECT));
}

/// `strict` is asked when a socket is made.
#[test]
fn made_before_the_policy_was_strict() {
    let mut sandbox = Sandbox::new();
    let make = || Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::from(libc::IPPROTO_UDPLITE)));
    let socket = sandbox.in_app(make).unwrap();
    sandbox.policy.strict = true;
    sandbox.apply();
    assert_eq!(sandbox.in_app(make).unwrap_err().raw_os_error(), Some(EACCES));
    sandbox.in_app(|| socket.send_to(b"1", &SocketAddr::from(([127, 0, 0, 1], 9)).into())).expect("it goes on");
    assert_eq!(sandbox.events().iter().filter(|event| event.kind == EVENT_SOCKET).count(), 2);
}

/// `pidfd_getfd()` is as good as passing, and asks for the right to trace.
#[test]
fn taken_from_another_process() {
    let stage = Stage::new();
    let to = stage.destination;
    let outside = Started::by(Command::new("sleep").arg("60").stdin(OwnedFd::from(stream(to))));
    let pid = Pid::from_raw(outside.id().cast_signed()).unwrap();
    let take = || pidfd_getfd(pidfd_open(pid, PidfdFlags::empty())?, 0, PidfdGetfdFlags::empty());
    let refused = as_user(&stage.sandbox, take).unwrap_err();
    assert_eq!(refused.raw_os_error(), EPERM, "a user, from a process of root's");
    let taken = Socket::from(stage.sandbox.in_app(take).expect("who may trace it"));
    let mut client = stage.sandbox.in_app(|| connect_on(taken, &to.into())).unwrap();
    assert_joined(&mut client, &mut accept(&stage.server));
}

/// Whoever comes to an application by its listener has not been asked for: nothing is decided on.
#[test]
fn connections_that_come_in_are_not_redirected() {
    let mut stage = Stage::new();
    let listener = as_user(&stage.sandbox, || listen("127.0.0.1:0"));
    stage.sandbox.events();
    let mut from_outside = connect(listener.local_addr().unwrap()).unwrap();
    assert_joined(&mut from_outside, &mut accept(&listener));
    assert!(stage.sandbox.events().is_empty());
    stage.assert_nobody_came();
}

/// UDP is told, and sent.
#[test]
fn udp_gets_out() {
    let stage = Stage::new();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = receiver.local_addr().unwrap();
    as_user(&stage.sandbox, || UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"1", to)).unwrap();
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 1);
}

fn remove(cgroup: Cgroup) {
    let path = cgroup.path().to_owned();
    drop(cgroup);
    fs::remove_dir(path).expect("an empty cgroup");
}
