//! The TCP cases of the kernel's own tests of these hooks, `sock_addr` and `connect_force_port` in
//! `tools/testing/selftests/bpf/prog_tests`, through Carnet's programs. Addresses and ports are theirs.
//!
//! Each name stands for two cases, one of IPv4 and one of IPv6.
//!
//! | case there | what it checks | here |
//! | --- | --- | --- |
//! | `connect: connect (stream)` | the connection comes to the forced address and port, from the forced source | [`connect_comes_to_the_forced_address`]; Carnet forces no source, so the client binds to it |
//! | `connect: connect deny (stream)` | EPERM | [`connect_is_denied`], with Carnet's EACCES |
//! | its program: `sk_lookup_tcp` | it denies where nobody listens at the forced address | [`nobody_at_the_forced_address`] |
//! | its program: `setsockopt` | options can be set in the hook, and taken back | [`options_stay_as_they_were`]; the device, which Carnet does unset, in `connect/interfaces.rs` |
//! | `getpeername: getpeername (stream)` | it answers the asked address, not the forced one | [`getpeername_answers_what_was_asked`] |
//! | `getsockname: getsockname (stream)` | it answers an address that is not the socket's | of what a service has accepted, if it wants that: `sockname.rs`; of no other: [`names_of_its_own_are_the_sockets`] |
//! | `bind: bind (stream)`, `bind deny (stream)` | another address is bound, or none | Carnet has no such program: [`names_of_its_own_are_the_sockets`] |
//! | `connect_force_port`, stream | both ends' ports are as told, at another port | [`the_port_is_forced_and_not_seen`] |
//! | `kernel_connect`, `kernel_bind`, `kernel_getsockname`, `kernel_getpeername`, each `(stream)`, two with `deny` | the same for a socket of a kernel module's | needs a module made for it; the kernel's own connections, begun by a mount, are in `unusual/mount.rs` |
//! | `load prog with wrong expected attach type`, `attach prog with wrong attach type` | the kernel refuses it | no: about the loader, which takes the type from the program |
//! | all of `connect_unix`, `recvmsg_unix` and so on | | no: no program of Carnet's sees such sockets |
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::Redirect;
use carnet_abi::{REASON_BLOCKED, REASON_DEAD, REASON_RULE, VERDICT_REDIRECT, VERDICT_REFUSE};
use carnet_e2e::sockets::{PATIENCE, accept, assert_joined, connect, connect_on, is_idle, listen, stream};
use carnet_e2e::{Sandbox, Service, netns, raw};
use carnet_policy::{Action, HostAction, Reach, Service as Kind};
use socket2::Socket;

/// What a client asks for, where it is to come to, and what it is bound to; one of IPv4 and one of IPv6.
struct Case {
    asked: &'static str,
    forced: &'static str,
    source: &'static str,
}

const CONNECT: [Case; 2] = [
    Case { asked: "192.168.1.254:4040", forced: "127.0.0.1:4444", source: "127.0.0.4:0" },
    Case { asked: "[face:b00c:1234:5678::abcd]:6060", forced: "[::1]:6666", source: "[::6]:0" },
];

const FORCE_PORT: [Case; 2] = [
    Case { asked: "1.2.3.4:60000", forced: "127.0.0.1:60123", source: "127.0.0.1:22222" },
    Case { asked: "[fc00::1]:60000", forced: "[::1]:60124", source: "[::1]:22223" },
];

#[test]
fn connect_comes_to_the_forced_address() {
    play(&CONNECT, |case, sandbox, service| {
        assert_eq!(connect(case.asked()).unwrap_err(), libc::ENETUNREACH, "without Carnet nothing leads there");
        let (client, decision) = sandbox.decided(|| case.connect());
        assert_eq!((decision.verdict, decision.reason), (VERDICT_REDIRECT, REASON_RULE));
        let mut client = client.expect("connect");
        let mut accepted = accept(case.listener(service));
        assert_eq!(client.local_addr().unwrap().ip(), case.source().ip());
        assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
        assert_eq!(accepted.local_addr().unwrap(), case.forced.parse().unwrap());
        assert_eq!(Redirect::of(&accepted).flow().unwrap().destination(), case.asked());
        assert_joined(&mut client, &mut accepted);
    });
}

#[test]
fn connect_is_denied() {
    play(&CONNECT, |case, sandbox, service| {
        sandbox.policy.providers[0].filters[0].action = Action::Block;
        sandbox.apply();
        case.assert_denied(sandbox, REASON_BLOCKED, libc::EACCES);
        sandbox.policy.providers.clear();
        sandbox.policy.default = HostAction::Block;
        sandbox.apply();
        case.assert_denied(sandbox, REASON_BLOCKED, libc::EACCES);
        assert!(is_idle(case.listener(service)));
    });
}

#[test]
fn nobody_at_the_forced_address() {
    play(&CONNECT, |case, sandbox, service| {
        service.listeners.clear();
        case.assert_denied(sandbox, REASON_DEAD, libc::ECONNREFUSED);
    });
}

#[test]
fn options_stay_as_they_were() {
    play(&CONNECT, |case, sandbox, service| {
        let client = sandbox.in_app(|| {
            let socket = case.socket();
            set_options(&socket);
            let before = options(&socket);
            let client = connect_on(socket, &case.asked().into()).expect("connect");
            assert_eq!(options(&client), before);
            client
        });
        accept(case.listener(service));
        drop(client);
    });
}

#[test]
fn getpeername_answers_what_was_asked() {
    play(&CONNECT, |case, sandbox, service| {
        let mut client = sandbox.in_app(|| case.connect()).expect("connect");
        let accepted = accept(case.listener(service));
        assert_eq!(client.peer_addr().unwrap(), case.asked());
        // As without Carnet, also when the other side is done: until the client is, it has its peer.
        drop(accepted);
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
        assert_eq!(client.peer_addr().unwrap(), case.asked());
    });
}

#[test]
fn names_of_its_own_are_the_sockets() {
    play(&CONNECT, |case, sandbox, service| {
        // A server of the application's.
        let server = sandbox.in_app(|| listen(case.source));
        let address = server.local_addr().unwrap();
        assert_eq!(address.ip(), case.source().ip());
        let mut client = connect(address).expect("it listens there");
        let mut accepted = accept(&server);
        assert_eq!((accepted.local_addr().unwrap(), client.peer_addr().unwrap()), (address, address));
        assert_joined(&mut client, &mut accepted);
        // A redirected client's, before and after.
        let socket = sandbox.in_app(|| case.socket());
        let before = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(before.ip(), case.source().ip());
        let client = sandbox.in_app(|| connect_on(socket, &case.asked().into())).expect("connect");
        assert_eq!(client.local_addr().unwrap(), before);
        assert_eq!(accept(case.listener(service)).peer_addr().unwrap(), before);
    });
}

#[test]
fn the_port_is_forced_and_not_seen() {
    play(&FORCE_PORT, |case, sandbox, service| {
        let mut client = sandbox.in_app(|| case.connect()).expect("connect");
        assert_eq!(client.local_addr().unwrap(), case.source());
        assert_eq!(client.peer_addr().unwrap(), case.asked());
        let mut accepted = accept(case.listener(service));
        assert_eq!(accepted.peer_addr().unwrap(), case.source());
        assert_eq!(accepted.local_addr().unwrap(), case.forced.parse().unwrap());
        assert_joined(&mut client, &mut accepted);
    });
}

/// Each in a network namespace with their addresses and no route anywhere, with a service at the forced addresses.
fn play(cases: &[Case; 2], mut act: impl FnMut(&Case, &mut Sandbox, &mut Service) + Send) {
    netns::alone(|| {
        netns::ip("addr add ::6/128 dev lo nodad");
        let mut sandbox = Sandbox::new();
        let mut service = sandbox.service_at(Kind::Aware, &cases.each_ref().map(|case| case.forced));
        sandbox.policy.providers[0].reach = Reach::Anywhere;
        let policy = sandbox.policy.clone();
        for case in cases {
            sandbox.policy = policy.clone();
            sandbox.apply();
            act(case, &mut sandbox, &mut service);
        }
    });
}

impl Case {
    fn listener<'s>(&self, service: &'s Service) -> &'s TcpListener {
        &service.listeners[usize::from(self.asked().is_ipv6())]
    }

    fn asked(&self) -> SocketAddr {
        self.asked.parse().unwrap()
    }

    fn source(&self) -> SocketAddr {
        self.source.parse().unwrap()
    }

    /// Bound to the source.
    fn socket(&self) -> Socket {
        let socket = stream(self.asked());
        socket.bind(&self.source().into()).expect("bind");
        socket
    }

    fn connect(&self) -> Result<TcpStream, i32> {
        connect_on(self.socket(), &self.asked().into())
    }

    fn assert_denied(&self, sandbox: &mut Sandbox, reason: u32, errno: i32) {
        let (result, decision) = sandbox.decided(|| self.connect());
        assert_eq!(result.expect_err("denied"), errno);
        assert_eq!((decision.verdict, decision.reason, decision.error), (VERDICT_REFUSE, reason, errno));
    }
}

/// Those that their programs set, and what to.
const OPTIONS: [(i32, i32, i32); 7] = [
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 11),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 12),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 13),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT, 14),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 15_000),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 65_535),
];

fn set_options(socket: &Socket) {
    for (level, name, value) in OPTIONS {
        raw::set(socket, level, name, &value.to_ne_bytes()).expect("an option");
    }
    raw::set(socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"reno").expect("an algorithm");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
}

fn options(socket: &impl std::os::fd::AsFd) -> Vec<Vec<u8>> {
    let names = OPTIONS.iter().map(|&(level, name, _)| (level, name));
    let names = names.chain([(libc::IPPROTO_TCP, libc::TCP_CONGESTION), (libc::SOL_SOCKET, libc::SO_BINDTODEVICE)]);
    let values = names.map(|(level, name)| {
        let mut value = [0; 16];
        let length = raw::get(socket, level, name, &mut value).expect("an option");
        value[..length].to_vec()
    });
    values.collect()
}
