//! Services by hand, one step of a flow at a time, beside the rule that says where each step must lead: to the lowest rank
//! above all that the flow has had, as ranks were then, and above that of who dials, as it is now; and who has had it, wherever
//! it is now, is passed by.

use std::fmt::Debug;
use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::Redirect;
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen, until};
use carnet_e2e::{Sandbox, Service};
use carnet_policy::{Provider, Service as Kind};

/// Services, of which the policy may have some, and a server.
pub struct Scene {
    pub sandbox: Sandbox,
    services: Vec<Service>,
    server: TcpListener,
}

/// An application's connection and what has become of it.
pub struct Flow {
    /// Who has had it.
    pub chain: Vec<usize>,
    /// The socket that went on, and the one that was accepted for it, hop by hop.
    hops: Vec<(TcpStream, TcpStream)>,
    floor: Option<u16>,
    arrived: bool,
}

impl Scene {
    /// With so many services, all of them in the policy, each of a higher rank than the one before.
    pub fn new(count: usize) -> Self {
        let mut sandbox = Sandbox::new();
        let services = (0..count).map(|_| sandbox.service_at(Kind::Aware, &["127.0.0.1:0"])).collect();
        Self { sandbox, services, server: listen("127.0.0.1:0") }
    }

    /// A new connection of an application's, as far as it comes by itself.
    pub fn begin(&self) -> Flow {
        let mut flow = Flow { chain: Vec::new(), hops: Vec::new(), floor: None, arrived: false };
        let client = self.sandbox.in_app(|| connect(self.destination())).expect("connect");
        self.arrives(&mut flow, client);
        flow
    }

    /// Whoever has it dials on.
    pub fn go_on(&self, flow: &mut Flow) {
        let (service, accepted) = flow.at();
        let kind = self.rank(service).map_or(Kind::Unaware, |(_, kind)| kind);
        let onward = self.sandbox.in_service(service, || match kind {
            Kind::Aware => Redirect::of(accepted).dial().expect("dial"),
            Kind::Unaware => {
                connect(Redirect::of(accepted).original_destination().expect("where to")).expect("connect")
            }
        });
        flow.floor = flow.floor.max(self.rank(service).map(|(rank, _)| rank));
        self.arrives(flow, onward);
    }

    /// All the way to the server, and bytes through every hop, both ways.
    pub fn to_the_end(&self, flow: &mut Flow) {
        while !flow.arrived {
            self.go_on(flow);
        }
        assert_once(&flow.chain);
        flow.lives();
    }

    /// Everything of all flows is over.
    pub fn is_over(&self) {
        until("the flows to be over", || (self.sandbox.engine.open_flights().expect("readable") == 0).then_some(()));
    }

    fn destination(&self) -> SocketAddr {
        self.server.local_addr().expect("bound")
    }

    fn arrives(&self, flow: &mut Flow, from: TcpStream) {
        let Some(service) = self.next_above(flow) else {
            flow.hops.push((from, accept(&self.server)));
            flow.arrived = true;
            return self.is_idle(flow);
        };
        let accepted = accept(&self.services[service].listeners[0]);
        flow.chain.push(service);
        flow.floor = flow.floor.max(self.rank(service).map(|(rank, _)| rank));
        let told = Redirect::of(&accepted).flow().expect("flow");
        assert_eq!(told.destination(), self.destination());
        assert_eq!(told.origin().pid, std::process::id());
        assert!(!told.origin().ambiguous);
        let handles: Vec<_> = told.chain().iter().map(|hop| hop.handle as usize - 1).collect();
        assert_eq!(handles, flow.chain);
        flow.hops.push((from, accepted));
        self.is_idle(flow);
    }

    fn is_idle(&self, flow: &Flow) {
        let listeners = self.services.iter().map(|service| &service.listeners[0]);
        assert!(listeners.chain([&self.server]).all(is_idle), "nobody else has it: {:?}", flow.chain);
    }

    fn next_above(&self, flow: &Flow) -> Option<usize> {
        let providers = self.sandbox.policy.providers.iter().map(|provider| (provider.rank, service_of(provider)));
        let above = providers.filter(|(rank, _)| flow.floor.is_none_or(|floor| *rank > floor));
        above.filter(|(_, service)| !flow.chain.contains(service)).min().map(|(_, service)| service)
    }

    /// And what it is, if it is in the policy.
    fn rank(&self, service: usize) -> Option<(u16, Kind)> {
        let mut providers = self.sandbox.policy.providers.iter();
        let found = providers.find(|provider| service_of(provider) == service);
        found.map(|provider| (provider.rank, provider.service))
    }
}

/// None has had it twice.
pub fn assert_once<T: Clone + Debug + Ord>(chain: &[T]) {
    let mut met = chain.to_vec();
    met.sort_unstable();
    met.dedup();
    assert!(met.len() == chain.len(), "none twice: {chain:?}");
}

fn service_of(provider: &Provider) -> usize {
    provider.handle as usize - 1
}

impl Flow {
    /// Bytes come through every hop that there is, both ways.
    pub fn lives(&mut self) {
        for (from, accepted) in &mut self.hops {
            assert_joined(from, accepted);
        }
    }

    fn at(&self) -> (usize, &TcpStream) {
        assert!(!self.arrived, "it is at the server");
        (*self.chain.last().expect("it has begun"), &self.hops.last().expect("it has begun").1)
    }
}
