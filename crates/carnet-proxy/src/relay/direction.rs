use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, Read},
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::{broken, end_of_data};

/// One of a relay's two directions.
///
/// It has no buffer of its own: it reads into its thread's and writes from there, without a wait between. What the
/// receiver does not take then is kept in `left`, and nothing more is read until that has gone.
pub(super) struct Direction<'s, O> {
    sender: &'s TcpStream,
    receiver: &'s TcpStream,
    observe: O,
    left: Vec<u8>,
    left_from: usize,
    /// Most bytes to read at a time. Small at first and where the receiver is slow, so that `left` is; large in bulk.
    chunk: usize,
    passed: u64,
}

/// The sender's connection broke, or the receiver's.
pub(super) struct Broken {
    pub(super) receiver: bool,
    pub(super) error: io::Error,
}

impl<'s, O: FnMut(&[u8])> Direction<'s, O> {
    pub(super) fn new(sender: &'s TcpStream, receiver: &'s TcpStream, observe: O) -> Self {
        Self { sender, receiver, observe, left: Vec::new(), left_from: 0, chunk: CHUNK_MIN, passed: 0 }
    }

    /// The same, where the sender has sent this already.
    pub(super) fn after(self, left: Vec<u8>) -> Self {
        Self { left, ..self }
    }

    /// Passes on all that the sender sends, and its end. Of a flow's two directions, the one that ends first then waits
    /// for the other, so that a reset by its sender is seen, and returns only then; the other one returns `Ok`.
    pub(super) async fn run(&mut self, half_closed: &AtomicBool) -> Result<(), Broken> {
        let mut step = if self.left.is_empty() { Step::Passed } else { Step::Blocked };
        loop {
            match step {
                Step::Passed => {}
                Step::Blocked => self.pass_left().await?,
                Step::Ended => break,
            }
            step = poll_fn(|cx| self.poll_pass(cx)).await?;
        }
        (self.observe)(&[]);
        end_of_data(self.receiver).map_err(Broken::receiver)?;
        match half_closed.swap(true, Ordering::Relaxed) {
            true => Ok(()),
            false => Err(Broken::sender(broken(self.sender).await)),
        }
    }

    /// Offers the receiver what a broken sender sent before, without waiting.
    pub(super) fn drain(&mut self) {
        // A broken connection receives no more, so this ends; the bound is for a socket that is not broken after all.
        for _ in 0..DRAIN_CHUNKS {
            if !matches!(self.offer_left(), Ok(true)) {
                return;
            }
            // Not try_read: tokio has perhaps not heard yet that there is something.
            let read = BUFFER.with_borrow_mut(|buffer| {
                let length = (&*SockRef::from(self.sender)).read(buffer)?;
                self.offer(&buffer[..length])?;
                io::Result::Ok(length)
            });
            if !matches!(read, Ok(length) if length > 0) {
                return;
            }
        }
    }

    /// Bytes which the receiver's socket has taken.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Reads once and writes once. Counts against tokio's budget, so that no flow keeps a worker to itself.
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Broken>> {
        BUFFER.with_borrow_mut(|buffer| {
            let buffer = &mut buffer[..self.chunk];
            let length = loop {
                ready!(self.sender.poll_read_ready(cx)).map_err(Broken::sender)?;
                match read(self.sender, buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => break result.map_err(Broken::sender)?,
                }
            };
            if length == 0 {
                return Poll::Ready(Ok(Step::Ended));
            }
            let bytes = &buffer[..length];
            let whole = self.offer(bytes).map_err(Broken::receiver)?;
            (self.observe)(bytes);
            if !whole {
                self.chunk = CHUNK_MIN;
                return Poll::Ready(Ok(Step::Blocked));
            }
            if length == self.chunk {
                self.chunk = (self.chunk * 2).min(CHUNK_MAX);
            }
            Poll::Ready(Ok(Step::Passed))
        })
    }

    async fn pass_left(&mut self) -> Result<(), Broken> {
        while !self.offer_left().map_err(Broken::receiver)? {
            tokio::select! {
                biased;
                result = self.receiver.writable() => result.map_err(Broken::receiver)?,
                error = broken(self.sender) => return Err(Broken::sender(error)),
            }
        }
        Ok(())
    }

    /// Writes what the socket takes and keeps the rest; whether that was all.
    fn offer(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let taken = self.write(bytes)?;
        self.left.extend_from_slice(&bytes[taken..]);
        Ok(taken == bytes.len())
    }

    fn offer_left(&mut self) -> io::Result<bool> {
        let left = std::mem::take(&mut self.left);
        let taken = self.write(&left[self.left_from..]);
        self.left_from += *taken.as_ref().unwrap_or(&0);
        if self.left_from == left.len() {
            self.left_from = 0;
        } else {
            self.left = left;
        }
        taken.map(|_| self.left.is_empty())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match self.receiver.try_write(bytes) {
            Ok(taken) => {
                self.passed += taken as u64;
                Ok(taken)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl Broken {
    fn sender(error: io::Error) -> Self {
        Self { receiver: false, error }
    }

    fn receiver(error: io::Error) -> Self {
        Self { receiver: true, error }
    }
}

enum Step {
    Passed,
    Blocked,
    Ended,
}

/// Reads, and tells tokio that there is nothing more where less came than asked for: that saves a call which would say
/// so. More that comes meanwhile is a new event, which tokio keeps apart from this one.
fn read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = None;
    let result = socket.try_io(Interest::READABLE, || {
        let length = (&*SockRef::from(socket)).read(buffer)?;
        read = Some(length);
        match length > 0 && length < buffer.len() {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(length),
        }
    });
    read.map_or(result, Ok)
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK_MAX]);
}

const CHUNK_MIN: usize = 16 << 10;

/// Beyond this, copying over loopback gets no faster.
const CHUNK_MAX: usize = 256 << 10;

const DRAIN_CHUNKS: usize = 64;
