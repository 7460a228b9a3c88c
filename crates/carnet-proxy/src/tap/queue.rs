use std::{
    sync::{
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc,
    },
    time::SystemTime,
};

use super::packet::{Ends, SEGMENT_MAX};
use crate::Side;

/// What flows give the writer. Nobody waits to put something in.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<Message>,
    bytes: AtomicUsize,
    bytes_max: usize,
    stopped: AtomicBool,
    packets: AtomicU64,
    lost: AtomicU64,
}

pub(super) enum Message {
    Event(Event),
    /// Answered when everything before it is in the file.
    Flush(mpsc::Sender<()>),
    Close,
}

/// Something that happened to a flow, with all that is needed to write it down.
pub(super) struct Event {
    pub(super) ends: Ends,
    pub(super) time: SystemTime,
    pub(super) kind: Kind,
    pub(super) from: Side,
    /// Where the sender stands.
    pub(super) sequence: u32,
    /// Where the other side stands, as the sender knows.
    pub(super) acknowledged: u32,
    pub(super) comments: Vec<String>,
}

pub(super) enum Kind {
    Opened,
    Sent(Vec<u8>),
    Closed,
    Reset,
}

/// There was no room.
pub(super) struct Full;

impl Queue {
    pub(super) fn new(bytes_max: usize) -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel();
        let queue = Self {
            sender,
            bytes: AtomicUsize::new(0),
            bytes_max,
            stopped: AtomicBool::new(false),
            packets: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        (queue, receiver)
    }

    /// Bytes of a stream, copied only where there is room. One part in eight is kept for beginnings and ends.
    pub(super) fn push_sent(&self, event: Event, bytes: &[u8]) -> Result<(), Full> {
        let limit = self.bytes_max - self.bytes_max / 8;
        self.reserve(cost(bytes.len(), &event.comments), limit, packets_of(bytes.len()))?;
        self.send(Message::Event(Event { kind: Kind::Sent(bytes.to_vec()), ..event }));
        Ok(())
    }

    /// Anything else. What it says of itself is counted too.
    pub(super) fn push(&self, event: Event) -> Result<(), Full> {
        self.reserve(event.cost(), self.bytes_max, event.packets())?;
        self.send(Message::Event(event));
        Ok(())
    }

    /// A message that takes no room, as there are few.
    pub(super) fn send(&self, message: Message) {
        // Only a writer that has ended takes none, and then nothing is wanted any more.
        let _ = self.sender.send(message);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Nothing is to be put in any more: nobody would write it.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Acquire)
    }

    /// Counts packets that were in the queue, and do not get into the file.
    pub(super) fn lose(&self, packets: u64) {
        self.lost.fetch_add(packets, Relaxed);
    }

    /// All packets there were, and those that are not in the file.
    pub(super) fn counts(&self) -> (u64, u64) {
        let lost = self.lost.load(Relaxed);
        (self.packets.load(Relaxed).max(lost), lost)
    }

    fn reserve(&self, cost: usize, limit: usize, packets: u64) -> Result<(), Full> {
        self.packets.fetch_add(packets, Relaxed);
        let taken = self.bytes.fetch_update(Relaxed, Relaxed, |bytes| Some(bytes + cost).filter(|&sum| sum <= limit));
        taken.map(drop).map_err(|_| {
            self.lose(packets);
            Full
        })
    }
}

impl Event {
    /// Bytes of memory, or a little more.
    pub(super) fn cost(&self) -> usize {
        cost(self.payload().len(), &self.comments)
    }

    pub(super) fn payload(&self) -> &[u8] {
        match &self.kind {
            Kind::Sent(bytes) => bytes,
            _ => &[],
        }
    }

    /// In how many packets it is written down.
    pub(super) fn packets(&self) -> u64 {
        match &self.kind {
            Kind::Opened => 3,
            Kind::Sent(bytes) => packets_of(bytes.len()),
            Kind::Closed => 2,
            Kind::Reset => 1,
        }
    }
}

fn cost(bytes: usize, comments: &[String]) -> usize {
    EVENT_COST + bytes + comments.iter().map(|comment| size_of::<String>() + comment.len()).sum::<usize>()
}

/// The last one acknowledges.
fn packets_of(bytes: usize) -> u64 {
    bytes.div_ceil(SEGMENT_MAX) as u64 + 1
}

const EVENT_COST: usize = size_of::<Event>() + 128;
