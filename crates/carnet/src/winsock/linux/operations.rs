//! Overlapped operations: begun in the caller's thread, performed by one of ours, told as the caller asked for.

use std::{
    io,
    mem::offset_of,
    process,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{Ordering, fence},
    },
};

use super::{
    answer::{Failure, Request},
    apc::Apcs,
    event::Event,
    pending::{Claim, Pending, Refused, Taken},
    port::{Packet, Port},
    sockets::Kept,
    status,
    sync::ignore_poison,
};
use crate::{
    sys::{self, Memory},
    winsock::{OVERLAPPED, numbers::*},
};

/// One that has begun and not ended.
pub(crate) struct Operation {
    pub(crate) socket: Kept,
    pub(crate) request: Request,
    /// Memory of an `OVERLAPPED`.
    pub(crate) overlapped: Memory,
    pub(crate) event: Option<Arc<Event>>,
    pub(crate) routine: Option<Routine>,
    pub(crate) port: Option<(Arc<Port>, usize)>,
    pub(crate) begun_by: Arc<Apcs>,
    /// Of a socket that has a port, whether that is told or not.
    pub(crate) outlives_its_thread: bool,
}

/// A completion routine, with the thread that runs it.
pub(crate) struct Routine {
    pub(crate) thread: Arc<Apcs>,
    /// Gets the error and the bytes.
    pub(crate) call: Box<dyn FnOnce(i32, u32) + Send>,
}

/// Begins it; from here on [`WSA_OPERATION_ABORTED`] or any answer of the engine is its end, told once.
pub(crate) fn begin(operation: Operation) -> Result<(), i32> {
    start_worker().map_err(|_no_thread| WSAENOBUFS)?;
    let (overlapped, event) = (operation.overlapped, operation.event.clone());
    let announce = || {
        publish(overlapped, STATUS_PENDING, 0)?;
        // Signalled by the operation before, perhaps.
        event.iter().for_each(|event| event.reset());
        Ok(())
    };
    PENDING.begin(overlapped.address(), operation, announce).map_err(|refused| match refused {
        Refused::Pending => WSAEINVAL,
        Refused::Announcement(Unwritable) => WSAEFAULT,
    })
}

/// Aborts those that `which` names and nobody performs yet; how many there were.
pub(crate) fn abort(which: impl Fn(&Operation) -> bool) -> usize {
    let taken = PENDING.take(|_key, operation| which(operation));
    let count = taken.len();
    for Taken { work, claim } in taken {
        end(work, claim, Err(WSA_OPERATION_ABORTED.into()));
    }
    count
}

/// Error and bytes of the operation with this `OVERLAPPED`; `None` while it goes on.
pub(crate) fn result(overlapped: Memory, wait: bool) -> Result<Option<(i32, u32)>, i32> {
    if wait {
        PENDING.wait(overlapped.address());
    }
    PENDING.look(overlapped.address(), |pending| {
        let word = |offset| overlapped.word(offset).map_err(|_fault| WSAEFAULT);
        let (status, count) = (word(offset_of!(OVERLAPPED, Internal))?, word(offset_of!(OVERLAPPED, InternalHigh))?);
        // An NTSTATUS is 32 bits of the word, as the count is.
        let status = (status as u32).cast_signed();
        Ok((!pending && status != STATUS_PENDING).then(|| (status::to_error(status), count as u32)))
    })
}

impl Operation {
    fn perform(&self) -> Result<u32, Failure> {
        if !self.socket.is_open() {
            return Err(WSA_OPERATION_ABORTED.into());
        }
        self.request.perform(&self.socket)
    }

    /// The caller's memory is not touched after this, and whoever waits is told. What is left is the socket: closing it
    /// may take as long as its SO_LINGER says, and is not for a caller that holds a lock.
    fn tell(self, result: Result<u32, Failure>) -> Kept {
        let Failure { error, bytes } = match result {
            Ok(bytes) => Failure { error: 0, bytes },
            Err(failure) => failure,
        };
        // Memory that is gone by now was the caller's to keep; the rest is told all the same.
        let _unwritable = publish(self.overlapped, status::of(error), bytes);
        if let Some(event) = self.event {
            event.set();
        }
        if let Some(Routine { thread, call }) = self.routine {
            thread.push(Box::new(move || call(error, bytes)));
        }
        if let Some((port, key)) = self.port {
            port.push(Packet { key, overlapped: self.overlapped.address(), bytes, error });
        }
        self.socket
    }
}

fn end(operation: Operation, claim: Claim, result: Result<u32, Failure>) {
    drop(PENDING.end(claim, || operation.tell(result)));
}

struct Unwritable;

/// The status last: programs look at it without asking us, and what was written before has to be there then.
fn publish(overlapped: Memory, status: i32, bytes: u32) -> Result<(), Unwritable> {
    let write = |offset, value: u32| {
        let word = overlapped.part(offset, size_of::<usize>());
        word.write(&(value as usize).to_ne_bytes()).map_err(|_fault| Unwritable)
    };
    write(offset_of!(OVERLAPPED, InternalHigh), bytes)?;
    fence(Ordering::Release);
    write(offset_of!(OVERLAPPED, Internal), status.cast_unsigned())
}

/// One thread for the process, started by its first operation; it waits for others as long as the process lives. A child
/// after fork() has not got it, and starts its own.
fn start_worker() -> io::Result<()> {
    let mut started_in = ignore_poison(STARTED_IN.lock());
    let this = Some(process::id());
    if *started_in != this {
        // What the parent has begun is the parent's to perform and to tell: its events are shared with us.
        if started_in.is_some() {
            PENDING.forget();
        }
        sys::spawn("carnet-ioctl", work)?;
        *started_in = this;
    }
    Ok(())
}

fn work() {
    loop {
        perform_next();
    }
}

fn perform_next() {
    let Taken { work, claim } = PENDING.next();
    let result = work.perform();
    end(work, claim, result);
}

static STARTED_IN: Mutex<Option<u32>> = Mutex::new(None);
static PENDING: LazyLock<Pending<Operation>> = LazyLock::new(Pending::new);

/// For tests that are the worker themselves: what has begun stays pending until they say so.
#[cfg(test)]
pub(crate) mod by_hand {
    use super::*;

    /// One test at a time, until it drops this.
    pub(crate) fn hold() -> std::sync::MutexGuard<'static, ()> {
        static ONE_TEST: Mutex<()> = Mutex::new(());
        let held = ignore_poison(ONE_TEST.lock());
        // There will be no worker in this process.
        *ignore_poison(STARTED_IN.lock()) = Some(process::id());
        held
    }

    pub(crate) fn perform() {
        perform_next();
    }
}
