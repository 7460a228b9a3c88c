//! The same steps in the running kernel: a sandbox in a network namespace of its own, and a process for each role.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use carnet_abi::{CARNET_CONTEXT, CARNET_FLOW, CARNET_RECORDS, CARNET_STATE, Event, SOL_CARNET};
use carnet_e2e::actor::{Actor, Call, Family, Reply};
use carnet_e2e::netns::ip;
use carnet_e2e::{Sandbox, raw};
use carnet_engine::Options;
use carnet_policy::{Policy, Service as Kind};
use socket2::SockRef;

use crate::model::{SockId, TcpState};
use crate::op::{BLOBS, Damage, Op, Port, Role, SERVICES, destination, listening, source};
use crate::policies;
use crate::seen::Seen;

/// One engine and its actors, for all sequences.
pub struct World {
    pub sandbox: Sandbox,
    /// The sandbox's policy as it was at first.
    pub base: Policy,
    actors: HashMap<Role, Actor>,
    blobs: Vec<Option<Vec<u8>>>,
    /// Which kinds of answers and events there have been.
    pub seen: HashSet<Seen>,
    pub socks: HashMap<SockId, Real>,
    /// Own addresses of those that have connected; kept, because a connection that is over has none.
    pub names: HashMap<SockId, SocketAddr>,
    /// cgroup2 ids.
    cgroups: HashMap<Role, u64>,
}

/// A socket that the test holds.
pub struct Real {
    pub fd: OwnedFd,
    pub cookie: u64,
}

impl World {
    /// In the calling thread's network namespace, which has nothing but a loopback device.
    pub fn new() -> Self {
        // Nothing is acknowledged late, so that what a call brings about is there when it returns.
        ip("route replace table local local 127.0.0.1 dev lo proto kernel scope host src 127.0.0.1 quickack 1");
        ip("route replace table local local 127.0.0.0/8 dev lo proto kernel scope host src 127.0.0.1 quickack 1");
        ip("route replace table local local ::1 dev lo proto kernel metric 0 quickack 1");
        let mut sandbox = Sandbox::with(&Options { for_test: true, ..Options::default() });
        for service in 0..SERVICES {
            let port = Port::Service(service as u8);
            let at: Vec<String> =
                (0..=usize::from(service < 2)).map(|v6| listening(port, v6 == 1).to_string()).collect();
            // Its sockets are made by its actor, at the beginning of each sequence.
            drop(sandbox.service_at(Kind::Aware, &at.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        let program = env!("CARGO_BIN_EXE_carnet-e2e-actor");
        let mut actors = HashMap::from([
            (Role::App, Actor::start(&mut sandbox.app_command(program))),
            (Role::Outside, Actor::start(&mut Command::new(program))),
        ]);
        let mut cgroups = HashMap::from([(Role::App, sandbox.app_cgroup().id())]);
        for (role, service) in [Role::S0, Role::S1, Role::S2].into_iter().zip(0..) {
            actors.insert(role, Actor::start(&mut sandbox.service_command(service, program)));
            cgroups.insert(role, sandbox.service_cgroup(service).id());
        }
        let base = sandbox.policy.clone();
        let mut world = Self {
            sandbox,
            base,
            actors,
            blobs: Vec::new(),
            seen: HashSet::new(),
            socks: HashMap::new(),
            names: HashMap::new(),
            cgroups,
        };
        world.reset();
        world
    }

    /// Back to where every sequence begins, but for what listens.
    pub fn reset(&mut self) {
        self.socks.clear();
        self.names.clear();
        self.blobs = vec![None; BLOBS.into()];
        self.sandbox.events();
        self.apply(0);
    }

    /// Makes the call. `made` is the number that a new socket gets, `id` that of the socket it is made on.
    pub fn step(&mut self, op: &Op, id: Option<SockId>, made: Option<SockId>) -> Reply {
        let (by, call) = match *op {
            Op::Policy { variant } => {
                self.apply(variant);
                return Reply::default();
            }
            Op::RotateKey => {
                self.sandbox.engine.rotate_key().expect("a new key");
                return Reply::default();
            }
            Op::Close { .. } => {
                self.socks.remove(&id.expect("a socket"));
                return Reply::default();
            }
            _ => self.call(op, id),
        };
        let socket = id.map(|id| self.socks[&id].fd.as_fd());
        // Only an actor that holds nothing of its own can fork: what it makes would be lost with the child.
        let call = if by == Role::Fork && made.is_none() { Call::Fork(Box::new(call)) } else { call };
        let (reply, new) = self.actors[&by.cgroup()].call(&call, socket);
        if let (Some(new), Some(made)) = (new, made) {
            let cookie = SockRef::from(&new).cookie().expect("SO_COOKIE");
            self.socks.insert(made, Real { fd: new, cookie });
        }
        if let (Op::Connect { .. }, Some(id)) = (op, id) {
            let name = SockRef::from(&self.socks[&id].fd).local_addr().expect("a name").as_socket();
            self.names.insert(id, name.expect("a TCP socket's"));
        }
        if let (Op::Records { blob, .. }, 0) = (op, reply.error) {
            self.blobs[usize::from(*blob)] = Some(reply.bytes.clone());
        }
        reply
    }

    /// The kernel's state of a socket.
    pub fn tcp_state(&self, id: SockId) -> TcpState {
        let mut info = [0; 104];
        raw::get(&self.socks[&id].fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info).expect("TCP_INFO");
        match info[0] {
            10 => TcpState::Listening {
                // tcpi_unacked: of a listener, how many wait for accept().
                waiting: u32::from_ne_bytes([info[24], info[25], info[26], info[27]]) as usize,
            },
            1 => TcpState::Established,
            5 => TcpState::FinSent,
            8 => TcpState::FinCame,
            7 => TcpState::Closed,
            // On its way to one of these.
            other => TcpState::Listening { waiting: usize::from(other) << 16 },
        }
    }

    pub fn events(&mut self) -> Vec<Event> {
        self.sandbox.events()
    }

    pub fn cgroup(&self, role: Role) -> u64 {
        self.cgroups[&role]
    }

    /// What a new socket that nobody governs is answered to `SO_ORIGINAL_DST`.
    pub fn kernels_original(&self, family: Family, v6: bool, length: u16) -> i32 {
        let outside = &self.actors[&Role::Outside];
        let (_, socket) = outside.call(&Call::Socket(family), None);
        let call = Call::Get(level(v6), SO_ORIGINAL_DST, length.into());
        let (reply, _) = outside.call(&call, socket.as_ref().map(AsFd::as_fd));
        assert_ne!(reply.error, 0, "{family:?}: nothing redirects in a fresh network namespace");
        reply.error
    }

    fn apply(&mut self, variant: u8) {
        self.sandbox.policy = policies::variant(&self.base, variant);
        self.sandbox.apply();
    }

    fn call(&self, op: &Op, id: Option<SockId>) -> (Role, Call) {
        let family = || self.family(id.expect("a socket"));
        let blob = |blob: u8| self.blobs[usize::from(blob)].clone().unwrap_or_default();
        match *op {
            Op::Socket { by, family, .. } => (by, Call::Socket(family)),
            Op::Listen { by, port, v6, .. } => (by, Call::Listen(listening(port, v6))),
            Op::Bind { by, to, .. } => (by, Call::Bind(source(family(), to))),
            Op::Connect { by, ip, port, .. } => (by, Call::Connect(destination(family(), ip, port))),
            Op::Disconnect { by, .. } => (by, Call::Disconnect),
            Op::Accept { by, .. } => (by, Call::Accept),
            Op::Records { by, length, .. } => (by, Call::Get(SOL_CARNET, CARNET_RECORDS, length.into())),
            Op::Flow { by, length, .. } => (by, Call::Get(SOL_CARNET, CARNET_FLOW, length.into())),
            Op::Context { by, length, .. } => (by, Call::Get(SOL_CARNET, CARNET_CONTEXT, length.into())),
            Op::State { by, length, .. } => (by, Call::Get(SOL_CARNET, CARNET_STATE, length.into())),
            Op::OriginalDst { by, v6, length, .. } => (by, Call::Get(level(v6), SO_ORIGINAL_DST, length.into())),
            Op::Set { by, blob: at, damage, .. } => {
                (by, Call::Set(SOL_CARNET, CARNET_RECORDS, damaged(blob(at), damage)))
            }
            Op::PeerName { by, .. } => (by, Call::PeerName),
            Op::Send { by, .. } => (by, Call::Send),
            Op::Receive { by, .. } => (by, Call::Receive),
            Op::Shutdown { by, .. } => (by, Call::Shutdown),
            Op::Close { .. } | Op::RotateKey | Op::Policy { .. } => unreachable!("no call of an actor's"),
        }
    }

    fn family(&self, id: SockId) -> Family {
        let socket = SockRef::from(&self.socks[&id].fd);
        match socket.local_addr().expect("a name").is_ipv4() {
            true => Family::V4,
            false if socket.only_v6().expect("IPV6_V6ONLY") => Family::V6,
            false => Family::Dual,
        }
    }
}

fn damaged(mut blob: Vec<u8>, damage: Damage) -> Vec<u8> {
    match damage {
        Damage::None => {}
        Damage::Bit(bit) => blob[usize::from(bit) / 8] ^= 1 << (bit % 8),
        Damage::Length(length) => blob.resize(length.into(), 0),
    }
    blob
}

fn level(v6: bool) -> i32 {
    if v6 { libc::SOL_IPV6 } else { libc::SOL_IP }
}

const SO_ORIGINAL_DST: i32 = 80;
