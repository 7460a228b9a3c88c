use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use carnet_abi::{EVENT_CONNECT, Event};
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::{Engine, Error, EventReader, Options};
use carnet_policy::{
    Action, Filter, HostAction, HostFilter, Match, OnDead, Owner, Policy, Provider, Reach, Service as Kind, SockName,
};

use crate::{Ground, Relay};

/// Own cgroups ([`Ground`]) with an engine: `carnet-test.<pid>.<n>/{app,services/<i>}`.
pub struct Sandbox {
    /// What is in force; change it and call [`Sandbox::apply`].
    pub policy: Policy,
    /// The engine, attached.
    pub engine: Engine,
    owned: Vec<Cgroup>,
    generation: u64,
    reader: EventReader,
    /// Last, so that it goes last.
    ground: Ground,
}

/// One provider of a sandbox: its place in [`Sandbox::policy`] and its listeners.
#[derive(Debug)]
pub struct Service {
    /// Index of the provider.
    pub index: usize,
    /// Its listeners, non-blocking, made in the service's cgroup.
    pub listeners: Vec<TcpListener>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// Cgroups and an attached engine without providers. Fails, loudly, without root.
    pub fn new() -> Self {
        Self::with(&Options::default())
    }

    /// The same with options.
    pub fn with(options: &Options) -> Self {
        Self::attached(Ground::new(), options, Engine::attach_governed)
    }

    /// On cgroups that are there already: the engine is attached behind what is attached to them.
    pub fn on(ground: Ground) -> Self {
        Self::attached(ground, &Options::default(), Engine::attach_governed)
    }

    /// The same with options.
    pub fn on_with(ground: Ground, options: &Options) -> Self {
        Self::attached(ground, options, Engine::attach_governed)
    }

    /// With those programs alone, of the ones connections begin and are accepted with, whose names are wanted.
    pub fn with_programs_where(wanted: impl Fn(&str) -> bool) -> Self {
        let attach = |engine: &mut Engine, root: &Cgroup| engine.attach_connections_where(root, wanted);
        Self::attached(Ground::new(), &Options::default(), attach)
    }

    fn attached(
        ground: Ground,
        options: &Options,
        attach: impl FnOnce(&mut Engine, &Cgroup) -> Result<(), Error>,
    ) -> Self {
        let mut engine = Engine::load(&ground.governed, options).expect("the engine loads");
        if ground.governs_services() {
            engine.attach_services(&ground.services).expect("attach");
        } else {
            engine.attach_outside_service(&ground.services).expect("attach");
        }
        attach(&mut engine, &ground.governed).expect("attach");
        let reader = engine.events().expect("events");
        let policy = Policy::default();
        Self { policy, engine, owned: Vec::new(), generation: 0, reader, ground }
    }

    /// A service that listens on both loopback addresses and gets every TCP connection. The later, the higher its rank.
    pub fn service(&mut self, kind: Kind) -> Service {
        self.service_at(kind, &["127.0.0.1:0", "[::1]:0"])
    }

    /// The same, listening on these addresses; wildcards are registered as the loopback address they cover.
    pub fn service_at(&mut self, kind: Kind, listen: &[&str]) -> Service {
        let cgroup = self.ground.service(self.owned.len());
        let make = || listen.iter().map(|at| crate::sockets::listen(at)).collect();
        let listeners = self.ground.within(&cgroup, make);
        self.service_with(kind, listeners)
    }

    /// A service that gets every TCP connection and whose listeners are there already.
    pub fn service_with(&mut self, kind: Kind, listeners: Vec<TcpListener>) -> Service {
        let index = self.add_cgroup();
        let addresses = listeners.iter().map(|listener| dialled(listener.local_addr().expect("bound"))).collect();
        self.register(index, kind, addresses);
        Service { index, listeners }
    }

    /// A service that is a process of its own and gets every TCP connection: see [`Relay`].
    pub fn relay(&mut self, program: &str, kind: Kind, mode: &[&str]) -> Relay {
        let index = self.add_cgroup();
        let relay = Relay::start(index, self.service_command(index, program).args(mode));
        self.register(index, kind, relay.addresses.to_vec());
        relay
    }

    fn add_cgroup(&mut self) -> usize {
        let index = self.owned.len();
        let cgroup = self.ground.service(index);
        self.owned.push(cgroup);
        index
    }

    fn register(&mut self, index: usize, kind: Kind, listeners: Vec<SocketAddr>) {
        self.policy.providers.push(Provider {
            name: format!("s{index}"),
            handle: index as u32 + 1,
            rank: 10 * (index as u16 + 1),
            service: kind,
            on_dead: OnDead::Closed,
            direct: false,
            owners: vec![Owner::Cgroup { id: self.owned[index].id(), level: self.owned[index].level() }],
            listeners,
            in_flight_limit: 0,
            reach: Reach::Routes,
            sockname: SockName::Own,
            filters: vec![redirect_all()],
        });
        self.apply();
    }

    /// Adds a filter of the host's.
    pub fn host_filter(&mut self, matches: Match, action: HostAction) {
        self.policy.filters.push(HostFilter { name: "host".into(), weight: 1, matches, action });
        self.apply();
    }

    /// Puts [`Sandbox::policy`] in force.
    pub fn apply(&mut self) {
        self.generation += 1;
        let image = self.policy.compile(self.generation).expect("a valid policy");
        self.engine.apply(&image).expect("the policy is applied");
    }

    /// Does something as an application.
    pub fn in_app<T>(&self, act: impl FnOnce() -> T) -> T {
        self.ground.within(&self.ground.app, act)
    }

    /// Does something as a service.
    pub fn in_service<T>(&self, index: usize, act: impl FnOnce() -> T) -> T {
        self.ground.within(&self.owned[index], act)
    }

    /// Does something as an application that makes one connection, and returns the decision on it too.
    pub fn decided<T>(&mut self, act: impl FnOnce() -> T) -> (T, Event) {
        self.events();
        let result = self.in_app(act);
        // Events behind one that another processor is still writing come later.
        let mut decisions = self.events_until(|event| event.kind == EVENT_CONNECT);
        decisions.extend(self.events());
        decisions.retain(|event| event.kind == EVENT_CONNECT);
        let [decision] = decisions[..] else { panic!("there was one connect(), and these decisions: {decisions:#?}") };
        (result, decision)
    }

    /// An application's connection and the socket with which a service has accepted it.
    pub fn arrive(&self, service: &Service, destination: SocketAddr) -> (TcpStream, TcpStream) {
        let client = self.in_app(|| crate::sockets::connect(destination)).expect("connect");
        let family = usize::from(destination.is_ipv6()).min(service.listeners.len() - 1);
        let accepted = crate::sockets::accept(&service.listeners[family]);
        (client, accepted)
    }

    /// Has a command run as an application.
    pub fn app_command(&self, program: &str) -> Command {
        enter(&self.ground.app, program)
    }

    /// Has a command run as a service.
    pub fn service_command(&self, index: usize, program: &str) -> Command {
        enter(&self.owned[index], program)
    }

    /// The app's cgroup.
    pub fn app_cgroup(&self) -> &Cgroup {
        &self.ground.app
    }

    /// A service's cgroup.
    pub fn service_cgroup(&self, index: usize) -> &Cgroup {
        &self.owned[index]
    }

    /// Its cgroups.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Where cgroup2 is mounted.
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.ground.hierarchy
    }

    /// All events until now.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while self.reader.poll(Duration::ZERO, &mut |event| events.push(*event)).expect("events are readable") > 0 {}
        events
    }

    /// Events until one is `wanted`, that one included. Panics after [`crate::sockets::PATIENCE`].
    pub fn events_until(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let end = Instant::now() + crate::sockets::PATIENCE;
        let mut events = Vec::new();
        while !events.iter().any(&wanted) {
            assert!(Instant::now() < end, "the event did not come; these did: {events:#?}");
            self.reader.poll(Duration::from_millis(20), &mut |event| events.push(*event)).expect("events are readable");
        }
        events
    }

    /// Ends the engine. The cgroups stay, with all that is in them.
    pub fn leave(self) -> Ground {
        self.ground
    }
}

/// A filter that redirects everything and gives no context.
pub fn redirect_all() -> Filter {
    Filter {
        name: "all".into(),
        weight: 1,
        matches: Match::default(),
        action: Action::Redirect { context: Vec::new() },
    }
}

/// How one reaches a listener bound to this address.
fn dialled(bound: SocketAddr) -> SocketAddr {
    match bound {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => ([0, 0, 0, 0, 0, 0, 0, 1], v6.port()).into(),
        other => other,
    }
}

/// A shell joins the cgroup and becomes the program, so that its every socket is made there.
pub fn enter(cgroup: &Cgroup, program: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(cgroup.path().join("cgroup.procs")).arg(program);
    command
}
