//! Unusual ways to connect. Each is redirected like any other, brings its record, goes on through the next service, has
//! one decision and one end for each hop, and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod activation;
mod fast_open;
mod mount;
mod mptcp;
mod older;
mod passed;
mod ring;
mod subflows;

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use carnet::Redirect;
use carnet_abi::{
    EVENT_CONNECT, EVENT_END, EVENT_LOST, EVENT_STRANGER, Event, REASON_KERNEL, VERDICT_PASS, VERDICT_REDIRECT, flow_id,
};
use carnet_e2e::sockets::{accept, assert_joined, canonical, is_idle, listen, until};
use carnet_e2e::{Ground, Sandbox, Service};
use carnet_engine::Options;
use carnet_policy::Service as Kind;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Which socket goes to which destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    V4,
    V6,
    /// An IPv6 socket to an IPv4 destination.
    Mapped,
}

/// Two services, and a server for each family.
struct Course {
    sandbox: Sandbox,
    services: [Service; 2],
    servers: [TcpListener; 2],
}

/// An application's connection as the first service has it.
struct Arrived {
    socket: TcpStream,
    flow: u128,
}

impl Way {
    const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    /// Index of the server and of the services' listeners.
    fn family(self) -> usize {
        usize::from(self == Self::V6)
    }

    fn domain(self) -> Domain {
        if self == Self::V4 { Domain::IPV4 } else { Domain::IPV6 }
    }

    fn socket(self) -> Socket {
        self.socket_of(Protocol::TCP)
    }

    fn socket_of(self, protocol: Protocol) -> Socket {
        let socket = Socket::new(self.domain(), Type::STREAM, Some(protocol)).expect("a socket");
        if self != Self::V4 {
            socket.set_only_v6(false).expect("IPV6_V6ONLY");
        }
        socket
    }
}

impl Course {
    fn new() -> Self {
        Self::with_servers(["127.0.0.1:0", "[::1]:0"].map(listen))
    }

    /// IPv4, IPv6.
    fn with_servers(servers: [TcpListener; 2]) -> Self {
        let mut sandbox = Sandbox::with(&options());
        let services = [(); 2].map(|()| sandbox.service(Kind::Aware));
        Self { sandbox, services, servers }
    }

    /// With cgroups and services' listeners that are there already.
    fn on(ground: Ground, listeners: [Vec<TcpListener>; 2], servers: [TcpListener; 2]) -> Self {
        let mut sandbox = Sandbox::on_with(ground, &options());
        let services = listeners.map(|listeners| sandbox.service_with(Kind::Aware, listeners));
        Self { sandbox, services, servers }
    }

    fn destination(&self, way: Way) -> SocketAddr {
        let server = self.servers[way.family()].local_addr().expect("bound");
        match (way, server.ip()) {
            (Way::Mapped, IpAddr::V4(v4)) => SocketAddr::new(v4.to_ipv6_mapped().into(), server.port()),
            _ => server,
        }
    }

    /// The whole way of a connection that this process has made as an application, to its end.
    fn follow(&mut self, mut client: TcpStream, way: Way) {
        let mut arrived = self.arrive(way, Some(&client), &[]);
        assert_eq!(client.peer_addr().unwrap(), self.destination(way), "getpeername() answers as was asked");
        assert_joined(&mut client, &mut arrived.socket);
        self.go_on(&arrived, way);
        drop(client);
        self.over(arrived);
    }

    /// Accepts an application's connection at the first service, with the first bytes that it brings.
    fn arrive(&self, way: Way, client: Option<&TcpStream>, early: &[u8]) -> Arrived {
        let mut socket = accept(&self.services[0].listeners[way.family()]);
        let destination = canonical(self.destination(way));
        let redirect = Redirect::of(&socket);
        let flow = redirect.flow().expect("flow");
        let origin = flow.origin();
        assert_eq!((flow.destination(), origin.destination), (destination, destination));
        assert_eq!(origin.source, Some(canonical(socket.peer_addr().unwrap())));
        assert_eq!(redirect.original_destination().expect("SO_ORIGINAL_DST"), destination);
        if let Some(client) = client {
            assert_eq!(canonical(client.local_addr().unwrap()), canonical(socket.peer_addr().unwrap()));
            // The process, whatever thread has done it.
            assert_eq!((origin.pid, &origin.comm), (std::process::id(), &name_of_this_process()));
            assert_eq!((origin.uid, origin.cgroup_id), (0, self.sandbox.app_cgroup().id()));
        }
        let mut came = vec![0; early.len()];
        socket.read_exact(&mut came).expect("what the client sent first");
        assert_eq!(came, early);
        let flow = flow.id();
        Arrived { socket, flow }
    }

    /// From the first service through the second to the server.
    fn go_on(&self, arrived: &Arrived, way: Way) {
        let before = Redirect::of(&arrived.socket).flow().expect("flow");
        let mut onward = self.sandbox.in_service(0, || carnet::dial(&arrived.socket)).expect("dial");
        let mut at_second = accept(&self.services[1].listeners[way.family()]);
        let after = Redirect::of(&at_second).flow().expect("flow");
        assert_eq!((after.id(), after.origin(), after.depth()), (before.id(), before.origin(), 2));
        assert_joined(&mut onward, &mut at_second);
        let mut last = self.sandbox.in_service(1, || carnet::dial(&at_second)).expect("dial");
        assert_joined(&mut last, &mut accept(&self.servers[way.family()]));
    }

    /// Closes what is left and makes sure that each of the three hops has been told of once, and its end once. The
    /// events, those of subflows that were left alone among them.
    fn over(&mut self, arrived: Arrived) -> Vec<Event> {
        let flow = arrived.flow;
        drop(arrived);
        self.assert_nothing_left();
        let events = self.events_of(flow);
        assert_eq!(
            decisions(&events).iter().map(|event| (event.verdict, event.base)).collect::<Vec<_>>(),
            [(VERDICT_REDIRECT, 0), (VERDICT_REDIRECT, 1), (VERDICT_PASS, 2)],
            "{events:#?}"
        );
        assert_ended_once(&events);
        events
    }

    /// What was told of a flow. Nothing may have gone wrong for any other.
    fn events_of(&mut self, flow: u128) -> Vec<Event> {
        let events = self.sandbox.events();
        // Every subflow is some connection's that was decided on.
        let stray = |event: &Event| event.reason == REASON_KERNEL && flow_id(event.record.flow) != flow;
        let wrong: Vec<_> =
            events.iter().filter(|event| [EVENT_LOST, EVENT_STRANGER].contains(&event.kind) || stray(event)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        events.into_iter().filter(|event| flow_id(event.record.flow) == flow).collect()
    }

    /// Every socket that the engine knew is gone, and with it everything of the engine's.
    fn assert_nothing_left(&self) {
        let engine = &self.sandbox.engine;
        until("the last socket to go", || (engine.open_sockets().unwrap() == 0).then_some(()));
        assert_eq!((engine.open_handovers().unwrap(), engine.open_flights().unwrap()), (0, 0));
        assert!(self.services.iter().flat_map(|service| &service.listeners).chain(&self.servers).all(is_idle));
    }
}

fn options() -> Options {
    Options { for_test: true, ..Options::default() }
}

/// Connections that were decided on: those of the kernel's own were not.
fn decisions(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|event| event.kind == EVENT_CONNECT && event.reason != REASON_KERNEL).collect()
}

/// Every connection has one end: as many as there were decisions that let it begin, with the same cookies.
fn assert_ended_once(events: &[Event]) {
    let mut begun: Vec<_> = decisions(events).iter().map(|event| event.cookie).collect();
    let mut ended: Vec<_> = events.iter().filter(|event| event.kind == EVENT_END).map(|event| event.cookie).collect();
    begun.sort_unstable();
    ended.sort_unstable();
    assert_eq!(begun, ended, "{events:#?}");
}

/// Of its first thread.
fn name_of_this_process() -> String {
    std::fs::read_to_string("/proc/self/comm").expect("/proc is mounted").trim_end().to_owned()
}

/// connect(), where the socket is ready for it.
fn connected(socket: Socket, to: SocketAddr) -> TcpStream {
    carnet_e2e::sockets::connect_on(socket, &SockAddr::from(to)).expect("connect")
}
