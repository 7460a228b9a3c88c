//! TCP Fast Open in both forms: `sendto()` with `MSG_FASTOPEN`, and `TCP_FASTOPEN_CONNECT`. Each test has a network
//! namespace of its own, whose cookies nobody else has been given.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use carnet::Redirect;
use carnet_abi::{EVENT_CONNECT, EVENT_END, HOW_FAILED};
use carnet_e2e::sockets::{PATIENCE, accept, assert_joined, is_idle};
use carnet_e2e::{netns, raw};
use carnet_policy::{HostAction, Match};
use libc::{
    EACCES, ECONNREFUSED, IPPROTO_TCP, MSG_FASTOPEN, MSG_NOSIGNAL, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT,
    TCP_FASTOPEN_NO_COOKIE, TCP_INFO,
};
use socket2::Socket;

use super::{Arrived, Course, Way};

const EARLY: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

#[test]
fn sendto_with_data_the_first_time_and_with_a_cookie() {
    for_every_way(|course, way, nth| {
        let (client, arrived) = send_first(course, way);
        // The first SYN asks for a cookie. The mapped destination is the IPv4 one, whose cookie is there already.
        assert_eq!(was_in_the_syn(&client), nth > 0 || way == Way::Mapped, "{way:?}, connection {nth}");
        (client, arrived)
    });
}

#[test]
fn a_connect_that_waits_for_the_first_write() {
    for_every_way(|course, way, nth| {
        let destination = course.destination(way);
        let client = course.sandbox.in_app(|| {
            let socket = way.socket();
            enable(&socket, TCP_FASTOPEN_CONNECT);
            super::connected(socket, destination)
        });
        // Without a cookie connect() asks for one, with a SYN that has no data. With one nothing has been sent yet.
        let waits = nth > 0 || way == Way::Mapped;
        assert!(!waits || is_idle(&course.services[0].listeners[way.family()]), "{way:?}, connection {nth}");
        (&client).write_all(EARLY).expect("the first write");
        let arrived = course.arrive(way, Some(&client), EARLY);
        assert_eq!(was_in_the_syn(&client), waits, "{way:?}, connection {nth}");
        (client, arrived)
    });
}

/// Where listeners know nothing of it, the data follows the handshake.
#[test]
fn a_listener_without_it() {
    with_fast_open(|| {
        let mut course = Course::new();
        for way in Way::ALL.into_iter().chain(Way::ALL) {
            let (client, arrived) = send_first(&course, way);
            assert!(!was_in_the_syn(&client));
            complete(&mut course, way, client, arrived);
        }
    });
}

#[test]
fn without_a_cookie_by_agreement() {
    with_fast_open(|| {
        let mut course = Course::new();
        course.listen_fast();
        for listener in course.services.iter().flat_map(|service| &service.listeners) {
            raw::set(listener, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &1_i32.to_ne_bytes()).unwrap();
        }
        for way in Way::ALL {
            let destination = course.destination(way);
            let client = course.sandbox.in_app(|| {
                let socket = way.socket();
                enable(&socket, TCP_FASTOPEN_NO_COOKIE);
                send(&socket, destination).expect("sendto");
                TcpStream::from(socket)
            });
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let arrived = course.arrive(way, Some(&client), EARLY);
            assert!(was_in_the_syn(&client), "the first time");
            complete(&mut course, way, client, arrived);
        }
    });
}

/// A service may go on that way as well.
#[test]
fn with_a_record_set() {
    with_fast_open(|| {
        let mut course = Course::new();
        course.listen_fast();
        let way = Way::V4;
        let destination = course.destination(way);
        for nth in 0..2 {
            let mut client = course.sandbox.in_app(|| super::connected(way.socket(), destination));
            let mut arrived = course.arrive(way, Some(&client), b"");
            assert_joined(&mut client, &mut arrived.socket);
            let (onward, mut at_second) = course.sandbox.in_service(0, || {
                let socket = way.socket();
                Redirect::of(&arrived.socket).records().unwrap().apply_to(&socket).expect("SET");
                send(&socket, destination).expect("sendto");
                (TcpStream::from(socket), accept(&course.services[1].listeners[0]))
            });
            let flow = Redirect::of(&at_second).flow().unwrap();
            assert_eq!((flow.id(), flow.depth()), (arrived.flow, 2));
            let mut came = [0; EARLY.len()];
            at_second.read_exact(&mut came).unwrap();
            assert_eq!((&came[..], was_in_the_syn(&onward)), (EARLY, nth > 0));
            let mut last = course.sandbox.in_service(1, || carnet::dial(&at_second)).expect("dial");
            assert_joined(&mut last, &mut accept(&course.servers[0]));
            drop((client, onward, at_second, last));
            course.over(arrived);
        }
    });
}

#[test]
fn a_refusal_is_sendtos_errno() {
    with_fast_open(|| {
        let mut course = Course::new();
        let [dead, blocked] = [ECONNREFUSED, EACCES];
        course.services[0].listeners.clear();
        for way in Way::ALL {
            assert_eq!(course.sandbox.in_app(|| send(&way.socket(), course.destination(way))), Err(dead));
        }
        course.sandbox.host_filter(Match::default(), HostAction::Block);
        for way in Way::ALL {
            assert_eq!(course.sandbox.in_app(|| send(&way.socket(), course.destination(way))), Err(blocked));
            let refused = course.sandbox.in_app(|| {
                let socket = way.socket();
                enable(&socket, TCP_FASTOPEN_CONNECT);
                socket.connect(&course.destination(way).into()).unwrap_err().raw_os_error()
            });
            assert_eq!(refused, Some(blocked));
        }
        course.assert_nothing_left();
    });
}

/// connect() has said that it is well, and the kernel has sent nothing.
#[test]
fn an_end_is_told_where_nothing_was_sent() {
    with_fast_open(|| {
        let mut course = Course::new();
        course.listen_fast();
        let (client, arrived) = send_first(&course, Way::V4);
        complete(&mut course, Way::V4, client, arrived);
        let destination = course.destination(Way::V4);
        course.sandbox.in_app(|| {
            let socket = Way::V4.socket();
            enable(&socket, TCP_FASTOPEN_CONNECT);
            drop(super::connected(socket, destination));
        });
        let events = course.sandbox.events_until(|event| event.kind == EVENT_END);
        let [begun, ended] = &events[..] else { panic!("{events:#?}") };
        assert_eq!((begun.kind, ended.how, ended.cookie), (EVENT_CONNECT, HOW_FAILED, begun.cookie));
        course.assert_nothing_left();
    });
}

impl Course {
    /// The services' listeners take data in a SYN.
    fn listen_fast(&self) {
        for listener in self.services.iter().flat_map(|service| &service.listeners) {
            raw::set(listener, IPPROTO_TCP, TCP_FASTOPEN, &16_i32.to_ne_bytes()).expect("TCP_FASTOPEN");
        }
    }
}

/// Twice each, to services whose listeners know Fast Open. What comes is followed to its end.
fn for_every_way(connect: impl Fn(&Course, Way, usize) -> (TcpStream, Arrived) + Sync) {
    with_fast_open(|| {
        let mut course = Course::new();
        course.listen_fast();
        for way in Way::ALL {
            for nth in 0..2 {
                course.sandbox.events();
                let (client, arrived) = connect(&course, way, nth);
                complete(&mut course, way, client, arrived);
            }
        }
    });
}

/// Bytes still flow both ways, and the record goes on.
fn complete(course: &mut Course, way: Way, mut client: TcpStream, mut arrived: Arrived) {
    assert_eq!(client.peer_addr().unwrap(), course.destination(way));
    assert_joined(&mut client, &mut arrived.socket);
    course.go_on(&arrived, way);
    drop(client);
    course.over(arrived);
}

/// By `sendto()`, as an application.
fn send_first(course: &Course, way: Way) -> (TcpStream, Arrived) {
    let destination = course.destination(way);
    let client = course.sandbox.in_app(|| {
        let socket = way.socket();
        send(&socket, destination).expect("sendto");
        TcpStream::from(socket)
    });
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let arrived = course.arrive(way, Some(&client), EARLY);
    (client, arrived)
}

fn send(socket: &Socket, to: SocketAddr) -> Result<(), i32> {
    match socket.send_to_with_flags(EARLY, &to.into(), MSG_FASTOPEN | MSG_NOSIGNAL) {
        Ok(sent) => {
            assert_eq!(sent, EARLY.len());
            Ok(())
        }
        Err(error) => Err(error.raw_os_error().expect("a number")),
    }
}

fn enable(socket: &Socket, option: i32) {
    raw::set(socket, IPPROTO_TCP, option, &1_i32.to_ne_bytes()).expect("an option of Linux 4.15");
}

/// Whether the data went with the SYN and was taken: `tcpi_options` has `TCPI_OPT_SYN_DATA`.
fn was_in_the_syn(client: &TcpStream) -> bool {
    const OPTIONS: usize = 5;
    const SYN_DATA: u8 = 32;
    let mut info = [0; 64];
    raw::get(client, IPPROTO_TCP, TCP_INFO, &mut info).expect("TCP_INFO");
    info[OPTIONS] & SYN_DATA != 0
}

/// In a network namespace where clients and servers may use it.
fn with_fast_open(act: impl FnOnce() + Send) {
    netns::alone(|| {
        fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3").expect("a setting of the namespace's own");
        act();
    });
}
