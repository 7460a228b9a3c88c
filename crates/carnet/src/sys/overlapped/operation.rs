use std::{
    fmt,
    mem::ManuallyDrop,
    ptr::{self, NonNull},
    time::{Duration, Instant},
};

use super::{FALSE, GIVE_UP, LOOK_AGAIN, block::Block, last_error, milliseconds};
use crate::{
    sys::{self, AsSocket},
    winsock::{
        HANDLE, IoctlError, Outcome, Request, WSACloseEvent, WSACreateEvent, WSAEVENT, WSAWaitForMultipleEvents,
    },
};

/// An operation whose end is asked for.
///
/// It owns its buffer until it has ended. Dropped before, it is cancelled; and it is cancelled when the thread ends that
/// began it.
#[derive(Debug)]
pub struct Operation {
    block: NonNull<Block>,
    event: Event,
}

// SAFETY: nothing of it belongs to a thread; a block with a routine, which might, is never in here.
unsafe impl Send for Operation {}

impl Operation {
    /// Begins it. The socket may be closed while it is pending, which aborts it.
    ///
    /// # Errors
    ///
    /// Nothing is pending, and the outcome is here already: why it was refused; or, where the socket takes no overlapped
    /// operations, the answer.
    pub fn begin(socket: &impl AsSocket, request: Request) -> Result<Self, Outcome> {
        let event = match Event::new() {
            Ok(event) => event,
            Err(error) => return Err(request.ended(Err(error))),
        };
        let block = Block::new(
            sys::number(sys::borrow(socket)),
            request,
            event.handle().map_addr(|event| event | TELL_NO_PORT),
        );
        // SAFETY: the block is new; it is freed by `Drop`, or by what takes the outcome, after the end.
        unsafe { Block::begin(block, None) }.map(|()| Self { block, event })
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        // SAFETY: the block lives as long as this.
        unsafe { Block::is_finished(self.block) }
    }

    /// Cancels it, if nobody performs it yet; says whether it did. Its end is told as any other.
    pub fn cancel(&self) -> bool {
        // SAFETY: the block lives as long as this.
        unsafe { Block::cancel(self.block) }
    }

    /// Waits for its end.
    pub fn wait(self) -> Outcome {
        self.wait_until(None);
        self.into_outcome()
    }

    /// Waits for its end for so long; gives itself back if it has not come by then.
    ///
    /// # Errors
    ///
    /// It is pending.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Outcome, Self> {
        self.wait_until(Instant::now().checked_add(timeout));
        if self.is_finished() { Ok(self.into_outcome()) } else { Err(self) }
    }

    fn wait_until(&self, end: Option<Instant>) {
        while !self.is_finished() {
            let left = end.map_or(LOOK_AGAIN, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            // Not for the event alone: Wine does not signal it where it does not know the code.
            self.event.wait(left.min(LOOK_AGAIN));
        }
    }

    /// It has ended.
    fn into_outcome(self) -> Outcome {
        let block = self.block;
        // SAFETY: the block is this one's, and freed here alone: `Drop` does not see it.
        let outcome = unsafe { Block::outcome(block) };
        let mut this = ManuallyDrop::new(self);
        // SAFETY: not used after this.
        unsafe { ptr::drop_in_place(&raw mut this.event) };
        outcome
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.cancel();
        self.wait_until(Instant::now().checked_add(GIVE_UP));
        if self.is_finished() {
            // SAFETY: it has ended, and nobody has it any more.
            drop(unsafe { Block::outcome(self.block) });
        }
        // Else the system may still write there: the memory is left to it.
    }
}

struct Event(WSAEVENT);

impl Event {
    fn new() -> Result<Self, IoctlError> {
        // SAFETY: no memory is passed.
        match unsafe { WSACreateEvent() } {
            0 => Err(last_error(0)),
            event => Ok(Self(event)),
        }
    }

    fn handle(&self) -> HANDLE {
        ptr::without_provenance_mut(self.0.cast_unsigned())
    }

    fn wait(&self, timeout: Duration) {
        let handle = self.handle();
        // SAFETY: one handle can be read there.
        unsafe { WSAWaitForMultipleEvents(1, &raw const handle, FALSE, milliseconds(timeout), FALSE) };
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event").field(&self.0).finish()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the handle is this one's.
        unsafe { WSACloseEvent(self.0) };
    }
}

/// The lowest bit of an event's handle. Were the socket's completion port told as well, a queue that has the socket would
/// hear of a block that is not its own, and is gone.
const TELL_NO_PORT: usize = 1;
