//! `io_uring`: a connection is the process's, whichever thread makes it.

use std::net::TcpStream;

use carnet_abi::REASON_BLOCKED;
use carnet_e2e::raw::Ring;
use carnet_e2e::sockets::{PATIENCE, assert_joined};
use carnet_policy::{HostAction, Match};
use libc::{EACCES, IPPROTO_TCP, SOCK_CLOEXEC, SOCK_STREAM};
use socket2::Socket;

use super::{Arrived, Course, Way};

/// Each makes the call on another thread: the process's own, a worker of the process, the ring's.
const RINGS: [(&str, MakeRing); 3] =
    [("inline", Ring::inline), ("by a worker", Ring::workers), ("by the poller", Ring::poller)];

type MakeRing = fn() -> Ring;

#[test]
fn connect() {
    let mut course = Course::new();
    for (how, ring) in RINGS {
        for way in Way::ALL {
            eprintln!("{way:?} {how}");
            let socket = course.sandbox.in_app(|| {
                let socket = way.socket();
                ring().connect(&socket, &course.destination(way).into()).expect("connect");
                socket
            });
            course.follow(client(socket), way);
        }
    }
}

#[test]
fn sockets_that_it_made() {
    let mut course = Course::new();
    for (how, ring) in RINGS {
        for way in Way::ALL {
            eprintln!("{way:?} {how}");
            let socket = course.sandbox.in_app(|| {
                let mut ring = ring();
                let socket = ring.socket(way.domain().into(), SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
                let socket = Socket::from(socket.expect("IORING_OP_SOCKET"));
                ring.connect(&socket, &course.destination(way).into()).expect("connect");
                socket
            });
            course.follow(client(socket), way);
        }
    }
}

/// On the service's side, with a listener that blocks.
#[test]
fn accept() {
    let mut course = Course::new();
    for (how, ring) in RINGS {
        for way in Way::ALL {
            eprintln!("{way:?} {how}");
            let destination = course.destination(way);
            let mut client = course.sandbox.in_app(|| super::connected(way.socket(), destination));
            let listener = &course.services[0].listeners[way.family()];
            let socket = course.sandbox.in_service(0, || ring().accept(listener)).expect("accept");
            let mut socket = TcpStream::from(socket);
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_joined(&mut client, &mut socket);
            let flow = carnet::Redirect::of(&socket).flow().expect("flow").id();
            let arrived = Arrived { socket, flow };
            course.go_on(&arrived, way);
            drop(client);
            course.over(arrived);
        }
    }
}

#[test]
fn a_refusal_is_the_completions_errno() {
    let mut course = Course::new();
    course.sandbox.host_filter(Match::default(), HostAction::Block);
    let destination = course.destination(Way::V4).into();
    for (how, ring) in RINGS {
        let (refused, decision) = course.sandbox.decided(|| ring().connect(&Way::V4.socket(), &destination));
        assert_eq!((refused, decision.reason), (Err(EACCES), REASON_BLOCKED), "{how}");
        assert_eq!((decision.pid, decision.uid), (std::process::id(), 0), "{how}");
    }
    course.assert_nothing_left();
}

fn client(socket: Socket) -> TcpStream {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}
