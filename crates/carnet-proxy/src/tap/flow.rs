use std::{
    fmt::Write,
    mem,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use super::{
    packet::Ends,
    pcapng::up_to,
    queue::{Event, Kind, Queue},
};
use crate::Side;

/// What a file says of a flow, besides what passed.
#[derive(Clone, Copy, Debug)]
pub struct FlowInfo<'a> {
    /// Its id ([`carnet::Flow::id`]).
    pub id: u128,
    /// Where the application's connection came from ([`carnet::Origin::source`]).
    pub source: SocketAddr,
    /// Where the application was going.
    pub destination: SocketAddr,
    /// Its name, where it is known from the beginning. Else [`TapFlow::name`].
    pub name: Option<&'a str>,
    /// The application's process.
    pub pid: u32,
    /// What that calls itself.
    pub comm: &'a str,
    /// Its executable, where that is known.
    pub exe: Option<&'a Path>,
    /// Its user.
    pub uid: u32,
    /// The services that have had the flow, in order; this one is the last.
    pub services: &'a [&'a str],
}

/// One flow on its way into the file.
///
/// No function waits for the file. Each copies what it is given, or, where the queue is full, counts it as lost. Calls
/// are to be in the order of events: from one task, say from the relay's observers.
///
/// Dropped before its end, the flow is reset in the file: so are its connections, where a relay does not come to its end.
#[derive(Debug)]
pub struct TapFlow {
    queue: Arc<Queue>,
    ends: Ends,
    /// Nobody holds it for longer than it takes to copy 64 KiB.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    client: Way,
    server: Way,
    /// Comments of the first packet, until that is in the queue.
    opening: Option<Vec<String>>,
    /// A name that no packet has told yet.
    name: Option<String>,
    is_over: bool,
}

/// One direction.
#[derive(Debug)]
struct Way {
    /// Sequence number of the SYN, which counts like a byte.
    first: u32,
    /// Sequence number of what comes next.
    next: u32,
    /// Bytes which the queue had no room for since the last packet that is in it.
    lost: u64,
    is_closed: bool,
}

impl TapFlow {
    pub(super) fn new(queue: Arc<Queue>, info: &FlowInfo<'_>, number: u32) -> Self {
        // Two flows may follow each other on the same ports. Other first numbers tell them apart.
        let first = number.wrapping_mul(SPREAD);
        let way = |first: u32| Way { first, next: first.wrapping_add(1), lost: 0, is_closed: false };
        let state = State {
            client: way(first),
            server: way(!first),
            opening: Some(comments(info)),
            name: None,
            is_over: false,
        };
        let flow = Self { queue, ends: Ends::new(info.source, info.destination), state: Mutex::new(state) };
        flow.with(|state| {
            state.open(&flow);
        });
        flow
    }

    /// The client sent this; nothing, where it is empty.
    pub fn client_sent(&self, bytes: &[u8]) {
        self.sent(Side::Client, bytes);
    }

    /// The server sent this; nothing, where it is empty.
    pub fn server_sent(&self, bytes: &[u8]) {
        self.sent(Side::Server, bytes);
    }

    /// The flow has this name. It stands with the packet that comes next: call this before
    /// [`client_sent`](Self::client_sent) with the bytes that told it.
    pub fn name(&self, name: &str) {
        self.with(|state| state.name = Some(name_comment(name)));
    }

    /// The client sends no more (FIN).
    pub fn client_closed(&self) {
        self.with(|state| state.close(self, Side::Client));
    }

    /// The server sends no more (FIN).
    pub fn server_closed(&self) {
        self.with(|state| state.close(self, Side::Server));
    }

    /// The connection of this side broke (RST). The flow has ended.
    pub fn reset(&self, by: Side) {
        self.with(|state| state.reset(self, by, None));
    }

    fn sent(&self, from: Side, bytes: &[u8]) {
        if self.queue.is_stopped() {
            return;
        }
        for piece in bytes.chunks(PIECE) {
            self.with(|state| state.send(self, from, piece));
        }
    }

    fn with(&self, act: impl FnOnce(&mut State)) {
        if !self.queue.is_stopped() {
            act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for TapFlow {
    fn drop(&mut self) {
        self.with(|state| state.reset(self, Side::Server, Some("the service gave this flow up")));
    }
}

impl State {
    /// Whether the file has the flow's beginning, or gets it.
    fn open(&mut self, flow: &TapFlow) -> bool {
        let Some(comments) = &self.opening else { return true };
        let event = Event {
            sequence: self.client.first,
            acknowledged: self.server.first,
            comments: comments.clone(),
            ..self.event(flow, Side::Client, Kind::Opened)
        };
        let opened = flow.queue.push(event).is_ok();
        if opened {
            self.opening = None;
        }
        opened
    }

    fn send(&mut self, flow: &TapFlow, from: Side, bytes: &[u8]) {
        if self.is_over || self.way(from).is_closed {
            return;
        }
        let pushed = self.open(flow) && {
            let comments = self.comments_of_next(from);
            let event = Event { comments, ..self.event(flow, from, Kind::Sent(Vec::new())) };
            flow.queue.push_sent(event, bytes).is_ok()
        };
        let way = self.way(from);
        way.next = way.next.wrapping_add(bytes.len() as u32);
        if pushed {
            self.told(from);
        } else {
            way.lost += bytes.len() as u64;
        }
    }

    fn close(&mut self, flow: &TapFlow, from: Side) {
        if self.is_over || mem::replace(&mut self.way(from).is_closed, true) {
            return;
        }
        self.end(flow, from, Kind::Closed, None);
        let way = self.way(from);
        way.next = way.next.wrapping_add(1); // a FIN, like a SYN
        self.is_over = self.client.is_closed && self.server.is_closed;
    }

    fn reset(&mut self, flow: &TapFlow, by: Side, comment: Option<&str>) {
        if !mem::replace(&mut self.is_over, true) {
            self.end(flow, by, Kind::Reset, comment);
        }
    }

    fn end(&mut self, flow: &TapFlow, from: Side, kind: Kind, comment: Option<&str>) {
        if !self.open(flow) {
            return;
        }
        let mut event = self.event(flow, from, kind);
        event.comments = self.comments_of_next(from);
        event.comments.extend(comment.map(str::to_owned));
        if flow.queue.push(event).is_ok() {
            self.told(from);
        }
    }

    fn event(&self, flow: &TapFlow, from: Side, kind: Kind) -> Event {
        let (sequence, acknowledged) = match from {
            Side::Client => (self.client.next, self.server.next),
            Side::Server => (self.server.next, self.client.next),
        };
        let time = SystemTime::now();
        Event { ends: flow.ends, time, kind, from, sequence, acknowledged, comments: Vec::new() }
    }

    fn comments_of_next(&mut self, from: Side) -> Vec<String> {
        let mut comments = Vec::from_iter(self.name.clone());
        let lost = self.way(from).lost;
        if lost > 0 {
            comments.push(format!("{lost} bytes before this are not in the file: the tap's queue was full"));
        }
        comments
    }

    /// The comments of the next packet are on their way.
    fn told(&mut self, from: Side) {
        self.name = None;
        self.way(from).lost = 0;
    }

    fn way(&mut self, from: Side) -> &mut Way {
        match from {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

fn comments(info: &FlowInfo<'_>) -> Vec<String> {
    let FlowInfo { id, source, destination, name, pid, comm, exe, uid, services } = info;
    let mut process = format!("process {}, pid {pid}, uid {uid}", printable(comm));
    if let Some(exe) = exe {
        // Cannot fail.
        let _ = write!(process, ", exe {}", printable(&exe.to_string_lossy()));
    }
    let services = services.iter().map(|service| printable(service)).collect::<Vec<_>>().join(" > ");
    let flow = format!("flow {id:032x}, from {source} to {destination}");
    [flow, process, format!("services {services}")].into_iter().chain(name.map(name_comment)).collect()
}

fn name_comment(name: &str) -> String {
    format!("name {}", printable(up_to(name, NAME_MAX)))
}

/// Processes and clients choose their names: no line may end in them.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut printable, char| {
        match char.is_control() {
            true => printable.extend(char.escape_default()),
            false => printable.push(char),
        }
        printable
    })
}

/// Most bytes that get into the queue, or do not, together.
const PIECE: usize = 64 << 10;

/// The longest name there is in DNS has 253 bytes.
const NAME_MAX: usize = 256;

/// Odd, so that no two of 2^32 numbers become the same.
const SPREAD: u32 = 0x9E37_79B1;
