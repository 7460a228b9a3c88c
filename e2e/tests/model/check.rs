//! Steps in both worlds, and the first difference.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use carnet_abi::{self as abi, Event, Flow, Hop, Origin, Records, flow_id};
use carnet_e2e::actor::{Family, Reply};
use carnet_e2e::sockets::canonical;
use zerocopy::FromBytes;

use crate::model::{self, Answer, KERNELS_OWN, Model, SockId, Told};
use crate::op::{self, Op, Role};
use crate::seen::Seen;
use crate::world::World;

/// Where model and kernel part.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Index of the step, counted with the opening; past the end: what is left when everything is closed.
    pub step: usize,
    pub what: String,
}

/// Which of the kernel's numbers the model's are.
#[derive(Default)]
struct Known {
    cookies: HashMap<SockId, u64>,
    flows: HashMap<u32, u128>,
}

type Verdict = Result<(), String>;

/// Runs the opening, the steps and the closing of everything. `None`: no difference.
pub fn run(world: &mut World, ops: &[Op]) -> Option<Difference> {
    world.reset();
    let mut model = Model::new(&world.base);
    let mut known = Known::default();
    let opening = op::opening();
    let closing = (0..op::SLOTS).map(|slot| Op::Close { slot });
    // The model's first policy is the one that is in force.
    model.step(&Op::Policy { variant: 0 });
    let steps: Vec<Op> = opening.iter().chain(ops).copied().chain(closing).collect();
    for (step, op) in steps.iter().enumerate() {
        if let Err(what) = take(world, &mut model, &mut known, op) {
            return Some(Difference { step: step.wrapping_sub(opening.len()), what });
        }
    }
    let left = until(|| nothing_left(world));
    left.err().map(|what| Difference { step: ops.len(), what })
}

fn take(world: &mut World, model: &mut Model, known: &mut Known, op: &Op) -> Verdict {
    let id = op.slot().and_then(|slot| model.at(slot));
    let (answer, told) = model.step(op);
    if answer == Answer::Nothing {
        return Ok(());
    }
    let made = match answer {
        Answer::Made(id) => Some(id),
        _ => None,
    };
    world.seen.extend(Seen::in_answer(op, &answer));
    world.seen.extend(told.iter().map(Seen::in_event));
    let reply = world.step(op, id, made);
    if let Some((made, real)) = made.and_then(|id| Some((id, world.socks.get(&id)?))) {
        same("the accepted socket's cookie", *known.cookies.entry(made).or_insert(real.cookie), real.cookie)?;
    }
    let actual = answered(world, model, known, op, id, &answer, &reply);
    actual.map_err(|what| format!("{what}\n  the model: {answer:?}\n  the kernel: {}", Short(&reply)))?;
    settle(world, model)?;
    hear(world, known, told, &reply)
}

/// Is the reply what the model says?
fn answered(
    world: &World,
    model: &Model,
    known: &mut Known,
    op: &Op,
    id: Option<SockId>,
    answer: &Answer,
    reply: &Reply,
) -> Verdict {
    let error = match answer {
        Answer::Error(KERNELS_OWN) => {
            let Op::OriginalDst { v6, length, .. } = *op else { return Err("no own answer is known".into()) };
            world.kernels_original(model.socks[id.expect("a socket")].family, v6, length)
        }
        Answer::Error(error) => *error,
        _ => 0,
    };
    same("errno", error, reply.error)?;
    match answer {
        Answer::Nothing | Answer::Error(_) | Answer::Made(_) => Ok(()),
        Answer::Count(count) => same("bytes", *count, reply.bytes.len()),
        Answer::Context(bytes) => same("context", &bytes[..], &reply.bytes[..]),
        Answer::State(state) => same("state", &state.to_ne_bytes()[..], &reply.bytes[..]),
        Answer::Name(name) => same("name", Some(*name), reply.name),
        Answer::NameOf(peer) => same("name", world.names.get(peer).copied().map(canonical), reply.name.map(canonical)),
        Answer::Original(remote, length) => {
            let address = socket2::SockAddr::from(*remote);
            let mut bytes = sockaddr(&address);
            bytes.resize(*length, 0);
            same("address", &bytes[..], &reply.bytes[..])
        }
        Answer::Records(record) => {
            let blob = Records::read_from_bytes(&reply.bytes).map_err(|_| "not the size of a record".to_owned())?;
            same("engine", world.sandbox.engine.id(), blob.engine)?;
            same_record(world, known, record, &blob)
        }
        Answer::Flow(record, remote, length) => {
            same("length", *length, reply.bytes.len())?;
            let mut bytes = reply.bytes.clone();
            bytes.resize(size_of::<Flow>(), 0);
            let flow = Flow::read_from_bytes(&bytes).map_err(|_| "no flow".to_owned())?;
            if *length < size_of::<Flow>() {
                return same("depth", record.chain.len() as u32, flow.depth);
            }
            same("remote", *remote, flow.remote.to_socket_addr())?;
            same_flow(known, record.flow, flow.flow)?;
            same_origin(world, &record.origin, &flow.origin)?;
            same_chain(&record.chain, flow.depth, &flow.chain)
        }
    }
}

/// Waits until TCP is where the model says.
fn settle(world: &World, model: &Model) -> Verdict {
    until(|| {
        for id in model.slots.iter().flatten() {
            let (expected, actual) = (model.tcp_state(*id), world.tcp_state(*id));
            same(&format!("TCP state of socket {id}"), expected, actual)?;
        }
        Ok(())
    })
}

/// Waits for the events that the model has told, and takes no others.
fn hear(world: &mut World, known: &mut Known, mut told: Vec<Told>, reply: &Reply) -> Verdict {
    let end = Instant::now() + PATIENCE;
    loop {
        for event in world.events() {
            let at = told.iter().position(|told| is_about(known, told, &event));
            let at =
                at.ok_or_else(|| format!("an event that the model has not: {}\n  it has: {told:#?}", Short(&event)))?;
            let expected = told.remove(at);
            let same = same_event(world, known, &expected, &event, reply);
            same.map_err(|what| format!("{what}\n  the model: {expected:#?}\n  the kernel: {}", Short(&event)))?;
        }
        if told.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("events that did not come: {told:#?}"));
        }
        thread::sleep(Duration::from_micros(200));
    }
}

fn is_about(known: &Known, told: &Told, event: &Event) -> bool {
    let is = |sock: &SockId| known.cookies.get(sock).is_none_or(|cookie| *cookie == event.cookie);
    match told {
        Told::Connect { sock, .. } => event.kind == abi::EVENT_CONNECT && is(sock),
        Told::Set { .. } => event.kind == abi::EVENT_SET,
        Told::End { sock, .. } => event.kind == abi::EVENT_END && is(sock),
        Told::Lost { sock, .. } => event.kind == abi::EVENT_LOST && is(sock),
    }
}

fn same_event(world: &World, known: &mut Known, told: &Told, event: &Event, reply: &Reply) -> Verdict {
    match told {
        Told::Connect { record, remote, verdict, reason, handle, filter, dialer, base, error, .. } => {
            same("verdict", *verdict, event.verdict)?;
            same("reason", *reason, event.reason)?;
            same("handle", *handle, event.handle)?;
            same("filter", *filter, event.filter)?;
            same("dialer", *dialer, event.dialer)?;
            same("base", *base, event.base)?;
            same("error", *error, event.error)?;
            same("remote", *remote, event.remote.to_socket_addr())?;
            same("pid", reply.pid, event.pid)?;
            same("tag, stamp and key", (0, 0, 0), (event.record.tag, event.record.stamp, event.record.key_id))?;
            if event.base == 0 {
                same("the origin's pid", reply.pid, event.record.origin.pid)?;
            }
            same_record(world, known, record, &event.record)
        }
        Told::Set { record, handle, error } => {
            same("handle", *handle, event.handle)?;
            same("error", *error, event.error)?;
            same("pid", reply.pid, event.pid)?;
            match record {
                Some(record) => same_record(world, known, record, &event.record),
                None => same("record", Records::default(), event.record),
            }
        }
        Told::End { record, remote, verdict, handle, dialer, base, how, error, .. } => {
            same("how", *how, event.how)?;
            same("error", *error, event.error)?;
            same("verdict", *verdict, event.verdict)?;
            same("handle", *handle, event.handle)?;
            same("dialer", *dialer, event.dialer)?;
            same("base", *base, event.base)?;
            same("remote", *remote, event.remote.to_socket_addr())?;
            same_record(world, known, record, &event.record)
        }
        Told::Lost { sock, handle } => {
            known.cookies.insert(*sock, event.cookie);
            same("handle", *handle, event.handle)?;
            same("record", Records::default(), event.record)
        }
    }
}

fn same_record(world: &World, known: &mut Known, record: &model::Record, actual: &Records) -> Verdict {
    same_flow(known, record.flow, actual.flow)?;
    same_origin(world, &record.origin, &actual.origin)?;
    same("floor", u32::from(record.floor), actual.floor)?;
    same_chain(&record.chain, actual.depth, &actual.chain)
}

/// The same flow has the same id everywhere, and no other has it.
fn same_flow(known: &mut Known, flow: u32, actual: [u64; 2]) -> Verdict {
    let actual = flow_id(actual);
    if let Some((other, _)) = known.flows.iter().find(|(other, id)| **id == actual && **other != flow) {
        return Err(format!("flow {flow} has the id of flow {other}"));
    }
    same("flow id", *known.flows.entry(flow).or_insert(actual), actual)
}

fn same_origin(world: &World, origin: &model::Origin, actual: &Origin) -> Verdict {
    same("the origin's remote", origin.remote, actual.remote.to_socket_addr())?;
    if origin.by != Role::Outside {
        same("the origin's cgroup", world.cgroup(origin.by), actual.cgroup_id)?;
    }
    let family = if origin.family == Family::V4 { libc::AF_INET } else { libc::AF_INET6 };
    same("the origin's family", family, actual.family.into())?;
    let flags = [
        (origin.inferred, abi::ORIGIN_INFERRED),
        (origin.ambiguous, abi::ORIGIN_AMBIGUOUS),
        (origin.strayed, abi::ORIGIN_STRAYED),
    ];
    let flags = flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag);
    same("the origin's flags", flags, actual.flags)
}

fn same_chain(chain: &[(u32, u32)], depth: u32, actual: &[Hop]) -> Verdict {
    let (used, rest) = actual.split_at((depth as usize).min(actual.len()));
    let used: Vec<_> = used.iter().map(|hop| (hop.handle, hop.filter)).collect();
    same("chain", chain, &used[..])?;
    same("hops after the last", true, rest.iter().all(|hop| *hop == Hop::default()))
}

/// The kernel holds nothing of what is closed.
fn nothing_left(world: &World) -> Verdict {
    let engine = &world.sandbox.engine;
    same("open hand-overs", 0, engine.open_handovers().expect("maps are readable"))?;
    same("open flights", 0, engine.open_flights().expect("maps are readable"))?;
    same("open sockets", 0, engine.open_sockets().expect("maps are readable"))
}

fn same<T: fmt::Debug + PartialEq>(what: &str, expected: T, actual: T) -> Verdict {
    if expected == actual {
        Ok(())
    } else {
        Err(format!("{what}: {expected:?} by the model, {actual:?} by the kernel"))
    }
}

fn until(mut attempt: impl FnMut() -> Verdict) -> Verdict {
    let end = Instant::now() + PATIENCE;
    loop {
        let result = attempt();
        if result.is_ok() || Instant::now() > end {
            return result;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// As the kernel writes it, without what follows the address.
fn sockaddr(address: &socket2::SockAddr) -> Vec<u8> {
    let at = address.as_socket().expect("an IP address");
    let port = at.port().to_be_bytes();
    let family = address.family().to_ne_bytes();
    match at {
        SocketAddr::V4(v4) => [&family[..], &port, &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => [&family[..], &port, &[0; 4], &v6.ip().octets(), &v6.scope_id().to_ne_bytes()].concat(),
    }
}

/// The parts that tell something.
struct Short<T>(T);

impl fmt::Display for Short<&Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reply { error, bytes, name, pid } = self.0;
        write!(f, "errno {error}, {} bytes, name {name:?}, process {pid}", bytes.len())
    }
}

impl fmt::Display for Short<&Event> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        let chain: Vec<_> =
            event.record.chain[..event.record.depth.min(16) as usize].iter().map(|hop| hop.handle).collect();
        write!(
            f,
            "kind {}, cookie {}, flow {}, chain {chain:?}, remote {}, verdict {}, reason {}, handle {}, filter {}, \
             dialer {}, base {}, error {}, how {}",
            event.kind,
            event.cookie,
            event.record.flow[0],
            event.remote.to_socket_addr(),
            event.verdict,
            event.reason,
            event.handle,
            event.filter,
            event.dialer,
            event.base,
            event.error,
            event.how
        )
    }
}

const PATIENCE: Duration = Duration::from_secs(2);
