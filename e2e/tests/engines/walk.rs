//! A connection's way through the services of one engine, hop by hop.

use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::{Redirect, State};
use carnet_abi::{EVENT_CONNECT, Event, REASON_OTHER_ENGINE, VERDICT_PASS};
use carnet_e2e::sockets::{accept, assert_joined, is_idle};
use carnet_e2e::{Ground, Sandbox, Service};
use carnet_policy::Service as Kind;

/// An engine with two services that carry records.
pub struct Party {
    pub sandbox: Sandbox,
    pub services: [Service; 2],
}

/// One hop: what a service has accepted, and what it has dialled for it.
pub type Hop = (TcpStream, TcpStream);

impl Party {
    pub fn of(mut sandbox: Sandbox) -> Self {
        let services = [(); 2].map(|()| sandbox.service(Kind::Aware));
        Self { sandbox, services }
    }

    /// Each service in turn accepts what comes, as a flow to `destination` of a process in the cgroup `of`, and dials on.
    pub fn walk(&self, destination: SocketAddr, of: u64) -> Vec<Hop> {
        (0..2).map(|service| self.hop(service, destination, of, &[1, 2][..=service])).collect()
    }

    /// The same of one service, which sees these handles in the flow's chain.
    pub fn hop(&self, service: usize, destination: SocketAddr, of: u64, chain: &[u32]) -> Hop {
        let service = &self.services[service];
        let accepted = accept(&service.listeners[usize::from(destination.is_ipv6())]);
        let redirect = Redirect::of(&accepted);
        let flow = redirect.flow().expect("flow");
        assert_eq!((flow.destination(), flow.origin().cgroup_id), (destination, of), "{chain:?}");
        assert_eq!(flow.origin().pid, std::process::id());
        assert_eq!(flow.chain().iter().map(|hop| hop.handle).collect::<Vec<_>>(), chain);
        assert_eq!(redirect.original_destination().expect("SO_ORIGINAL_DST"), destination);
        let (state, onward) =
            self.sandbox.in_service(service.index, || (redirect.state(), redirect.dial().expect("dial")));
        assert_eq!(state.expect("state"), State::RedirectedBySelf);
        assert_eq!(onward.peer_addr().unwrap(), destination, "what is asked is what was dialled");
        (accepted, onward)
    }

    /// Nobody else has come to a service.
    pub fn assert_idle(&self) {
        assert_idle(&self.services);
    }

    /// Ends the engine. Cgroups and services stay.
    pub fn leave(self) -> Remains {
        Remains { ground: self.sandbox.leave(), services: self.services }
    }

    /// Decisions since the last time, as verdict, reason and destination.
    pub fn decisions(&mut self) -> Vec<(u32, u32, SocketAddr)> {
        let events = self.sandbox.events();
        let decided = |event: &Event| (event.verdict, event.reason, event.remote.to_socket_addr());
        events.iter().filter(|event| event.kind == EVENT_CONNECT).map(decided).collect()
    }

    /// Where its services listen that have to do with this destination.
    pub fn listeners(&self, destination: SocketAddr) -> Vec<SocketAddr> {
        let at = |service: &Service| service.listeners[usize::from(destination.is_ipv6())].local_addr().unwrap();
        self.services.iter().map(at).collect()
    }

    /// Where the last one is.
    pub fn last_cgroup(&self) -> u64 {
        self.sandbox.service_cgroup(self.services[1].index).id()
    }
}

/// What stays of one whose engine has gone.
pub struct Remains {
    pub ground: Ground,
    services: [Service; 2],
}

impl Remains {
    /// Nobody else has come to a service.
    pub fn assert_idle(&self) {
        assert_idle(&self.services);
    }
}

fn assert_idle(services: &[Service]) {
    assert!(services.iter().flat_map(|service| &service.listeners).all(is_idle), "each service has the flow once");
}

/// What an engine says of a connection to `listener` that another one has redirected there.
pub fn left_alone(listener: SocketAddr) -> (u32, u32, SocketAddr) {
    (VERDICT_PASS, REASON_OTHER_ENGINE, listener)
}

/// The flow has arrived at the server, whole and once: bytes go through every hop, both ways.
pub fn assert_arrives(mut client: TcpStream, hops: Vec<Hop>, server: &TcpListener) {
    let mut at_server = accept(server);
    assert!(is_idle(server), "it arrives once");
    let mut from = client.try_clone().unwrap();
    let mut held = Vec::new();
    for (mut accepted, onward) in hops {
        assert_joined(&mut from, &mut accepted);
        from = onward.try_clone().unwrap();
        held.push((accepted, onward));
    }
    assert_joined(&mut from, &mut at_server);
    if held.is_empty() {
        assert_joined(&mut client, &mut at_server);
    }
}
