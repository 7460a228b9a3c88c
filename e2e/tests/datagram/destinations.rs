//! Each destination of each socket is told once.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::thread;

use carnet_abi::{Event, REASON_UDP, VERDICT_PASS};
use carnet_e2e::sockets::{canonical, mapped};
use carnet_e2e::{Sandbox, netns, raw};
use carnet_policy::Service;
use socket2::SockRef;

use super::{destinations, received, receiver, told, udp};

#[test]
fn a_connected_socket_tells_its_destination() {
    let mut sandbox = Sandbox::new();
    let cgroup = sandbox.app_cgroup().id();
    let [v4, v6] = ["127.0.0.1:0", "[::1]:0"].map(receiver);
    for ((at, to), family) in
        [((&v4.0, v4.1), libc::AF_INET), ((&v6.0, v6.1), libc::AF_INET6), ((&v4.0, mapped(v4.1)), libc::AF_INET6)]
    {
        let (socket, events) = told(&mut sandbox, || {
            let socket = udp(to);
            socket.connect(&to.into()).unwrap();
            for _ in 0..3 {
                socket.send(b"hello").unwrap();
            }
            socket
        });
        let [event] = events[..] else { panic!("{to}: {events:#?}") };
        assert_passed(&event);
        assert_eq!(event.remote.to_socket_addr(), canonical(to));
        assert_eq!(event.cookie, SockRef::from(&socket).cookie().unwrap());
        let origin = &event.record.origin;
        assert_eq!(origin.remote, event.remote);
        assert_eq!((origin.family, origin.protocol), (family as u8, libc::IPPROTO_UDP as u8), "{to}");
        assert_eq!((origin.pid, origin.uid, origin.cgroup_id), (std::process::id(), 0, cgroup));
        assert!(origin.start_time > 0 && origin.netns_cookie > 0 && origin.time == event.time, "{origin:?}");
        assert_eq!((event.pid, event.uid, event.dialer), (origin.pid, 0, 0));
        for _ in 0..3 {
            assert_eq!(received(at), b"hello");
        }
        drop(socket);
        assert!(sandbox.events().is_empty(), "there is no end");
    }
}

#[test]
fn a_socket_that_is_not_connected_tells_each_destination_once() {
    let mut sandbox = Sandbox::new();
    for (at, form) in [("127.0.0.1:0", same as fn(_) -> _), ("[::1]:0", same), ("127.0.0.1:0", mapped)] {
        let receivers = [(); 3].map(|()| receiver(at));
        let (_socket, events) = told(&mut sandbox, || {
            let socket = udp(form(receivers[0].1));
            for round in 0..4_u8 {
                for (_, to) in &receivers {
                    assert_eq!(socket.send_to(&[round], &form(*to).into()).unwrap(), 1);
                }
            }
            socket
        });
        assert_eq!(destinations(&events), receivers.each_ref().map(|(_, to)| *to));
        events.iter().for_each(assert_passed);
        let family = if form(receivers[0].1).is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
        assert!(events.iter().all(|event| event.record.origin.family == family as u8), "the socket's: {events:#?}");
        assert_eq!(events.iter().map(|event| event.cookie).collect::<BTreeSet<_>>().len(), 1);
        for (receiver, _) in &receivers {
            assert_eq!([(); 4].map(|()| received(receiver)[0]), [0, 1, 2, 3]);
        }
    }
}

#[test]
fn connected_and_then_sent_elsewhere() {
    let mut sandbox = Sandbox::new();
    let [one, other] = ["127.0.0.1:0"; 2].map(receiver);
    let (_socket, events) = told(&mut sandbox, || {
        let socket = udp(one.1);
        socket.connect(&one.1.into()).unwrap();
        socket.send(b"1").unwrap();
        socket.send_to(b"2", &other.1.into()).unwrap();
        socket.send_to(b"3", &one.1.into()).unwrap();
        socket.send(b"4").unwrap();
        socket
    });
    assert_eq!(destinations(&events), [one.1, other.1]);
    assert_eq!([(); 3].map(|()| received(&one.0)), [b"1", b"3", b"4"]);
    assert_eq!(received(&other.0), b"2");
}

#[test]
fn connected_again_and_disconnected() {
    let mut sandbox = Sandbox::new();
    let [one, other] = ["[::1]:0"; 2].map(receiver);
    let (_socket, events) = told(&mut sandbox, || {
        let socket = udp(one.1);
        for (_, to) in [&one, &other, &one] {
            socket.connect(&(*to).into()).unwrap();
            socket.send(b"0").unwrap();
        }
        raw::disconnect(&socket).unwrap();
        socket.send_to(b"1", &other.1.into()).unwrap();
        socket
    });
    assert_eq!(destinations(&events), [one.1, other.1]);
    assert_eq!([received(&other.0), received(&other.0)], [b"0", b"1"]);
}

/// connect() sends nothing. getaddrinfo() does it for each address of a name, to see which of them it can reach.
#[test]
fn who_connects_and_sends_nothing_is_not_told() {
    let mut sandbox = Sandbox::new();
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let (_receiver, to) = receiver(at);
        let (socket, events) = told(&mut sandbox, || {
            let socket = udp(to);
            socket.connect(&to.into()).unwrap();
            socket
        });
        assert!(events.is_empty(), "{events:#?}");
        // But who sends later is, also where that is somebody else: it is the one who connected.
        socket.send(b"1").unwrap();
        let [event] = sandbox.events()[..] else { panic!("the first datagram is told") };
        assert_eq!((event.remote.to_socket_addr(), event.record.origin.pid), (to, std::process::id()));
        assert_eq!(event.record.origin.cgroup_id, sandbox.app_cgroup().id());
    }
}

#[test]
fn each_socket_tells_for_itself() {
    let mut sandbox = Sandbox::new();
    let (_receiver, to) = receiver("127.0.0.1:0");
    let (sockets, events) = told(&mut sandbox, || {
        [(); 5].map(|()| {
            let socket = udp(to);
            socket.send_to(b"1", &to.into()).unwrap();
            socket
        })
    });
    assert_eq!(destinations(&events), [to; 5]);
    let cookies = sockets.each_ref().map(|socket| SockRef::from(socket).cookie().unwrap());
    assert_eq!(events.iter().map(|event| event.cookie).collect::<Vec<_>>(), cookies);
}

#[test]
fn a_thousand_destinations_of_one_socket() {
    let mut sandbox = Sandbox::new();
    let (_receiver, to) = receiver("0.0.0.0:0");
    let all: Vec<_> = (1..=1000).map(|number| loopback(number, to.port())).collect();
    let (_socket, events) = told(&mut sandbox, || {
        let socket = udp(to);
        for &to in all.iter().chain(&all) {
            socket.send_to(b"1", &to.into()).unwrap();
        }
        socket
    });
    assert_eq!(destinations(&events), all);
}

#[test]
fn threads_that_send_at_once_tell_once() {
    let mut sandbox = Sandbox::new();
    for _ in 0..50 {
        let (_receiver, to) = receiver("127.0.0.1:0");
        let (_socket, events) = told(&mut sandbox, || {
            let socket = udp(to);
            let start = Barrier::new(4);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        socket.send_to(b"1", &to.into()).unwrap();
                    });
                }
            });
            socket
        });
        assert_eq!(destinations(&events), [to]);
    }
}

/// What is remembered is bounded, and forgetting means telling again, never not telling.
#[test]
fn more_destinations_than_are_remembered() {
    const MANY: u32 = 40_000;
    let mut sandbox = Sandbox::new();
    let (_receiver, to) = receiver("0.0.0.0:0");
    let socket = sandbox.in_app(|| udp(to));
    let mut seen = BTreeSet::new();
    let mut send = |numbers: std::ops::RangeInclusive<u32>| {
        let mut count = 0;
        let numbers: Vec<_> = numbers.collect();
        // In parts, so that the events have room.
        for part in numbers.chunks(1000) {
            let ((), events) = told(&mut sandbox, || {
                for &number in part {
                    socket.send_to(b"1", &loopback(number, to.port()).into()).unwrap();
                }
            });
            count += events.len();
            seen.extend(destinations(&events));
        }
        (count, seen.len())
    };
    assert_eq!(send(1..=MANY), (MANY as usize, MANY as usize));
    let (again, all) = send(1..=1000);
    assert!(again > 0, "they were told long ago");
    assert_eq!(all, MANY as usize);
}

#[test]
fn what_cannot_be_sent_is_told_too() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let to: SocketAddr = ([203, 0, 113, 1], 53).into();
        let (error, events) = told(&mut sandbox, || udp(to).send_to(b"1", &to.into()).unwrap_err());
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        assert_eq!(destinations(&events), [to]);
    });
}

#[test]
fn a_service_s_own() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let (_receiver, to) = receiver("127.0.0.1:0");
    sandbox.events();
    let _sockets = sandbox.in_service(service.index, || {
        let [connected, free] = [(); 2].map(|()| udp(to));
        connected.connect(&to.into()).unwrap();
        connected.send(b"1").unwrap();
        free.send_to(b"1", &to.into()).unwrap();
        [connected, free]
    });
    let events = sandbox.events();
    assert_eq!(destinations(&events), [to; 2]);
    for event in &events {
        assert_passed(event);
        assert_eq!(event.dialer, 1);
        assert_eq!(event.record.origin.cgroup_id, sandbox.service_cgroup(service.index).id());
    }
}

#[test]
fn a_users_own() {
    let mut sandbox = Sandbox::new();
    let (_receiver, to) = receiver("127.0.0.1:0");
    let send = || raw::as_nobody(|| udp(to).send_to(b"1", &to.into()).unwrap());
    let (_, events) = told(&mut sandbox, send);
    let [event] = events[..] else { panic!("{events:#?}") };
    assert_eq!((event.uid, event.record.origin.uid, event.record.origin.gid), (raw::NOBODY, raw::NOBODY, raw::NOBODY));
}

#[test]
fn who_is_not_governed_is_not_told() {
    let mut sandbox = Sandbox::new();
    let (at, to) = receiver("127.0.0.1:0");
    sandbox.events();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"1", to).unwrap();
    assert_eq!(received(&at), b"1");
    // The socket passes the hooks, but who sends is not the command's.
    let socket = sandbox.in_app(|| udp(to));
    socket.send_to(b"2", &to.into()).unwrap();
    assert_eq!(received(&at), b"2");
    assert!(sandbox.events().is_empty());
}

fn assert_passed(event: &Event) {
    assert_eq!((event.verdict, event.reason, event.error), (VERDICT_PASS, REASON_UDP, 0), "{event:#?}");
    assert_eq!((event.handle, event.filter, event.base, event.record.depth), (0, 0, 0, 0), "{event:#?}");
}

/// One of 127.0.0.0/8.
fn loopback(number: u32, port: u16) -> SocketAddr {
    (Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number), port).into()
}

fn same(address: SocketAddr) -> SocketAddr {
    address
}
