//! Socket options that change where packets go, or when.

use std::fs;
use std::net::SocketAddr;

use carnet_abi::VERDICT_REDIRECT;
use carnet_e2e::netns::{self, ip};
use carnet_e2e::raw::{self, Ring};
use carnet_e2e::sockets::{accept, connect_on, is_idle, listen, stream};
use libc::{EINPROGRESS, EOPNOTSUPP, EPERM, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, MSG_FASTOPEN};
use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Stage, as_user};

/// Rules by mark come after the table of local addresses, so that none leads a redirected connection elsewhere.
#[test]
fn a_mark() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |neighbour| {
            ip("rule add fwmark 7 lookup 77");
            ip("route add default via 10.99.0.2 table 77");
            let stage = Stage::new();
            let mark = |socket: &Socket| socket.set_mark(7);
            let to = neighbour.local_addr().unwrap();
            assert_eq!(as_user(&stage.sandbox, || mark(&stream(to))).unwrap_err().raw_os_error(), Some(EPERM));
            let connected = stage.sandbox.in_app(|| {
                let socket = stream(to);
                mark(&socket).unwrap();
                connect_on(socket, &to.into())
            });
            connected.expect("connect");
            stage.assert_redirected();
            assert!(is_idle(&neighbour));
        },
    );
}

/// A source that is not this host's: the service would answer to somebody else, so nothing comes of it.
#[test]
fn a_foreign_source_address() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |neighbour| {
            let mut stage = Stage::new();
            let foreign = SocketAddr::from(([203, 0, 113, 7], 0));
            let transparent =
                |socket: &Socket| raw::set(socket, IPPROTO_IP, libc::IP_TRANSPARENT, &1_i32.to_ne_bytes());
            let to = neighbour.local_addr().unwrap();
            assert_eq!(as_user(&stage.sandbox, || transparent(&stream(to))), Err(EPERM));
            let (socket, decision) = stage.sandbox.decided(|| {
                let socket = stream(to);
                transparent(&socket).unwrap();
                socket.bind(&foreign.into()).unwrap();
                socket.set_nonblocking(true).unwrap();
                assert_eq!(socket.connect(&to.into()).unwrap_err().raw_os_error(), Some(EINPROGRESS));
                socket
            });
            assert_eq!(decision.verdict, VERDICT_REDIRECT);
            assert_leads_to(&socket, stage.service.listeners[0].local_addr().unwrap());
            stage.assert_nobody_came();
            assert!(is_idle(&neighbour));
            drop(socket);
            assert_eq!(stage.sandbox.engine.open_handovers().unwrap(), 0);
        },
    );
}

/// `TCP_REPAIR` makes a connection without a packet: to where the hook has sent it.
#[test]
fn a_connection_without_a_handshake() {
    let mut stage = Stage::new();
    let repair = |socket: &Socket| raw::set(socket, IPPROTO_TCP, libc::TCP_REPAIR, &1_i32.to_ne_bytes());
    let to = stage.destination;
    assert_eq!(as_user(&stage.sandbox, || repair(&stream(to))), Err(EPERM));
    let (socket, decision) = stage.sandbox.decided(|| {
        let socket = stream(to);
        repair(&socket).unwrap();
        socket.connect(&to.into()).expect("there is nothing to wait for");
        socket
    });
    assert_eq!(decision.verdict, VERDICT_REDIRECT);
    assert_leads_to(&socket, stage.service.listeners[0].local_addr().unwrap());
    drop(socket);
    stage.assert_nobody_came();
    assert_eq!(stage.sandbox.engine.open_handovers().unwrap(), 0);
    assert_eq!(stage.sandbox.engine.open_flights().unwrap(), 0);
}

/// It takes the capability of a raw socket; see `datagram::evasions` for IPv6, where it takes none.
#[test]
fn an_ipv4_source_route_is_not_for_users() {
    let stage = Stage::new();
    for loose_or_strict in [131, 137] {
        let route = [loose_or_strict, 7, 4, 10, 99, 0, 2, 0];
        let set = || raw::set(&stream(stage.destination), IPPROTO_IP, libc::IP_OPTIONS, &route);
        assert_eq!(as_user(&stage.sandbox, set), Err(EPERM));
        assert_eq!(stage.sandbox.in_app(set), Ok(()), "root may");
    }
}

/// As datagrams with one are, packets of a connection are dropped.
#[test]
fn a_connection_with_an_ipv6_routing_header() {
    netns::alone(|| {
        for interface in ["all", "lo"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/seg6_enabled"), "1").expect("it takes such packets");
        }
        let stage = Stage::new();
        let server = listen("[::1]:0");
        let to = server.local_addr().unwrap();
        let connect = || {
            let socket = stream(to);
            raw::set(&socket, IPPROTO_IPV6, IPV6_RTHDR, &segment_routing()).expect("no privilege is needed");
            socket.set_nonblocking(true).unwrap();
            assert_eq!(socket.connect(&to.into()).unwrap_err().raw_os_error(), Some(EINPROGRESS));
            socket
        };
        let outside = raw::as_nobody(connect);
        accept(&server);
        drop(outside);
        let _inside = as_user(&stage.sandbox, connect);
        stage.assert_nobody_came();
        assert!(is_idle(&server));
    });
}

/// TCP Fast Open by MPTCP, which there is since Linux 6.2, asks the hook for the connection's first subflow.
#[test]
fn data_in_the_first_packet_by_mptcp() {
    let stage = Stage::new();
    let to = stage.destination;
    let make = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("a kernel with MPTCP");
    let socket = stage.sandbox.in_app(make);
    match as_user(&stage.sandbox, || socket.send_to_with_flags(b"1", &to.into(), MSG_FASTOPEN)) {
        Ok(sent) => {
            assert_eq!(sent, 1);
            stage.assert_redirected();
        }
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(EOPNOTSUPP));
            stage.assert_nobody_came();
        }
    }
}

/// `sendmsg` with `MSG_FASTOPEN` connects, whoever makes the call.
#[test]
fn data_in_the_first_packet_by_io_uring() {
    let stage = Stage::new();
    let to = stage.destination;
    for make in [Ring::inline, Ring::workers, Ring::poller] {
        let _socket = stage.sandbox.in_app(|| {
            let socket = stream(to);
            let sent = make().send_first(&socket, b"1", &to.into());
            assert!([Ok(1), Err(EINPROGRESS)].contains(&sent), "{sent:?}");
            socket
        });
        stage.assert_redirected();
    }
}

/// The kernel's own view: `getpeername()` says what the application asked for.
fn assert_leads_to(socket: &Socket, listener: SocketAddr) {
    let (inode, there) = (fstat(socket).unwrap().st_ino.to_string(), format!("0100007F:{:04X}", listener.port()));
    let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.get(9) == Some(&inode.as_str())).expect("the socket is in the table");
    assert_eq!(line[2], there, "{line:?}");
}

/// Not in libc.
const IPV6_RTHDR: i32 = 57;

/// A `struct ipv6_sr_hdr` with `::1` for its one segment.
fn segment_routing() -> [u8; 24] {
    let mut header = [0; 24];
    (header[1], header[2], header[23]) = (2, 4, 1);
    header
}
