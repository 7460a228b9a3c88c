//! Services that look at their own address, as those behind TPROXY rules do.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use carnet::Redirect;
use carnet_e2e::sockets::{accept, assert_joined, canonical, connect, connect_on, is_idle, listen, mapped, stream};
use carnet_e2e::{Ground, Sandbox, Service, raw};
use carnet_policy::{Service as Kind, SockName};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// The destination with its port, whatever the family, and nothing to those who do not want it.
#[test]
fn an_accepted_connection_answers_where_the_application_asked_to_go() {
    let mut scene = Scene::new(|| ["127.0.0.1:0", "[::1]:0"].map(listen).into());
    for to in scene.destinations() {
        let (client, accepted) = scene.arrive(plain(to), to);
        assert_eq!(accepted.local_addr().unwrap(), to);
        assert_eq!(Redirect::of(&accepted).original_destination().unwrap(), to, "and so does SO_ORIGINAL_DST");
        scene.goes_on(client, accepted);

        let (_client, accepted) = scene.arrive(plain(to), to);
        scene.wants(SockName::Own);
        assert_eq!(accepted.local_addr().unwrap(), scene.listener_for(to), "the policy is asked each time");
        let (_client, accepted) = scene.arrive(plain(to), to);
        assert_eq!(accepted.local_addr().unwrap(), scene.listener_for(to));
        scene.wants(SockName::Destination);
        assert_eq!(accepted.local_addr().unwrap(), to);
    }
}

/// A dual-stack listener's sockets are IPv6 ones; IPv4 is v4-mapped there.
#[test]
fn at_a_listener_of_both_families_ipv4_is_mapped() {
    let mut scene = Scene::new(|| vec![listen("[::]:0")]);
    let port = scene.service.listeners[0].local_addr().unwrap().port();
    let dialled = ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port));
    scene.sandbox.policy.providers[0].listeners = dialled.into();
    scene.sandbox.apply();
    let [v4, v6] = scene.destinations();
    for (domain, to, answer) in
        [(Domain::IPV4, v4, mapped(v4)), (Domain::IPV6, mapped(v4), mapped(v4)), (Domain::IPV6, v6, v6)]
    {
        let (client, accepted) = scene.arrive((domain, Protocol::TCP), to);
        // The standard library shows a v4-mapped address as it is.
        assert_eq!(accepted.local_addr().unwrap(), answer, "{domain:?} to {to}");
        scene.goes_on(client, accepted);
    }
}

/// Such a flow can come to one that carries records. An IPv4 socket has no way to say an IPv6 address.
#[test]
fn an_ipv6_destination_is_no_answer_at_an_ipv4_listener() {
    let scene = Scene::new(|| vec![listen("127.0.0.1:0")]);
    let [_, v6] = scene.destinations();
    let (client, accepted) = scene.arrive((Domain::IPV6, Protocol::TCP), v6);
    assert_eq!(accepted.local_addr().unwrap(), scene.listener_for(v6));
    scene.goes_on(client, accepted);
}

/// Programs see a subflow there, and the service has the connection.
#[test]
fn mptcp_at_either_end() {
    const MPTCP: Protocol = Protocol::MPTCP;
    const TCP: Protocol = Protocol::TCP;
    for (connecting, listening) in [(MPTCP, TCP), (TCP, MPTCP), (MPTCP, MPTCP)] {
        let scene = Scene::new(|| ["127.0.0.1:0", "[::1]:0"].map(|at| listen_for(listening, at)).into());
        for to in scene.destinations() {
            let (client, accepted) = scene.arrive((Domain::for_address(to), connecting), to);
            assert_eq!(accepted.local_addr().unwrap(), to, "{connecting:?} at {listening:?}");
            scene.goes_on(client, accepted);
        }
    }
}

/// Listeners, clients, what has not come as a flow, and what a service dials: before it is connected, to the next service
/// and to the destination.
#[test]
fn every_other_socket_answers_its_own_address() {
    let mut scene = Scene::new(|| vec![listen("127.0.0.1:0")]);
    let second = scene.sandbox.service(Kind::Aware);
    scene.wants(SockName::Destination);
    let [v4, _] = scene.destinations();
    let listener = &scene.service.listeners[0];
    let own = listener.local_addr().unwrap();
    let client = scene.sandbox.in_app(|| connect(v4)).unwrap();
    assert_eq!(listener.local_addr().unwrap(), own, "a connection is in its queue");
    let accepted = accept(listener);
    assert_eq!(listener.local_addr().unwrap(), own, "and has been taken out of it");
    assert_eq!(client.local_addr().unwrap(), accepted.peer_addr().unwrap());

    let onward = scene.dials(0, &accepted);
    let at_second = accept(&second.listeners[0]);
    assert_eq!(onward.local_addr().unwrap(), at_second.peer_addr().unwrap());
    assert_eq!(at_second.local_addr().unwrap(), v4);
    let last = scene.dials(1, &at_second);
    let at_server = accept(&scene.servers[0]);
    assert_eq!(last.local_addr().unwrap(), at_server.peer_addr().unwrap());

    // From outside the engine's cgroup: no flow, so no destination but the listener.
    let _outsider = connect(own).unwrap();
    assert_eq!(accept(listener).local_addr().unwrap(), own);
}

/// Who keeps a socket when its connection is over may dial with it.
#[test]
fn a_socket_that_is_used_again_answers_its_own_address() {
    let scene = Scene::new(|| vec![listen("127.0.0.1:0")]);
    let [v4, _] = scene.destinations();
    let (client, accepted) = scene.arrive(plain(v4), v4);
    drop(client);
    raw::disconnect(&accepted).unwrap();
    assert_ne!(accepted.local_addr().unwrap(), v4);
    let onward = scene.sandbox.in_service(0, || connect_on(accepted.into(), &v4.into())).unwrap();
    assert_eq!(onward.local_addr().unwrap(), accept(&scene.servers[0]).peer_addr().unwrap());
    assert_ne!(onward.local_addr().unwrap(), v4);
}

/// Nobody is left who wants it otherwise.
#[test]
fn when_the_provider_is_taken_out_its_connections_answer_their_own_address() {
    let mut scene = Scene::new(|| vec![listen("127.0.0.1:0")]);
    let [v4, _] = scene.destinations();
    let (mut client, mut accepted) = scene.arrive(plain(v4), v4);
    scene.sandbox.policy.providers.clear();
    scene.sandbox.apply();
    assert_eq!(accepted.local_addr().unwrap(), scene.listener_for(v4));
    assert_joined(&mut client, &mut accepted);
}

/// Those who write a log ask late.
#[test]
fn the_answer_stays_when_the_client_has_reset() {
    let scene = Scene::new(|| vec![listen("127.0.0.1:0")]);
    let [v4, _] = scene.destinations();
    let (client, accepted) = scene.arrive(plain(v4), v4);
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    (&accepted).read(&mut [0]).expect_err("the reset has come");
    assert_eq!(accepted.local_addr().unwrap(), v4);
}

/// A service that has nothing but its own address to go by, and a server for each family.
struct Scene {
    sandbox: Sandbox,
    service: Service,
    servers: [TcpListener; 2],
}

impl Scene {
    /// With these listeners, made in the service's cgroup.
    fn new(make: impl FnOnce() -> Vec<TcpListener>) -> Self {
        let ground = Ground::new();
        let listeners = ground.within(&ground.service(0), make);
        let mut sandbox = Sandbox::on(ground);
        let service = sandbox.service_with(Kind::Aware, listeners);
        let mut scene = Self { sandbox, service, servers: ["127.0.0.1:0", "[::1]:0"].map(listen) };
        scene.wants(SockName::Destination);
        scene
    }

    fn wants(&mut self, sockname: SockName) {
        for provider in &mut self.sandbox.policy.providers {
            provider.sockname = sockname;
        }
        self.sandbox.apply();
    }

    /// IPv4, IPv6.
    fn destinations(&self) -> [SocketAddr; 2] {
        self.servers.each_ref().map(|server| server.local_addr().unwrap())
    }

    /// Where the service accepts what goes there.
    fn listener_for(&self, to: SocketAddr) -> SocketAddr {
        self.listener(to).local_addr().unwrap()
    }

    fn listener(&self, to: SocketAddr) -> &TcpListener {
        let family = usize::from(canonical(to).is_ipv6());
        &self.service.listeners[family.min(self.service.listeners.len() - 1)]
    }

    /// An application's connection by such a socket, and the service's socket for it.
    fn arrive(&self, (domain, protocol): (Domain, Protocol), to: SocketAddr) -> (TcpStream, TcpStream) {
        let client = self.sandbox.in_app(|| {
            let socket = Socket::new(domain, Type::STREAM, Some(protocol)).unwrap();
            connect_on(socket, &to.into()).unwrap()
        });
        assert_eq!(client.peer_addr().unwrap(), to);
        (client, accept(self.listener(to)))
    }

    /// The service with this index goes on, from an address of its choice, which is its socket's before and after.
    fn dials(&self, service: usize, accepted: &TcpStream) -> TcpStream {
        let redirect = Redirect::of(accepted);
        let to = redirect.flow().unwrap().destination();
        self.sandbox.in_service(service, || {
            let socket = stream(to);
            socket.bind(&SocketAddr::from(([127, 0, 0, 3], 0)).into()).unwrap();
            let bound = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(bound.ip(), IpAddr::from([127, 0, 0, 3]));
            redirect.records().unwrap().apply_to(&socket).unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket(), Some(bound), "with a record");
            let onward = connect_on(socket, &to.into()).unwrap();
            assert_eq!(onward.local_addr().unwrap(), bound, "connected with it");
            onward
        })
    }

    /// To the server, and bytes both ways.
    fn goes_on(&self, mut client: TcpStream, mut accepted: TcpStream) {
        let to = Redirect::of(&accepted).flow().unwrap().destination();
        assert_eq!(to, canonical(client.peer_addr().unwrap()));
        let mut onward = self.sandbox.in_service(0, || Redirect::of(&accepted).dial()).unwrap();
        let mut at_server = accept(&self.servers[usize::from(to.is_ipv6())]);
        assert_joined(&mut client, &mut accepted);
        assert_joined(&mut onward, &mut at_server);
        assert!(self.service.listeners.iter().chain(&self.servers).all(is_idle));
    }
}

fn plain(to: SocketAddr) -> (Domain, Protocol) {
    (Domain::for_address(to), Protocol::TCP)
}

fn listen_for(protocol: Protocol, at: &str) -> TcpListener {
    let at: SocketAddr = at.parse().unwrap();
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(protocol)).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.listen(16).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}
