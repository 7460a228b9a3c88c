use std::{
    collections::BTreeSet,
    marker::PhantomData,
    ptr::{self, NonNull},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{GIVE_UP, LOOK_AGAIN, block::Block, last_error, milliseconds};
use crate::{
    sys::{self, AsSocket, BorrowedSocket},
    winsock::{
        CancelIoEx, CloseHandle, CreateIoCompletionPort, GetQueuedCompletionStatus, HANDLE, IoctlError, Outcome,
        Request, SOCKET, numbers::*,
    },
};

/// Where the ends of many operations come together, for a thread, for several, or for an async runtime: on Linux it is
/// readable (`AsFd`) while there are any.
///
/// Dropped, it cancels what is pending.
#[derive(Debug)]
pub struct CompletionQueue {
    port: HANDLE,
    /// Addresses of the blocks whose end has not come.
    pending: Mutex<BTreeSet<usize>>,
    #[cfg(target_os = "linux")]
    readiness: sys::Readiness,
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsFd for CompletionQueue {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsRawFd for CompletionQueue {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsFd::as_fd(self).as_raw_fd()
    }
}

// SAFETY: the handle is not a thread's, and the system serialises what is done with it.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

/// A socket that a [`CompletionQueue`] serves.
#[derive(Clone, Copy, Debug)]
pub struct Attached<'a> {
    queue: &'a CompletionQueue,
    socket: SOCKET,
    open: PhantomData<BorrowedSocket<'a>>,
}

/// An operation's end, from a [`CompletionQueue`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Completion {
    /// What the socket was attached with.
    pub key: usize,
    /// How it has ended.
    pub outcome: Outcome,
}

impl CompletionQueue {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// [`WSA_NOT_ENOUGH_MEMORY`]: there are no more descriptors.
    pub fn new() -> Result<Self, IoctlError> {
        // SAFETY: no memory is passed.
        let port =
            unsafe { CreateIoCompletionPort(ptr::without_provenance_mut(INVALID_SOCKET), ptr::null_mut(), 0, 0) };
        if port.is_null() {
            return Err(last_error(0));
        }
        Ok(Self {
            port,
            pending: Mutex::default(),
            #[cfg(target_os = "linux")]
            readiness: sys::Readiness::of(port.addr()).ok_or(IoctlError::new(WSA_INVALID_HANDLE, 0))?,
        })
    }

    /// Tells the ends of the socket's operations here, with `key`. For as long as the socket is open: a socket has one
    /// queue at most.
    ///
    /// # Errors
    ///
    /// [`WSA_INVALID_PARAMETER`]: it has one already.
    pub fn attach<'a>(&'a self, socket: &'a impl AsSocket, key: usize) -> Result<Attached<'a>, IoctlError> {
        let socket = sys::number(sys::borrow(socket));
        // SAFETY: no memory is passed.
        let port = unsafe { CreateIoCompletionPort(ptr::without_provenance_mut(socket), self.port, key, 0) };
        if port.is_null() { Err(last_error(0)) } else { Ok(Attached { queue: self, socket, open: PhantomData }) }
    }

    /// The oldest end; waits for it for so long (`None`: without end).
    ///
    /// # Errors
    ///
    /// The system's, for lack of memory.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Completion>, IoctlError> {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            match self.receive(left.map_or(WSA_INFINITE, milliseconds))? {
                Received::Completion(completion) => return Ok(Some(completion)),
                Received::Nothing if left.is_some_and(|left| left <= LONGEST) => return Ok(None),
                Received::Nothing | Received::Foreign => {}
            }
        }
    }

    fn receive(&self, timeout: u32) -> Result<Received, IoctlError> {
        let (mut bytes, mut key, mut overlapped) = (0, 0, ptr::null_mut());
        // SAFETY: the three are this function's own.
        let ok =
            unsafe { GetQueuedCompletionStatus(self.port, &raw mut bytes, &raw mut key, &raw mut overlapped, timeout) };
        let Some(block) = NonNull::new(overlapped.cast::<Block>()) else {
            let error = last_error(0);
            return if error.number() == WSA_WAIT_TIMEOUT.cast_signed() { Ok(Received::Nothing) } else { Err(error) };
        };
        let _the_result_says = ok;
        let address = block.addr().get();
        let mut pending = self.lock();
        // Begun by a raw call on a socket that was attached here. Such a call's memory may have been a block's before, and
        // be one again: so a block that has not ended is not taken, either.
        // SAFETY: a block of ours is there while it is in the set.
        if !pending.contains(&address) || !unsafe { Block::is_finished(block) } {
            return Ok(Received::Foreign);
        }
        pending.remove(&address);
        drop(pending);
        // SAFETY: it is a block of ours that has ended, and nobody else can take it now.
        Ok(Received::Completion(Completion { key, outcome: unsafe { Block::outcome(block) } }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Received {
    Completion(Completion),
    /// Not an operation of [`Attached::begin`].
    Foreign,
    Nothing,
}

impl Attached<'_> {
    /// Begins an operation, whose end comes to the queue.
    ///
    /// # Errors
    ///
    /// As [`Operation::begin`].
    pub fn begin(&self, request: Request) -> Result<(), Outcome> {
        let block = Block::new(self.socket, request, ptr::null_mut());
        // Held over the call: its end may be taken from the queue at once, and is only then the taker's.
        let mut pending = self.queue.lock();
        let address = block.addr().get();
        pending.insert(address);
        // SAFETY: the block is new, and freed by `CompletionQueue::receive`.
        unsafe { Block::begin(block, None) }.inspect_err(|_| {
            pending.remove(&address);
        })
    }

    /// Cancels the socket's operations that nobody performs yet; says whether there were any.
    pub fn cancel(&self) -> bool {
        // SAFETY: no memory is passed.
        unsafe { CancelIoEx(ptr::without_provenance_mut(self.socket), ptr::null()) != 0 }
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        let pending: Vec<usize> = self.lock().iter().copied().collect();
        for address in pending {
            if let Some(block) = NonNull::new(ptr::with_exposed_provenance_mut::<Block>(address)) {
                // SAFETY: it has not ended, or its end has not been taken: the block is there.
                unsafe { Block::cancel(block) };
            }
        }
        let end = Instant::now().checked_add(GIVE_UP);
        while !self.lock().is_empty() && end.is_none_or(|end| Instant::now() < end) {
            // What does not come leaves its memory to the system.
            if self.receive(milliseconds(LOOK_AGAIN)).is_err() {
                break;
            }
        }
        // SAFETY: the handle is this one's.
        unsafe { CloseHandle(self.port) };
    }
}

/// More is waited for in parts: the system counts milliseconds in 32 bits.
const LONGEST: Duration = Duration::from_millis((WSA_INFINITE - 1) as u64);
