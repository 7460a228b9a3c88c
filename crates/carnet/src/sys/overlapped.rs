//! Overlapped operations that own their memory: one source over the calls of `winsock`, which on Windows are Winsock's.
//!
//! A block holds all that the system uses until the operation ends. It is on the heap, never moved, and from the call
//! that begins the operation to the one that sees its end it is reached by raw pointers alone.

mod block;
mod operation;
mod queue;

use std::{
    ptr::{self, NonNull},
    time::Duration,
};

use self::block::Block;
pub use self::{
    operation::Operation,
    queue::{Attached, Completion, CompletionQueue},
};
use crate::{
    sys::{self, AsSocket, BorrowedSocket},
    winsock::{BOOL, IoctlError, OVERLAPPED, Outcome, Request, SleepEx, WSAGetLastError, WSAIoctl, numbers::*},
};

/// Performs an operation at once.
pub(crate) fn ioctl(
    socket: BorrowedSocket<'_>,
    code: u32,
    input: &[u8],
    output: &mut [u8],
) -> Result<usize, IoctlError> {
    let mut bytes = 0;
    // SAFETY: the slices are readable and writable for their lengths, for the whole call: nothing is overlapped.
    let result = unsafe {
        WSAIoctl(
            sys::number(socket),
            code,
            pointer_or_null(input.as_ptr(), input.len()).cast(),
            length(input.len()),
            pointer_or_null(output.as_mut_ptr(), output.len()).cast_mut().cast(),
            length(output.len()),
            &raw mut bytes,
            ptr::null_mut(),
            None,
        )
    };
    if result == 0 { Ok(in_bounds(bytes, output.len())) } else { Err(last_error(bytes)) }
}

/// Begins an operation whose end is told by a call of `routine`, in this thread, while it waits in [`wait_alertable`] or
/// in one of the alertable waits of the contract. A routine that panics ends the process. A thread that ends without
/// such a wait never calls it.
///
/// # Errors
///
/// As [`Operation::begin`]; and [`WSAEINVAL`] where a [`CompletionQueue`] serves the socket. The routine is not called.
pub fn begin_with(
    socket: &impl AsSocket,
    request: Request,
    routine: impl FnOnce(Outcome) + 'static,
) -> Result<(), Outcome> {
    let mut block = Block::boxed(sys::number(sys::borrow(socket)), request, ptr::null_mut());
    block.routine = Some(Box::new(routine));
    let block = Block::leak(block);
    // SAFETY: the block is new, and freed by the routine.
    unsafe { Block::begin(block, Some(run_routine)) }
}

/// Waits for completion routines and runs them; false: there was none in all this time.
pub fn wait_alertable(timeout: Duration) -> bool {
    // SAFETY: no memory is passed.
    unsafe { SleepEx(milliseconds(timeout), TRUE) == WSA_WAIT_IO_COMPLETION }
}

unsafe extern "system" fn run_routine(error: u32, bytes: u32, overlapped: *mut OVERLAPPED, _flags: u32) {
    let Some(block) = NonNull::new(overlapped.cast::<Block>()) else { return };
    // SAFETY: `begin_with` alone gives this routine to the system, with a block's OVERLAPPED; it has ended.
    let mut block = unsafe { Block::free(block) };
    let routine = block.routine.take();
    let result = if error == 0 { Ok(bytes) } else { Err(IoctlError::new(error.cast_signed(), bytes)) };
    let outcome = block.into_outcome(result);
    if let Some(routine) = routine {
        routine(outcome);
    }
}

/// How long a wait relies on being told.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a drop waits for an operation that it has cancelled. They end within microseconds.
const GIVE_UP: Duration = Duration::from_secs(5);

const TRUE: BOOL = 1;
const FALSE: BOOL = 0;

fn last_error(bytes: u32) -> IoctlError {
    // SAFETY: no memory is passed.
    IoctlError::new(unsafe { WSAGetLastError() }, bytes)
}

/// Rounded up, so that a time that is not over is not 0; the longest there is for what does not fit.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(WSA_INFINITE - 1).min(WSA_INFINITE - 1)
}

/// The system does not say more than it was given room for. Were it to, the buffer's end is the end.
fn in_bounds(bytes: u32, room: usize) -> usize {
    usize::try_from(bytes).unwrap_or(room).min(room)
}

/// No buffer, no pointer: an empty one's leads nowhere.
fn pointer_or_null(pointer: *const u8, length: usize) -> *const u8 {
    if length == 0 { ptr::null() } else { pointer }
}

/// What is larger than any answer may be named smaller.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
