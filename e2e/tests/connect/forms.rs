//! Blocking or not, bound or not, more than once on a socket, and many at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::thread;

use carnet::Redirect;
use carnet_abi::{
    EVENT_CONNECT, REASON_DEAD, REASON_DEFAULT, REASON_FAMILY, REASON_RULE, VERDICT_PASS, VERDICT_REDIRECT,
    VERDICT_REFUSE,
};
use carnet_e2e::sockets::{PATIENCE, accept, assert_joined, connect, connect_on, is_idle, listen, mapped};
use carnet_e2e::{Sandbox, raw};
use carnet_policy::{Condition, Match, Service};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use super::{Kind, assert_redirected};

#[test]
fn non_blocking() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    for (family, kind) in [(0, Kind::V4), (1, Kind::V6)] {
        let server = listen(["127.0.0.1:0", "[::1]:0"][family]);
        let destination = server.local_addr().unwrap();
        let (socket, decision) = sandbox.decided(|| {
            let socket = kind.socket();
            socket.set_nonblocking(true).unwrap();
            let error = socket.connect(&destination.into()).expect_err("it takes a moment");
            assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
            wait_until_writable(&socket);
            assert_eq!(socket.take_error().unwrap().map(|error| error.raw_os_error()), None);
            // A second call says that it is done, and is no second decision.
            assert_matches_done(socket.connect(&destination.into()));
            socket
        });
        assert_eq!(decision.verdict, VERDICT_REDIRECT);
        socket.set_nonblocking(false).unwrap();
        let mut client = TcpStream::from(socket);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_redirected(&service.listeners[family], &mut client, destination);
        assert!(is_idle(&server));
    }
}

#[test]
fn non_blocking_and_refused() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    drop(service);
    let (error, decision) = sandbox.decided(|| {
        let socket = Kind::V4.socket();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], 9)).into()).expect_err("dead")
    });
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "at once, not EINPROGRESS");
    assert_eq!(decision.reason, REASON_DEAD);
}

#[test]
fn bound_to_an_address_or_port() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let servers = [listen("127.0.0.1:0"), listen("[::1]:0")];
    let [v4, v6] = [0, 1].map(|family: usize| servers[family].local_addr().unwrap());
    let port = free_port();
    for (kind, bind, destination, family) in [
        (Kind::V4, "127.0.0.1:0".to_owned(), v4, 0),
        (Kind::V4, "127.0.0.77:0".to_owned(), v4, 0),
        (Kind::V4, format!("0.0.0.0:{port}"), v4, 0),
        (Kind::V4, format!("127.0.0.78:{port}"), v4, 0),
        (Kind::V6, "[::1]:0".to_owned(), v6, 1),
        (Kind::V6Only, "[::1]:0".to_owned(), v6, 1),
        (Kind::V6, format!("[::]:{port}"), v6, 1),
        (Kind::V6, "[::ffff:127.0.0.79]:0".to_owned(), mapped(v4), 0),
        (Kind::V6, format!("[::]:{port}"), mapped(v4), 0),
    ] {
        let bind: SocketAddr = bind.parse().unwrap();
        let mut client = sandbox.in_app(|| connect_on(bound(kind, bind), &destination.into())).expect("connect");
        let local = client.local_addr().unwrap();
        assert!(bind.ip().is_unspecified() || local.ip() == bind.ip(), "{bind} became {local}");
        assert!(bind.port() == 0 || local.port() == bind.port(), "{bind} became {local}");
        assert_redirected(&service.listeners[family], &mut client, destination);
        assert!(servers.iter().all(is_idle));
    }
}

#[test]
fn bound_to_a_family_the_service_has_not() {
    for (listening, bind, destination) in
        [("127.0.0.1:0", "[::1]:0", "[::1]:9"), ("[::1]:0", "[::ffff:127.0.0.1]:0", "[::ffff:127.0.0.1]:9")]
    {
        let mut sandbox = Sandbox::new();
        let _service = sandbox.service_at(Service::Aware, &[listening]);
        let destination: SocketAddr = destination.parse().unwrap();
        let (result, decision) =
            sandbox.decided(|| connect_on(bound(Kind::V6, bind.parse().unwrap()), &destination.into()));
        assert_eq!(result.expect_err("out of reach"), libc::ECONNREFUSED);
        assert_eq!((decision.verdict, decision.reason), (VERDICT_REFUSE, REASON_FAMILY));
    }
}

#[test]
fn again_after_the_destination_refused() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // Only the destination that listens is redirected.
    sandbox.policy.providers[0].filters[0].matches = Match::default().on_ports(destination.port()..=destination.port());
    sandbox.apply();
    sandbox.events();
    let mut client = sandbox.in_app(|| {
        let socket = Kind::V4.socket();
        for _ in 0..2 {
            let error = socket.connect(&closed.into()).expect_err("nobody listens there");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        }
        connect_on(socket, &destination.into()).expect("connect")
    });
    assert_redirected(&service.listeners[0], &mut client, destination);
    let decisions: Vec<_> = sandbox.events().into_iter().filter(|event| event.kind == EVENT_CONNECT).collect();
    assert_eq!(
        decisions.iter().map(|event| (event.verdict, event.reason)).collect::<Vec<_>>(),
        [(VERDICT_PASS, REASON_DEFAULT), (VERDICT_PASS, REASON_DEFAULT), (VERDICT_REDIRECT, REASON_RULE)]
    );
    let flows: BTreeSet<_> = decisions.iter().map(|event| event.record.flow).collect();
    assert_eq!(flows.len(), 3, "every connect() of an application is a flow");
}

#[test]
fn again_after_the_service_was_dead() {
    let mut sandbox = Sandbox::new();
    let mut service = sandbox.service(Service::Aware);
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let at = service.listeners[0].local_addr().unwrap().to_string();
    service.listeners.clear();
    let socket = sandbox.in_app(|| {
        let socket = Kind::V4.socket();
        let error = socket.connect(&destination.into()).expect_err("dead");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        socket
    });
    let revived = sandbox.in_service(0, || listen(&at));
    let mut client = sandbox.in_app(|| connect_on(socket, &destination.into())).expect("alive again");
    assert_redirected(&revived, &mut client, destination);
    assert!(is_idle(&server));
}

#[test]
fn again_after_af_unspec() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let servers = [listen("127.0.0.1:0"), listen("127.0.0.1:0"), listen("127.0.0.1:0")];
    let [first, second, direct] = [0, 1, 2].map(|at: usize| servers[at].local_addr().unwrap());
    let both = [first, second].map(|to| to.port()..=to.port());
    sandbox.policy.providers[0].filters[0].matches = Match { ports: Condition::only(both), ..Match::default() };
    sandbox.apply();
    let mut client = sandbox.in_app(|| connect(first)).expect("connect");
    let one = assert_redirected(&service.listeners[0], &mut client, first);
    raw::disconnect(&client).expect("AF_UNSPEC");
    assert_eq!(client.peer_addr().unwrap_err().raw_os_error(), Some(libc::ENOTCONN));

    let mut client = connect_on(client.into(), &second.into()).expect("connect");
    let two = assert_redirected(&service.listeners[0], &mut client, second);
    let flow = |accepted: &TcpStream| Redirect::of(accepted).flow().unwrap();
    assert_ne!(flow(&one).id(), flow(&two).id());
    assert_eq!(flow(&two).depth(), 1, "the first connection's hop is not part of it");

    // And now to one that nobody redirects: nothing of what was must show.
    raw::disconnect(&client).expect("AF_UNSPEC");
    let mut client = connect_on(client.into(), &direct.into()).expect("connect");
    assert_eq!(client.peer_addr().unwrap(), direct);
    assert_joined(&mut client, &mut accept(&servers[2]));

    // And back.
    raw::disconnect(&client).expect("AF_UNSPEC");
    let mut client = connect_on(client.into(), &first.into()).expect("connect");
    assert_redirected(&service.listeners[0], &mut client, first);
    assert!(servers.iter().chain(&service.listeners).all(is_idle));
}

#[test]
fn many_threads_at_once() {
    const THREADS: usize = 32;
    const EACH: usize = 50;
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    // What each client's local address was told to be its flow: by itself nothing, so it says who it is.
    let said = Mutex::new(BTreeMap::new());
    let flows = sandbox.in_app(|| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let said = &said;
                scope.spawn(move || {
                    for nth in 0..EACH {
                        let mut client = connect(destination).expect("connect");
                        client.write_all(&[thread as u8, nth as u8]).expect("write");
                        let local = client.local_addr().unwrap();
                        // The service's FIN: it has the record, so the port may be used again.
                        assert_eq!(client.read(&mut [0]).expect("read"), 0);
                        said.lock().unwrap().insert((thread as u8, nth as u8), local);
                    }
                });
            }
            let mut flows = BTreeMap::new();
            for _ in 0..THREADS * EACH {
                let mut accepted = accept(&service.listeners[0]);
                let flow = Redirect::of(&accepted).flow().expect("every one has its record");
                assert_eq!(flow.destination(), destination);
                assert_eq!(flow.origin().source, Some(accepted.peer_addr().unwrap()), "the record is this client's");
                let mut name = [0; 2];
                accepted.read_exact(&mut name).expect("read");
                let before = flows.insert((name[0], name[1]), (flow.id(), flow.origin().source.unwrap()));
                assert_eq!(before, None);
            }
            flows
        })
    });
    let said = said.into_inner().unwrap();
    assert_eq!(said.len(), THREADS * EACH);
    for (name, local) in &said {
        assert_eq!(flows[name].1, *local, "{name:?}");
    }
    assert_eq!(
        flows.values().map(|(id, _)| id).collect::<BTreeSet<_>>().len(),
        THREADS * EACH,
        "each has its own flow"
    );
    assert!(is_idle(&server) && is_idle(&service.listeners[0]));
    assert_eq!(sandbox.engine.open_handovers().unwrap(), 0);
}

/// An IPv6 socket that leads to an IPv4 listener can become an IPv4 one. Then it has no room for what it asked for.
#[test]
fn an_ipv6_socket_that_becomes_an_ipv4_one() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service_at(Service::Aware, &["127.0.0.1:0"]);
    let listener = service.listeners[0].local_addr().unwrap();
    let server = listen("127.0.0.1:0");
    let v4 = server.local_addr().unwrap();
    let v6: SocketAddr = ([0, 0, 0, 0, 0, 0, 0, 1], 9).into();
    for (destination, after) in [(mapped(v4), v4), (v6, listener)] {
        let client = sandbox.in_app(|| connect_on(Kind::V6.socket(), &destination.into())).expect("connect");
        assert_eq!(client.peer_addr().unwrap(), destination);
        raw::set(&client, libc::IPPROTO_IPV6, libc::IPV6_ADDRFORM, &libc::AF_INET.to_ne_bytes()).expect("mapped");
        assert_eq!(client.peer_addr().unwrap(), after);
        accept(&service.listeners[0]);
    }
}

fn bound(kind: Kind, to: SocketAddr) -> Socket {
    let socket = kind.socket();
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&to.into()).expect("bind");
    socket
}

fn wait_until_writable(socket: &Socket) {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(PATIENCE).expect("milliseconds");
    assert_eq!(poll(&mut polled, patience).expect("poll"), 1, "writable in time");
}

fn assert_matches_done(again: std::io::Result<()>) {
    let done = again.map_err(|error| error.raw_os_error());
    assert!(matches!(done, Ok(()) | Err(Some(libc::EISCONN))), "{done:?}");
}

/// A port on which nobody listens. Bound once, so that the kernel does not give it out again at once.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}
