use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    sync::{Arc, mpsc},
    time::SystemTime,
};

use super::{
    Stopped,
    packet::{SEGMENT_MAX, Segment},
    pcapng::{self, STATISTICS_MAX},
    queue::{Event, Kind, Message, Queue},
};
use crate::Side;

/// The thread that writes the file. Whole blocks only, so that whoever reads meanwhile gets whole packets.
pub(super) struct Writer<T> {
    file: File,
    queue: Arc<Queue>,
    /// Whom to tell, once, that the file ended before the tap.
    told: Option<T>,
    /// Blocks that are not in the file yet.
    blocks: Vec<u8>,
    packets_in_blocks: u64,
    packet: Vec<u8>,
    /// Bytes of whole blocks in the file.
    written: u64,
    limit: u64,
    /// As the newest statistics in the file say.
    lost_said: u64,
}

impl<T: FnOnce(Stopped)> Writer<T> {
    /// Writes what a file begins with.
    pub(super) fn new(file: File, queue: Arc<Queue>, limit: Option<u64>, told: T) -> io::Result<Self> {
        let limit = limit.unwrap_or(u64::MAX);
        let (blocks, packet) = (Vec::with_capacity(BLOCKS), Vec::with_capacity(SEGMENT_MAX + 100));
        let mut writer = Self {
            file,
            queue,
            told: Some(told),
            blocks,
            packets_in_blocks: 0,
            packet,
            written: 0,
            limit,
            lost_said: 0,
        };
        pcapng::header(&mut writer.blocks);
        writer.write_blocks()?;
        Ok(writer)
    }

    pub(super) fn run(mut self, messages: &mpsc::Receiver<Message>) {
        loop {
            let message = match messages.try_recv() {
                Ok(message) => message,
                Err(_) => {
                    self.catch_up();
                    match messages.recv() {
                        Ok(message) => message,
                        Err(_) => break,
                    }
                }
            };
            match message {
                Message::Event(event) => {
                    let cost = event.cost();
                    self.write(event);
                    self.queue.release(cost);
                }
                Message::Flush(done) => {
                    self.catch_up();
                    let _ = done.send(()); // whoever asked may have gone
                }
                Message::Close => break,
            }
        }
        self.finish();
    }

    fn write(&mut self, event: Event) {
        if self.queue.is_stopped() {
            return self.queue.lose(event.packets());
        }
        let room = self.limit.saturating_sub(self.written + STATISTICS_MAX);
        if self.blocks.len() as u64 + bytes_at_most(&event) > room {
            self.queue.lose(event.packets());
            return self.stop(Stopped::Limit { bytes: self.limit });
        }
        self.append(&event);
        self.packets_in_blocks += event.packets();
        if self.blocks.len() >= BLOCKS {
            self.write_or_stop();
        }
    }

    fn append(&mut self, event: &Event) {
        let Event { from, sequence, acknowledged, .. } = *event;
        let comments = &event.comments[..];
        let other = match from {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        let plain = Segment { sequence, acknowledged: Some(acknowledged), ..Segment::default() };
        let answer = |length: u32| {
            let acknowledged = Some(sequence.wrapping_add(length));
            Segment { sequence: event.acknowledged, acknowledged, ..Segment::default() }
        };
        match &event.kind {
            Kind::Opened => {
                self.packet(event, from, Segment { acknowledged: None, syn: true, ..plain }, &[], comments);
                self.packet(event, other, Segment { syn: true, ..answer(1) }, &[], &[]);
                let next = sequence.wrapping_add(1);
                let acknowledged = Some(acknowledged.wrapping_add(1));
                self.packet(event, from, Segment { sequence: next, acknowledged, ..plain }, &[], &[]);
            }
            Kind::Sent(bytes) => {
                let mut comments = comments;
                let mut sequence = sequence;
                let count = bytes.len().div_ceil(SEGMENT_MAX);
                for (index, payload) in bytes.chunks(SEGMENT_MAX).enumerate() {
                    let psh = index + 1 == count;
                    self.packet(event, from, Segment { sequence, psh, ..plain }, payload, comments);
                    sequence = sequence.wrapping_add(payload.len() as u32);
                    comments = &[];
                }
                self.packet(event, other, answer(bytes.len() as u32), &[], &[]);
            }
            Kind::Closed => {
                self.packet(event, from, Segment { fin: true, ..plain }, &[], comments);
                self.packet(event, other, answer(1), &[], &[]);
            }
            Kind::Reset => self.packet(event, from, Segment { rst: true, ..plain }, &[], comments),
        }
    }

    fn packet(&mut self, event: &Event, from: Side, segment: Segment, payload: &[u8], comments: &[String]) {
        self.packet.clear();
        event.ends.packet(&mut self.packet, from, segment, payload);
        pcapng::packet(&mut self.blocks, event.time, &self.packet, comments);
    }

    /// There is nothing else to do: what there is gets into the file, and how much is lost, if that has become more.
    fn catch_up(&mut self) {
        if self.queue.is_stopped() {
            return;
        }
        let (packets, lost) = self.queue.counts();
        if lost > self.lost_said && self.has_room_for_statistics() {
            self.lost_said = lost;
            pcapng::statistics(&mut self.blocks, SystemTime::now(), packets, lost, None);
        }
        self.write_or_stop();
    }

    fn finish(&mut self) {
        if self.queue.is_stopped() {
            return;
        }
        let (packets, lost) = self.queue.counts();
        pcapng::statistics(&mut self.blocks, SystemTime::now(), packets, lost, None);
        self.write_or_stop();
        self.queue.stop();
    }

    /// Once more than needed at the end is kept free.
    fn has_room_for_statistics(&self) -> bool {
        self.limit.saturating_sub(self.written + self.blocks.len() as u64) > 2 * STATISTICS_MAX
    }

    fn write_or_stop(&mut self) {
        if let Err(source) = self.write_blocks() {
            self.stop(Stopped::Write { source });
        }
    }

    /// Writes whole blocks, or leaves the file as it was.
    fn write_blocks(&mut self) -> io::Result<()> {
        let result = self.file.write_all(&self.blocks);
        match &result {
            Ok(()) => self.written += self.blocks.len() as u64,
            Err(_) => {
                self.queue.lose(self.packets_in_blocks);
                // Part of a block may be there. Where even this fails, readers say that the file is cut short.
                let _ = self.file.set_len(self.written);
                let _ = self.file.seek(SeekFrom::Start(self.written));
            }
        }
        self.blocks.clear();
        self.packets_in_blocks = 0;
        result
    }

    /// For good: a stream that goes on behind a hole of unknown size is of little use.
    fn stop(&mut self, why: Stopped) {
        if self.queue.is_stopped() {
            return;
        }
        self.queue.stop();
        let _ = self.write_blocks();
        let (packets, lost) = self.queue.counts();
        pcapng::statistics(&mut self.blocks, SystemTime::now(), packets, lost, Some(&why.to_string()));
        let _ = self.write_blocks();
        if let Some(told) = self.told.take() {
            told(why);
        }
    }
}

/// What an event takes in the file, or a little more.
fn bytes_at_most(event: &Event) -> u64 {
    let comments: usize = event.comments.iter().map(|comment| comment.len() + 8).sum();
    (event.payload().len() + comments) as u64 + event.packets() * PACKET_OVERHEAD
}

/// A block's own fields (36 and the end of options), the largest IPv6 and TCP headers made here (72), and what fills up.
const PACKET_OVERHEAD: u64 = 128;

/// How many bytes of blocks are written at a time, while there are more to come.
const BLOCKS: usize = 256 << 10;
