//! From the kernel's events, each about one connection, to flows: one application connection over all its hops.
//!
//! Events come in, in the order in which they happened, and names which services read; finished flows come out. Pure:
//! no clock, no files.

mod flow;
mod recent;
mod uninspected;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use carnet_abi::{self as abi, Event, flow_id};

pub use self::flow::{Bytes, Decision, End, Flow, Link, Name, Place, Protocol};
use self::recent::Recent;
use self::uninspected::Uninspected;
pub use self::uninspected::{SocketKind, UnseenSocket};

/// What comes out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// A flow is over.
    Flow(Box<Flow>),
    /// A socket was made that cannot be inspected. Said once for each kind and program.
    Socket(Box<UnseenSocket>),
    /// Something that people should know. Said once for each kind and service.
    Warning(String),
}

/// A service, as far as the log needs to know it.
#[derive(Clone, Debug)]
pub struct Known {
    /// For people.
    pub name: String,
    /// It does not carry records, or is not known to.
    pub unaware: bool,
}

/// Joins events to flows.
#[derive(Debug)]
pub struct Joiner {
    /// By handle.
    services: HashMap<u32, Known>,
    open: HashMap<u128, OpenFlow>,
    /// Of some of them more will be told: subflows outlive the socket that the application has closed.
    ended: Recent<u128>,
    /// Names of flows whose events have not been seen yet.
    early_names: HashMap<u128, Name>,
    warned: HashSet<(u16, u32, i32)>,
    uninspected: Uninspected,
}

#[derive(Debug)]
struct OpenFlow {
    flow: Flow,
    last: Option<LastHop>,
}

/// The newest connection that a service made for the flow, at the greatest depth.
#[derive(Debug)]
struct LastHop {
    base: u32,
    to: Place,
    end: Option<End>,
}

impl Joiner {
    /// `services` are by their handles.
    pub fn new(services: HashMap<u32, Known>) -> Self {
        Self {
            services,
            open: HashMap::new(),
            ended: Recent::new(ENDED),
            early_names: HashMap::new(),
            warned: HashSet::new(),
            uninspected: Uninspected::default(),
        }
    }

    /// Other services from now on. Those that are gone keep their names in what has been told of them.
    pub fn know(&mut self, services: HashMap<u32, Known>) {
        if self.services.len() > MOST_KNOWN {
            self.services.clear();
            self.warned.clear();
        }
        self.services.extend(services);
    }

    /// How many flows are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The open ones as far as they have come, oldest first.
    pub fn open_flows(&self) -> Vec<Flow> {
        let mut flows: Vec<_> = self.open.values().map(|open| open.flow.clone()).collect();
        flows.sort_by_key(|flow| (flow.begun, flow.id));
        flows
    }

    /// How many of them each service has or had.
    pub fn open_by_service(&self) -> HashMap<String, u64> {
        let mut counts = HashMap::new();
        for link in self.open.values().flat_map(|open| &open.flow.chain) {
            *counts.entry(link.service.clone()).or_default() += 1;
        }
        counts
    }

    /// A service has read the name of a flow's destination. The first one counts.
    pub fn name(&mut self, id: u128, name: Name) {
        if let Some(open) = self.open.get_mut(&id) {
            open.flow.name.get_or_insert(name);
            return;
        }
        // A name of a flow that has ended already stays here, so this must not grow.
        if self.early_names.len() >= MOST_EARLY_NAMES {
            self.early_names.clear();
        }
        self.early_names.entry(id).or_insert(name);
    }

    /// The next event.
    pub fn event(&mut self, event: &Event) -> Option<Output> {
        match event.kind {
            abi::EVENT_CONNECT if matches!(event.reason, abi::REASON_KERNEL | abi::REASON_OTHER_ENGINE) => {
                self.not_ours(event)
            }
            abi::EVENT_CONNECT if event.base == 0 => self.begin(event),
            abi::EVENT_CONNECT => self.next_hop(event),
            abi::EVENT_END if event.base == 0 => Some(self.end(event)),
            abi::EVENT_END => self.hop_end(event),
            abi::EVENT_SET if event.error != 0 => {
                self.warn(event, format!("carnet refused to take a record from process {}", event.pid))
            }
            abi::EVENT_LOST => {
                let service = self.service(event.handle);
                self.warn(
                    event,
                    format!(
                        "{service} accepted a connection that did not come through carnet, or whose record is lost"
                    ),
                )
            }
            abi::EVENT_STRANGER => {
                let service = self.service(event.handle);
                self.warn(event, format!("a process that is not {service} took its port; the connection was cut off"))
            }
            abi::EVENT_DATAGRAM => self.datagram(event),
            abi::EVENT_SOCKET => self.uninspected.socket(event).map(|socket| Output::Socket(socket.into())),
            _ => None,
        }
    }

    /// The flows that are still open, oldest first.
    pub fn finish(&mut self) -> Vec<Flow> {
        let flows = self.open_flows();
        self.open.clear();
        flows
    }

    fn begin(&mut self, event: &Event) -> Option<Output> {
        let mut flow = self.flow(event);
        if event.verdict == abi::VERDICT_REFUSE {
            flow.decision = Decision::Refused;
            flow.end = self.refusal(event);
            return Some(Output::Flow(flow.into()));
        }
        flow.decision = match (event.verdict, event.reason) {
            (abi::VERDICT_PASS, abi::REASON_RULE | abi::REASON_DEFAULT | abi::REASON_DEAD) => Decision::Direct,
            (abi::VERDICT_PASS, reason) => Decision::LeftAlone(reason),
            _ => Decision::Redirected,
        };
        self.open.insert(flow.id, OpenFlow { flow, last: None });
        None
    }

    /// The kernel's own, or another engine's. Its end is not told. A further subflow of an MPTCP connection is part of that
    /// connection's flow.
    fn not_ours(&mut self, event: &Event) -> Option<Output> {
        let id = flow_id(event.record.flow);
        if self.open.contains_key(&id) || self.ended.contains(&id) {
            return None;
        }
        let decision = Decision::LeftAlone(event.reason);
        Some(Output::Flow(Flow { bytes: None, decision, end: End::Untold, ..self.flow(event) }.into()))
    }

    fn datagram(&mut self, event: &Event) -> Option<Output> {
        if !self.uninspected.is_new_destination(event) {
            return None;
        }
        let mut flow = Flow { protocol: Protocol::Udp, bytes: None, ..self.flow(event) };
        (flow.decision, flow.end) = match event.verdict {
            abi::VERDICT_REFUSE => (Decision::Refused, self.refusal(event)),
            _ => (Decision::NotInspected, End::Untold),
        };
        Some(Output::Flow(flow.into()))
    }

    fn next_hop(&mut self, event: &Event) -> Option<Output> {
        let chain = self.chain(event);
        let to = self.place(event);
        let end = (event.verdict == abi::VERDICT_REFUSE).then(|| self.refusal(event));
        let unaware = self.known(event.dialer).is_some_and(|dialer| dialer.unaware);
        let open = self.open.get_mut(&flow_id(event.record.flow))?;
        if chain.len() >= open.flow.chain.len() {
            // What earlier events said about who inferred stays true.
            let known = std::mem::replace(&mut open.flow.chain, chain);
            for (link, known) in open.flow.chain.iter_mut().zip(known) {
                link.inferred |= known.inferred;
            }
        }
        // The flag stays in the record at later hops, but nothing is inferred for services that carry records.
        if event.record.origin.flags & abi::ORIGIN_INFERRED != 0
            && unaware
            && let Some(dialer) = open.flow.chain.get_mut(event.base as usize - 1)
        {
            dialer.inferred = true;
        }
        if open.last.as_ref().is_none_or(|last| last.base <= event.base) {
            open.last = Some(LastHop { base: event.base, to, end });
        }
        None
    }

    fn hop_end(&mut self, event: &Event) -> Option<Output> {
        let open = self.open.get_mut(&flow_id(event.record.flow))?;
        let last = open.last.as_mut().filter(|last| last.base == event.base)?;
        last.end = Some(end_of(event, last.to.clone()));
        None
    }

    fn end(&mut self, event: &Event) -> Output {
        let id = flow_id(event.record.flow);
        // Without its beginning (an event was lost) the end alone tells nearly everything.
        let mut open = match self.open.remove(&id) {
            Some(open) => open,
            None => OpenFlow { flow: self.flow(event), last: None },
        };
        self.early_names.remove(&id);
        // 0 is the id of all flows that there was no memory for.
        if id != 0 {
            self.ended.insert(id);
        }
        let flow = &mut open.flow;
        if event.record.origin.local != abi::Address::default() {
            flow.source = Some(event.record.origin.local.to_socket_addr());
        } else if event.local.port != 0 {
            flow.source = Some(event.local.to_socket_addr());
        }
        flow.bytes = Some(Bytes { sent: event.sent, received: event.received });
        flow.duration = Some(Duration::from_nanos(event.duration));
        let first = match flow.chain.first() {
            Some(link) => Place::Service(link.service.clone()),
            None => Place::Destination,
        };
        let own = end_of(event, first);
        // What the application saw is the last service's doing; what happened to that service's connection is the cause.
        flow.end = match (own, open.last.and_then(|last| last.end)) {
            (End::Aborted, _) => End::Aborted,
            (_, Some(cause @ (End::Failed(..) | End::Refused { .. }))) => cause,
            (End::Reset(..), Some(cause @ End::Reset(..))) => cause,
            (own, _) => own,
        };
        Output::Flow(open.flow.into())
    }

    fn flow(&mut self, event: &Event) -> Flow {
        let origin = &event.record.origin;
        let id = flow_id(event.record.flow);
        let known = origin.time != 0;
        Flow {
            id,
            protocol: Protocol::Tcp,
            begun: if known { origin.time } else { event.time },
            pid: if known { origin.pid } else { event.pid },
            uid: if known { origin.uid } else { event.uid },
            program: String::from_utf8_lossy(origin.comm()).into_owned(),
            source: None,
            destination: event.remote.to_socket_addr(),
            name: self.early_names.remove(&id),
            bytes: Some(Bytes::default()),
            duration: None,
            decision: match event.verdict {
                abi::VERDICT_PASS => Decision::Direct,
                _ => Decision::Redirected,
            },
            chain: self.chain(event),
            ambiguous: origin.flags & abi::ORIGIN_AMBIGUOUS != 0,
            end: End::Open,
        }
    }

    fn chain(&self, event: &Event) -> Vec<Link> {
        let depth = (event.record.depth as usize).min(abi::MAX_HOPS);
        let hops = event.record.chain[..depth].iter();
        hops.map(|hop| Link { service: self.service(hop.handle), inferred: false }).collect()
    }

    fn place(&self, event: &Event) -> Place {
        match event.verdict {
            abi::VERDICT_REDIRECT | abi::VERDICT_DIRECT => Place::Service(self.service(event.handle)),
            _ => Place::Destination,
        }
    }

    fn refusal(&self, event: &Event) -> End {
        let service = (event.handle != 0).then(|| self.service(event.handle));
        End::Refused { reason: event.reason, service, error: event.error }
    }

    fn service(&self, handle: u32) -> String {
        match self.known(handle) {
            Some(service) => service.name.clone(),
            None => format!("service {handle}"),
        }
    }

    fn known(&self, handle: u32) -> Option<&Known> {
        self.services.get(&handle)
    }

    fn warn(&mut self, event: &Event, mut text: String) -> Option<Output> {
        if event.error != 0 {
            text = format!("{text}: {}", nix::errno::Errno::from_raw(event.error).desc());
        }
        let new = self.warned.insert((event.kind, event.handle, event.error));
        new.then_some(Output::Warning(text))
    }
}

/// How this one connection ended, whose other side is `to`.
fn end_of(event: &Event, to: Place) -> End {
    match event.how {
        abi::HOW_CLOSED => End::Closed,
        abi::HOW_RESET => End::Reset(to, event.error),
        abi::HOW_FAILED => End::Failed(to, event.error),
        _ => End::Aborted,
    }
}

/// More than end while events wait to be read.
const ENDED: usize = 16 * 1024;
const MOST_EARLY_NAMES: usize = 4096;
/// Of a host on which products come and go for months.
const MOST_KNOWN: usize = 8192;

#[cfg(test)]
mod tests;
