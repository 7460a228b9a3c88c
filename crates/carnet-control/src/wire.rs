//! A Unix stream that carries descriptors along with bytes (`SCM_RIGHTS`), as hyper reads and writes.

use std::{
    any::Any,
    future::Future,
    io::{self, IoSlice, IoSliceMut},
    mem::{self, MaybeUninit},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, Shutdown, recv, recvmsg, sendmsg, shutdown,
    },
};
use tokio::{
    io::Interest,
    net::UnixStream,
    task::JoinHandle,
    time::{Sleep, sleep},
};

use crate::{PROBLEM_JSON, Problem, ProblemKind};

/// Most descriptors that one request or answer carries.
pub const MOST_DESCRIPTORS: usize = 16;

/// The stream, for whoever else has to know of it while hyper has its [`Wire`].
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    takes: Takes,
    /// Descriptors that have come in and nobody has taken yet, in order.
    received: Mutex<Vec<OwnedFd>>,
    outgoing: Mutex<Vec<OwnedFd>>,
    patient: AtomicBool,
    place: Place,
}

/// What is taken from the other side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Takes {
    /// Descriptors that come along are closed.
    Bytes,
    /// One more than [`MOST_DESCRIPTORS`], so that it is seen that there are too many. The rest is closed.
    Descriptors,
}

/// What a connection takes up, until all that came by it is closed.
pub(crate) type Place = Option<Arc<dyn Any + Send + Sync>>;

/// The stream as hyper knows it.
pub(crate) struct Wire {
    channel: Arc<Channel>,
    /// How long the other side may take no bytes.
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// What comes along with descriptors.
    receiving: Option<JoinHandle<io::Result<Vec<u8>>>>,
    /// Bytes that have been received and not been read.
    ahead: Vec<u8>,
}

impl Channel {
    pub(crate) fn new(stream: UnixStream, takes: Takes, place: Place) -> Arc<Self> {
        Arc::new(Self {
            stream,
            takes,
            received: Mutex::default(),
            outgoing: Mutex::default(),
            patient: AtomicBool::new(false),
            place,
        })
    }

    pub(crate) fn wire(self: &Arc<Self>, patience: Duration) -> Wire {
        Wire { channel: Arc::clone(self), patience, stalled: None, receiving: None, ahead: Vec::new() }
    }

    /// What has come in since it was last asked.
    pub(crate) fn take_received(&self) -> Vec<OwnedFd> {
        mem::take(&mut lock(&self.received))
    }

    /// These go out with the next bytes.
    pub(crate) fn send_along(&self, descriptors: Vec<OwnedFd>) {
        lock(&self.outgoing).extend(descriptors);
    }

    /// From now on the other side may take as long as it likes to read: what it gets is a stream.
    pub(crate) fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    /// Ready when the other side has closed, or says something where it has nothing to say; that is told. Reads nothing.
    pub(crate) async fn hung_up(&self) -> Option<&'static str> {
        loop {
            self.stream.readable().await.ok()?;
            let mut byte = [0];
            let peeked = self.stream.try_io(Interest::READABLE, || {
                Ok(recv(&self.stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?)
            });
            match peeked {
                Err(error) if is_passing(&error) => {}
                Ok((_, 1..)) => return Some("there was another request, and a stream has its connection for itself"),
                _ => return None,
            }
        }
    }

    /// Ready when the other side has said something, or has closed.
    pub(crate) async fn is_spoken_to(&self) {
        let _ = self.stream.readable().await;
    }

    /// Says that nothing more will be sent, and reads what the other side still sends, so that closing does not throw
    /// away an answer on its way: a Unix socket that is closed with bytes unread resets the connection.
    pub(crate) async fn linger(self: &Arc<Self>, most: u64) {
        let _ = shutdown(&self.stream, Shutdown::Write);
        let mut buffer = [0; CHUNK];
        let mut left = most;
        while left > 0 && self.stream.readable().await.is_ok() {
            let received = match self.receive(&mut buffer) {
                Ok(Some(read)) => Ok(read),
                Ok(None) => {
                    let received =
                        self.receive_along(CHUNK, Takes::Bytes).await.unwrap_or_else(|error| Err(error.into()));
                    received.map(|bytes| bytes.len())
                }
                Err(error) => Err(error),
            };
            match received {
                Ok(0) => return,
                Ok(read) => left = left.saturating_sub(read as u64),
                Err(error) if is_passing(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Ends the connection, whoever else still has this.
    pub(crate) fn hang_up(&self) {
        let _ = shutdown(&self.stream, Shutdown::Both);
    }

    /// Closes descriptors of others. Not here, where other connections wait: that can take long, where it is the last of
    /// a socket with `SO_LINGER`, or of a file whose file system has something to do then. Who sent them waits.
    pub(crate) async fn discard(&self, foreign: Vec<OwnedFd>) {
        if !foreign.is_empty() {
            let place = self.place.clone();
            let _ = tokio::task::spawn_blocking(move || drop((foreign, place))).await;
        }
    }

    /// Closes the stream, with what is unread in it. See [`discard`](Self::discard).
    pub(crate) fn end(self: Arc<Self>) {
        if let Some(Self { stream, received, outgoing, place, .. }) = Arc::into_inner(self)
            && let Ok(stream) = stream.into_std()
        {
            tokio::task::spawn_blocking(move || drop((stream, received, outgoing, place)));
        }
    }

    /// Sends what fits at once.
    pub(crate) fn send_now(&self, bytes: &[u8]) {
        let _ = self.stream.try_write(bytes);
    }

    /// Reads bytes. `None`: descriptors come along with them, and nothing has been read. See
    /// [`receive_along`](Self::receive_along).
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.stream.try_io(Interest::READABLE, || {
            let mut nothing = RecvAncillaryBuffer::default();
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let seen = recvmsg(&self.stream, &mut [IoSliceMut::new(buffer)], &mut nothing, flags)?;
            if seen.flags.contains(ReturnFlags::CTRUNC) {
                return Ok(None);
            }
            // No more than what has been seen, for there may be more by now.
            let seen = &mut buffer[..seen.bytes];
            Ok(Some(if seen.is_empty() { 0 } else { recv(&self.stream, seen, RecvFlags::DONTWAIT)?.1 }))
        })
    }

    /// Reads bytes and the descriptors that come along. Not here, where other connections wait: those that are not taken
    /// the kernel closes within the call, which can take as long as in [`discard`](Self::discard).
    fn receive_along(self: &Arc<Self>, most: usize, takes: Takes) -> JoinHandle<io::Result<Vec<u8>>> {
        let channel = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; most];
            let room = match takes {
                Takes::Bytes => 0,
                Takes::Descriptors => (MOST_DESCRIPTORS + 1).saturating_sub(lock(&channel.received).len()),
            };
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS + 1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space[..cmsg_space!(ScmRights(room))]);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let message = recvmsg(&channel.stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
            let mut came = Vec::new();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    came.extend(descriptors);
                }
            }
            // The space is a little larger than what was asked for.
            let too_many = came.split_off(room.min(came.len()));
            lock(&channel.received).extend(came);
            drop(too_many);
            bytes.truncate(message.bytes);
            Ok(bytes)
        })
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut outgoing = lock(&self.outgoing);
        let borrowed: Vec<_> = outgoing.iter().take(MOST_DESCRIPTORS).map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
        }
        let sent = self.stream.try_io(Interest::WRITABLE, || {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            Ok(sendmsg(&self.stream, slices, &mut ancillary, flags)?)
        })?;
        outgoing.clear();
        Ok(sent)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut buffer = [0; CHUNK];
        let room = into.remaining().min(CHUNK);
        loop {
            if let Some(receiving) = &mut self.receiving {
                let received = ready!(Pin::new(receiving).poll(cx));
                self.receiving = None;
                match received.unwrap_or_else(|error| Err(error.into())) {
                    Ok(bytes) if bytes.is_empty() => return Poll::Ready(Ok(())),
                    Ok(bytes) => self.ahead = bytes,
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if !self.ahead.is_empty() {
                let now = room.min(self.ahead.len());
                into.put_slice(&self.ahead[..now]);
                self.ahead.drain(..now);
                return Poll::Ready(Ok(()));
            }
            ready!(self.channel.stream.poll_read_ready(cx))?;
            match self.channel.receive(&mut buffer[..room]) {
                Ok(Some(read)) => {
                    into.put_slice(&buffer[..read]);
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => self.receiving = Some(self.channel.receive_along(room, self.channel.takes)),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(problem) = in_our_words(slices) {
            self.channel.send_now(&problem);
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        loop {
            match self.channel.stream.poll_write_ready(cx)? {
                Poll::Ready(()) => match self.channel.send(slices) {
                    Ok(sent) => {
                        self.stalled = None;
                        return Poll::Ready(Ok(sent));
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Poll::Pending if self.channel.patient.load(Ordering::Relaxed) => return Poll::Pending,
                Poll::Pending => {
                    ready!(self.poll_stalled(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(shutdown(&self.channel.stream, Shutdown::Write)?))
    }
}

impl Wire {
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        self.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx)
    }
}

/// What hyper cannot parse it refuses by itself, with a status and no body. All our own refusals have one.
fn in_our_words(slices: &[IoSlice<'_>]) -> Option<Vec<u8>> {
    let head = slices.first()?;
    if !head.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let head = str::from_utf8(head).ok().filter(|head| head.contains("\r\ncontent-length: 0\r\n"))?;
    let (kind, detail) = match head.get(9..12)? {
        "431" => (ProblemKind::HeadTooLarge, "the head of the request has too many bytes or too many fields"),
        "414" => (ProblemKind::HeadTooLarge, "the path of the request is too long"),
        _ => (ProblemKind::Malformed, "this is no HTTP/1.1 request"),
    };
    Some(raw_answer(&Problem::new(kind, detail)))
}

/// An answer without hyper, after which the connection is closed.
pub(crate) fn raw_answer(problem: &Problem) -> Vec<u8> {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let status = problem.kind.status();
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    answer.push_str(&String::from_utf8_lossy(&body));
    answer.into_bytes()
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const CHUNK: usize = 16 * 1024;
