//! Listeners that others made and passed to the service: the provider's once they are marked, strangers before.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;

use carnet::{ErrorKind, Redirect};
use carnet_abi::{COUNT_STRANGERS, EVENT_CONNECT, EVENT_LOST, REASON_NOT_DIRECT, REASON_STRANGER, VERDICT_REDIRECT};
use carnet_e2e::sockets::{accept, connect, connect_on, is_idle, listen};
use carnet_e2e::{Ground, Sandbox, raw, set_records};
use carnet_engine::cgroup::Cgroup;
use carnet_policy::{Owner, Service};
use libc::ECONNREFUSED;
use socket2::{Domain, Protocol, Socket, Type};

use super::assert_refused;

#[test]
fn a_marked_listener_is_the_providers_whoever_made_it() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let mut stage = Stage::new(|| listen(at));
        stage.assert_strangers();
        stage.own(HANDLE);
        stage.assert_redirected(connect);
        stage.sandbox.engine.disown_listener(stage.listener.as_fd()).unwrap();
        stage.sandbox.engine.disown_listener(stage.listener.as_fd()).expect("it has none, as was wanted");
        stage.assert_strangers();
    }
}

/// It is of the socket, not of its address.
#[test]
fn the_mark_goes_with_the_socket() {
    let mut stage = Stage::new(|| listen("127.0.0.1:0"));
    stage.own(HANDLE);
    stage.assert_redirected(connect);
    let at = stage.listener.local_addr().unwrap().to_string();
    // It was passed on, and who marked it has let it go.
    stage.listener = stage.listener.try_clone().unwrap();
    stage.assert_redirected(connect);
    stage.listener = listen("127.0.0.1:0");
    stage.listener = stage.in_supervisor(|| listen(&at));
    stage.assert_strangers();
}

#[test]
fn a_mark_is_of_one_provider_under_every_policy() {
    let mut stage = Stage::new(|| listen("127.0.0.1:0"));
    let _second = stage.sandbox.service(Service::Aware);
    stage.own(2);
    stage.assert_strangers();
    stage.own(HANDLE);
    stage.assert_redirected(connect);
    // Its index is another one.
    stage.sandbox.policy.providers[1].rank = 5;
    stage.sandbox.policy.providers[1].filters.clear();
    stage.sandbox.apply();
    stage.assert_redirected(connect);
    // No policy has had a provider with this handle; it counts as what it was made to be.
    stage.own(77);
    stage.assert_strangers();
    let maker = &stage.supervisor;
    let owner = Owner::Cgroup { id: maker.id(), level: maker.level() };
    stage.sandbox.policy.providers[0].owners.push(owner);
    stage.sandbox.apply();
    stage.assert_redirected(connect);
    // The mark of another one comes before who made it.
    stage.own(2);
    stage.assert_strangers();
}

/// The socket that is accepted may be a plain one, though the listener is not.
#[test]
fn a_marked_listener_for_mptcp() {
    let mut stage = Stage::new(|| listen_with(Protocol::MPTCP, false, ([127, 0, 0, 1], 0).into()));
    stage.assert_strangers();
    stage.own(HANDLE);
    for protocol in [Protocol::TCP, Protocol::MPTCP] {
        stage.assert_redirected(|to| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap();
            connect_on(socket, &to.into())
        });
    }
    stage.sandbox.engine.disown_listener(stage.listener.as_fd()).unwrap();
    stage.assert_strangers();
}

/// The kernel may give the connection to any listener that shares the port.
#[test]
fn a_marked_listener_shares_its_port_with_nobody() {
    let mut stage = Stage::new(|| listen_with(Protocol::TCP, true, ([127, 0, 0, 1], 0).into()));
    stage.own(HANDLE);
    stage.assert_redirected(connect);
    let at = stage.listener.local_addr().unwrap();
    let make = || listen_with(Protocol::TCP, true, at);
    for owned in [false, true] {
        let other = if owned { stage.sandbox.in_service(0, make) } else { stage.in_supervisor(make) };
        stage.assert_strangers();
        // In the other order the kernel shows the other one of them.
        stage.listener = listen("127.0.0.1:0");
        stage.listener = stage.in_supervisor(make);
        stage.own(HANDLE);
        stage.assert_strangers();
        assert!(is_idle(&other));
        drop(other);
        stage.assert_redirected(connect);
    }
}

/// Whose it is matters wherever a listener is asked whose it is.
#[test]
fn a_marked_listener_is_found_by_every_address() {
    let mut stage = Stage::new(|| listen("0.0.0.0:0"));
    let port = stage.listener.local_addr().unwrap().port();
    let by_another: SocketAddr = ([127, 0, 0, 2], port).into();
    stage.own(HANDLE);
    stage.assert_redirected(connect);
    assert_refused(&mut stage.sandbox, by_another, ECONNREFUSED, REASON_NOT_DIRECT);
    // A connection that was not redirected has lost its record, if it had one.
    stage.sandbox.events();
    let _client = connect(by_another).expect("nobody governs the test");
    let accepted = accept(&stage.listener);
    let lost = stage.sandbox.events_until(|event| event.kind == EVENT_LOST);
    assert_eq!(lost.last().unwrap().handle, HANDLE);
    assert_eq!(Redirect::of(&accepted).flow().unwrap_err().kind(), ErrorKind::ContextLost);
}

#[test]
fn a_mark_makes_nobody_an_owner() {
    let mut stage = Stage::new(|| listen("127.0.0.1:0"));
    let _second = stage.sandbox.service(Service::Aware);
    stage.own(HANDLE);
    let _client = stage.sandbox.in_app(|| connect(DESTINATION)).unwrap();
    let accepted = accept(&stage.listener);
    let blob = Redirect::of(&accepted).records().expect("whoever has accepted it may ask").as_bytes().to_vec();
    let set = |socket: &Socket| set_records(socket, &blob);
    let socket = stage.in_supervisor(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap());
    assert_eq!(stage.in_supervisor(|| set(&socket)), Err(libc::EACCES));
    stage.sandbox.in_service(0, || set(&socket)).expect("the owner may");
    // What is dialled with a marked socket is dialled by who does it: it is redirected to the first service again.
    raw::disconnect(&accepted).unwrap();
    stage.sandbox.events();
    let connected = stage.in_supervisor(|| connect_on(accepted.into(), &DESTINATION.into()));
    let decision = *stage.sandbox.events_until(|event| event.kind == EVENT_CONNECT).last().unwrap();
    connected.expect("connect");
    assert_eq!((decision.verdict, decision.handle, decision.dialer), (VERDICT_REDIRECT, HANDLE, 0));
}

#[test]
fn what_cannot_be_marked_is_told() {
    let sandbox = Sandbox::new();
    let listener = listen("127.0.0.1:0");
    assert_eq!(*sandbox.engine.own_listener(listener.as_fd(), 0).unwrap_err().kind(), carnet_engine::ErrorKind::Policy);
    let file = std::fs::File::open("/dev/null").unwrap();
    sandbox.engine.own_listener(file.as_fd(), 1).expect_err("no socket");
    sandbox.engine.disown_listener(file.as_fd()).expect_err("no socket");
}

/// A service whose listener was made by a supervisor in a cgroup outside of its own.
struct Stage {
    sandbox: Sandbox,
    supervisor: Cgroup,
    listener: TcpListener,
}

impl Stage {
    fn new(make: impl FnOnce() -> TcpListener) -> Self {
        let ground = Ground::new();
        let supervisor = ground.governed.child("supervisor").unwrap();
        let mut sandbox = Sandbox::on(ground);
        sandbox.engine.attach_services(&supervisor).unwrap();
        let service = sandbox.service(Service::Aware);
        drop(service);
        let listener = sandbox.ground().within(&supervisor, make);
        let bound = listener.local_addr().unwrap();
        let loopback = if bound.is_ipv4() { DESTINATION.ip() } else { Ipv6Addr::LOCALHOST.into() };
        sandbox.policy.providers[0].listeners = vec![(loopback, bound.port()).into()];
        sandbox.apply();
        Self { sandbox, supervisor, listener }
    }

    fn in_supervisor<T>(&self, act: impl FnOnce() -> T) -> T {
        self.sandbox.ground().within(&self.supervisor, act)
    }

    fn own(&self, handle: u32) {
        self.sandbox.engine.own_listener(self.listener.as_fd(), handle).expect("root may");
    }

    /// An address of the listener's family, which the application is to be redirected from.
    fn destination(&self) -> SocketAddr {
        let at = self.listener.local_addr().unwrap();
        if at.is_ipv4() { DESTINATION } else { (at.ip(), DESTINATION.port()).into() }
    }

    fn assert_strangers(&mut self) {
        let destination = self.destination();
        assert_refused(&mut self.sandbox, destination, ECONNREFUSED, REASON_STRANGER);
        assert!(is_idle(&self.listener));
    }

    fn assert_redirected(&mut self, connect: impl FnOnce(SocketAddr) -> Result<TcpStream, i32>) {
        let destination = self.destination();
        let (client, decision) = self.sandbox.decided(|| connect(destination));
        let client = client.expect("connect");
        assert_eq!((decision.verdict, decision.handle), (VERDICT_REDIRECT, HANDLE));
        let accepted = accept(&self.listener);
        let flow = Redirect::of(&accepted).flow().expect("the record");
        assert_eq!((flow.destination(), flow.depth()), (destination, 1));
        assert_eq!(flow.origin().pid, std::process::id());
        assert_eq!(self.sandbox.engine.counters().unwrap()[COUNT_STRANGERS], 0);
        assert_eq!(self.sandbox.engine.open_handovers().unwrap(), 0);
        drop(client);
    }
}

fn listen_with(protocol: Protocol, shared: bool, at: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(protocol)).expect("a socket");
    socket.set_reuse_port(shared).expect("SO_REUSEPORT");
    socket.bind(&at.into()).expect("bind");
    socket.listen(64).expect("listen");
    socket.set_nonblocking(true).expect("non-blocking");
    socket.into()
}

/// Of the first provider of a sandbox.
const HANDLE: u32 = 1;
const DESTINATION: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));
