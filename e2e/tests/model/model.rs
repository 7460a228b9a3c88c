//! The reference: what docs/socket-options.md, docs/events.md and TCP say about each step. Pure; it never sees a kernel.
//!
//! [`Model::step`] takes an [`Op`] and returns what is to come of it. Sockets, flows and keys have numbers of the model's
//! own here; whoever compares finds out which of the kernel's they are.

mod arrive;
mod connect;
mod options;
mod tcp;

pub use options::KERNELS_OWN;
pub use tcp::TcpState;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use carnet_e2e::actor::Family;
use carnet_policy::{FilterRef, Image, Policy};

use crate::op::{BLOBS, Op, Port, Role, SLOTS};
use crate::policies;

/// A socket's number; never used again.
pub type SockId = usize;

/// What is known before any step.
#[derive(Clone)]
pub struct Model {
    base: Policy,
    policy: Policy,
    /// The one that was in force before.
    before: Policy,
    image: Image,
    /// Counts policies; a context outlives its own by one.
    generation: u64,
    /// Counts keys; the newest two are good.
    key: u64,
    flows: u32,
    pub socks: Vec<Sock>,
    pub slots: Vec<Option<SockId>>,
    blobs: Vec<Option<Blob>>,
    conns: Vec<[tcp::End; 2]>,
    flights: Vec<arrive::Flight>,
    /// What the step under way has told so far.
    told: Vec<Told>,
}

#[derive(Clone, Debug)]
pub struct Sock {
    /// In whose cgroup it was made; an accepted one, its listener.
    pub maker: Role,
    pub family: Family,
    pub state: Place,
    /// An explicit address, which stays when a connection is over.
    bound: Option<IpAddr>,
    has_port: bool,
    /// Shut down while it was not connected; the kernel remembers that.
    mute: bool,
    /// It has tried an IPv4 destination, though its family is IPv6.
    was_mapped: bool,
    /// The last connect() would never return.
    hangs: bool,
    /// An error that waits for the next call.
    error: i32,
    /// The record with which it connects.
    carried: Option<Carried>,
    /// The connection that was decided on and is not over.
    decided: Option<Decided>,
    /// What getpeername() says instead of the truth.
    redirected: Option<SocketAddr>,
    /// As a service got it.
    accepted: Accepted,
}

/// Where a socket stands in its life.
#[derive(Clone, Debug)]
pub enum Place {
    Fresh,
    Listening {
        at: SocketAddr,
        queue: VecDeque<SockId>,
    },
    /// One end of a connection, which may be over.
    End {
        conn: usize,
        side: usize,
    },
}

#[derive(Clone, Debug)]
struct Carried {
    record: Record,
    inferred: bool,
    /// With the hop of the connection that it made last.
    now: Record,
}

#[derive(Clone, Debug)]
struct Decided {
    record: Record,
    remote: SocketAddr,
    verdict: u32,
    handle: u32,
    dialer: u32,
    base: u32,
    /// Something was sent, so that the kernel tells of its end.
    sent: bool,
    /// It counts for the runaway guard.
    counted: bool,
}

#[derive(Clone, Debug)]
enum Accepted {
    Not,
    Lost,
    With { record: Record, remote: SocketAddr, context: Option<(u64, Vec<u8>)>, flight: bool, handle: u32 },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    pub flow: u32,
    pub origin: Origin,
    /// Handles and filters' ids.
    pub chain: Vec<(u32, u32)>,
    pub floor: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin {
    /// Whose process, by its cgroup.
    pub by: Role,
    pub remote: SocketAddr,
    pub family: Family,
    pub inferred: bool,
    pub ambiguous: bool,
    /// A service has gone elsewhere with the record.
    pub strayed: bool,
}

#[derive(Clone, Debug)]
struct Blob {
    record: Record,
    key: u64,
}

/// What a call answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The step is left out.
    Nothing,
    /// An errno, 0: success with nothing more to say.
    Error(i32),
    /// Success and a socket.
    Made(SockId),
    /// So many bytes.
    Count(usize),
    Records(Record),
    /// The typed answer, cut after so many bytes.
    Flow(Record, SocketAddr, usize),
    Context(Vec<u8>),
    State(u32),
    /// A `sockaddr`, in a buffer of this length.
    Original(SocketAddr, usize),
    Name(SocketAddr),
    /// The own address of that socket.
    NameOf(SockId),
}

/// An event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Told {
    Connect {
        sock: SockId,
        record: Record,
        remote: SocketAddr,
        verdict: u32,
        reason: u32,
        handle: u32,
        filter: u32,
        dialer: u32,
        base: u32,
        error: i32,
    },
    Set {
        record: Option<Record>,
        handle: u32,
        error: i32,
    },
    End {
        sock: SockId,
        record: Record,
        remote: SocketAddr,
        verdict: u32,
        handle: u32,
        dialer: u32,
        base: u32,
        how: u32,
        error: i32,
    },
    Lost {
        sock: SockId,
        handle: u32,
    },
}

impl Carried {
    fn new(record: &Record, inferred: bool) -> Self {
        Self { record: record.clone(), inferred, now: record.clone() }
    }
}

impl Model {
    pub fn new(base: &Policy) -> Self {
        let policy = policies::variant(base, 0);
        let image = policy.compile(1).expect("a valid policy");
        Self {
            base: base.clone(),
            policy,
            before: Policy::default(),
            image,
            generation: 0,
            key: 0,
            flows: 0,
            socks: Vec::new(),
            slots: vec![None; SLOTS.into()],
            blobs: vec![None; BLOBS.into()],
            conns: Vec::new(),
            flights: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Takes one step. Returns the answer and the events.
    pub fn step(&mut self, op: &Op) -> (Answer, Vec<Told>) {
        let answer = self.answer(op);
        (answer, std::mem::take(&mut self.told))
    }

    /// The socket in a slot.
    pub fn at(&self, slot: u8) -> Option<SockId> {
        self.slots.get(usize::from(slot)).copied().flatten()
    }

    pub fn has_blob(&self, blob: u8) -> bool {
        self.blobs[usize::from(blob)].is_some()
    }

    fn answer(&mut self, op: &Op) -> Answer {
        match *op {
            Op::Socket { by, slot, family } => self.make(slot, |model| model.new_sock(by.cgroup(), family)),
            Op::Listen { by, slot, port, v6 } => self.listen(by.cgroup(), slot, port, v6),
            Op::Policy { variant } => {
                self.generation += 1;
                self.before = std::mem::replace(&mut self.policy, policies::variant(&self.base, variant));
                self.image = self.policy.compile(self.generation).expect("a valid policy");
                Answer::Error(0)
            }
            Op::RotateKey => {
                self.key += 1;
                Answer::Error(0)
            }
            Op::Accept { slot, from, .. } => match self.at(from) {
                Some(listener) if self.at(slot).is_none() => self.accept(listener, slot),
                _ => Answer::Nothing,
            },
            Op::Close { slot } => match self.slots[usize::from(slot)].take() {
                Some(id) => {
                    self.close(id);
                    Answer::Error(0)
                }
                None => Answer::Nothing,
            },
            _ => match op.slot().and_then(|slot| self.at(slot)) {
                Some(id) => self.on_socket(op, id),
                None => Answer::Nothing,
            },
        }
    }

    fn on_socket(&mut self, op: &Op, id: SockId) -> Answer {
        match *op {
            Op::Bind { to, .. } => self.bind(id, to),
            Op::Connect { by, ip, port, .. } => self.connect(by.cgroup(), id, ip, port),
            Op::Disconnect { .. } => self.disconnect(id),
            Op::Records { length, blob, .. } => self.records(id, length.into(), blob),
            Op::Set { by, blob, damage, .. } => self.set(by.cgroup(), id, blob, damage),
            Op::Flow { length, .. } => self.flow(id, length.into()),
            Op::Context { length, .. } => self.context(id, length.into()),
            Op::State { by, length, .. } => self.state(by.cgroup(), id, length.into()),
            Op::OriginalDst { v6, length, .. } => self.original_dst(id, v6, length.into()),
            Op::PeerName { .. } => self.peer_name(id),
            Op::Send { .. } => self.send(id),
            Op::Receive { .. } => self.receive(id),
            Op::Shutdown { .. } => self.shutdown(id),
            _ => Answer::Nothing,
        }
    }

    fn make(&mut self, slot: u8, make: impl FnOnce(&mut Self) -> SockId) -> Answer {
        if self.at(slot).is_some() {
            return Answer::Nothing;
        }
        let id = make(self);
        self.slots[usize::from(slot)] = Some(id);
        Answer::Made(id)
    }

    fn new_sock(&mut self, maker: Role, family: Family) -> SockId {
        self.socks.push(Sock {
            maker,
            family,
            state: Place::Fresh,
            bound: None,
            has_port: false,
            mute: false,
            was_mapped: false,
            hangs: false,
            error: 0,
            carried: None,
            decided: None,
            redirected: None,
            accepted: Accepted::Not,
        });
        self.socks.len() - 1
    }

    fn listen(&mut self, by: Role, slot: u8, port: Port, v6: bool) -> Answer {
        let at = crate::op::listening(port, v6);
        if self.at(slot).is_some() {
            return Answer::Nothing;
        }
        if self.listener(at).is_some() {
            return Answer::Error(libc::EADDRINUSE);
        }
        self.make(slot, |model| {
            let id = model.new_sock(by, if v6 { Family::V6 } else { Family::V4 });
            let sock = &mut model.socks[id];
            sock.state = Place::Listening { at, queue: VecDeque::new() };
            (sock.bound, sock.has_port) = (Some(at.ip()), true);
            id
        })
    }

    fn accept(&mut self, listener: SockId, slot: u8) -> Answer {
        match &mut self.socks[listener].state {
            Place::Listening { queue, .. } => match queue.pop_front() {
                Some(child) => {
                    self.slots[usize::from(slot)] = Some(child);
                    Answer::Made(child)
                }
                None => Answer::Error(libc::EAGAIN),
            },
            _ => Answer::Error(libc::EINVAL),
        }
    }

    /// Who listens at this very address.
    fn listener(&self, address: SocketAddr) -> Option<SockId> {
        self.slots
            .iter()
            .flatten()
            .copied()
            .find(|&id| matches!(&self.socks[id].state, Place::Listening { at, .. } if *at == address))
    }

    /// Positions of the providers that own what is made in this role's cgroup.
    fn owned_by(&self, role: Role) -> Vec<usize> {
        let Some(service) = role.service() else { return Vec::new() };
        let owner = &self.base.providers[service].owners;
        (0..self.policy.providers.len()).filter(|&at| self.policy.providers[at].owners == *owner).collect()
    }

    /// The one that counts where there are several: the last in the order.
    fn highest(&self, owners: &[usize]) -> Option<usize> {
        owners.iter().copied().max_by_key(|&at| self.policy.providers[at].rank)
    }

    /// Whether what is made in this role's cgroup is the provider's with this handle: by the policy in force, or where that
    /// has no such provider, by the one before.
    fn is_newest(&self, role: Role, handle: u32) -> bool {
        let Some(service) = role.service() else { return false };
        let owner = &self.base.providers[service].owners;
        let with_handle = |policy: &'_ Policy| {
            let provider = policy.providers.iter().find(|provider| provider.handle == handle);
            provider.map(|provider| provider.owners == *owner)
        };
        with_handle(&self.policy).or_else(|| with_handle(&self.before)).unwrap_or_default()
    }

    fn provider_with(&self, handle: u32) -> Option<usize> {
        self.policy.providers.iter().position(|provider| provider.handle == handle)
    }

    fn filter_id(&self, filter: Option<FilterRef>) -> u32 {
        let at = filter.and_then(|filter| self.image.filters.iter().position(|other| *other == filter));
        at.map_or(0, |at| at as u32 + 1)
    }
}
