//! What the system uses of an operation, until it ends.

use std::{
    cell::UnsafeCell,
    ptr::{self, NonNull},
    sync::atomic::{Ordering, fence},
};

use super::{FALSE, in_bounds, last_error, length, pointer_or_null};
use crate::winsock::{
    CancelIoEx, Code, HANDLE, IoctlError, LPWSAOVERLAPPED_COMPLETION_ROUTINE, OVERLAPPED, Outcome, Request, SOCKET,
    WSAGetOverlappedResult, WSAIoctl, numbers::*,
};

/// What the system uses until the operation ends. The `OVERLAPPED` comes first: its address is the block's.
#[repr(C)]
pub(super) struct Block {
    overlapped: UnsafeCell<OVERLAPPED>,
    bytes: UnsafeCell<u32>,
    socket: SOCKET,
    request: Request,
    pub(super) routine: Option<Box<dyn FnOnce(Outcome)>>,
}

impl Block {
    pub(super) fn new(socket: SOCKET, request: Request, event: HANDLE) -> NonNull<Self> {
        Self::leak(Self::boxed(socket, request, event))
    }

    pub(super) fn boxed(socket: SOCKET, request: Request, event: HANDLE) -> Box<Self> {
        let overlapped = UnsafeCell::new(OVERLAPPED { hEvent: event, ..OVERLAPPED::default() });
        Box::new(Self { overlapped, bytes: UnsafeCell::new(0), socket, request, routine: None })
    }

    pub(super) fn leak(block: Box<Self>) -> NonNull<Self> {
        let block = NonNull::from(Box::leak(block));
        // The set of a queue has addresses, from which pointers are made again.
        let _exposed = block.as_ptr().expose_provenance();
        block
    }

    /// Begins the operation. `Err`: nothing is pending, this has come of it, and the block is freed.
    ///
    /// # Safety
    ///
    /// The block is not in use. Where this succeeds it is freed after the operation's end.
    pub(super) unsafe fn begin(
        block: NonNull<Self>,
        routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    ) -> Result<(), Outcome> {
        let this = block.as_ptr();
        // SAFETY: the block is ours until the call. The buffer is not touched by us from then on.
        let result = unsafe {
            (*(*this).overlapped.get()).Internal = NOT_LOOKED_AT;
            let buffer = &mut (*this).request.buffer;
            let (pointer, size) = (buffer.as_mut_ptr(), buffer.len());
            let is_query = (*this).request.code != Code::SetRecords;
            let (input, output) = if is_query { (0, size) } else { (size, 0) };
            WSAIoctl(
                (*this).socket,
                (*this).request.code.number(),
                pointer_or_null(pointer, input).cast(),
                length(input),
                pointer_or_null(pointer, output).cast_mut().cast(),
                length(output),
                (*this).bytes.get(),
                this.cast(),
                routine,
            )
        };
        if result != 0 {
            let error = last_error(0);
            return match error.number() {
                WSA_IO_PENDING => Ok(()),
                // SAFETY: nothing is pending.
                _ => Err(unsafe { Self::end(block, Err(error)) }),
            };
        }
        // Ended at once, and told all the same; unless the socket takes no overlapped operations.
        // SAFETY: the block is there until its end is taken, by the caller or the caller's routine or queue.
        match unsafe { Self::status(block) } {
            NOT_LOOKED_AT => {
                // SAFETY: nothing is pending.
                Err(unsafe { Self::end(block, Ok(*(*this).bytes.get())) })
            }
            _ => Ok(()),
        }
    }

    /// # Safety
    ///
    /// The block has not been freed.
    unsafe fn status(block: NonNull<Self>) -> usize {
        // SAFETY: the system writes this word last, and whole.
        unsafe { (&raw const (*block.cast::<OVERLAPPED>().as_ptr()).Internal).read_volatile() }
    }

    /// # Safety
    ///
    /// The block has not been freed.
    pub(super) unsafe fn is_finished(block: NonNull<Self>) -> bool {
        // SAFETY: the caller's promise. An NTSTATUS is 32 bits of the word.
        let is_finished = unsafe { Self::status(block) as u32 != STATUS_PENDING.cast_unsigned() };
        // What was written before the status is read after it.
        fence(Ordering::Acquire);
        is_finished
    }

    /// # Safety
    ///
    /// The block has not been freed.
    pub(super) unsafe fn cancel(block: NonNull<Self>) -> bool {
        // SAFETY: of the operation only the address is used.
        unsafe { CancelIoEx(ptr::without_provenance_mut((*block.as_ptr()).socket), block.cast().as_ptr()) != 0 }
    }

    /// How it has ended. Frees the block.
    ///
    /// # Safety
    ///
    /// The operation has ended, and nobody else frees the block.
    pub(super) unsafe fn outcome(block: NonNull<Self>) -> Outcome {
        // SAFETY: the block is there, and the caller's promise.
        unsafe { Self::end(block, Self::result(block)) }
    }

    /// The end of it, which the system or a call has told. Frees the block.
    ///
    /// # Safety
    ///
    /// Nothing is pending, and nobody else frees the block.
    unsafe fn end(block: NonNull<Self>, result: Result<u32, IoctlError>) -> Outcome {
        // SAFETY: the caller's promise.
        unsafe { Self::free(block) }.into_outcome(result)
    }

    pub(super) fn into_outcome(self, result: Result<u32, IoctlError>) -> Outcome {
        let room = self.request.buffer.len();
        self.request.ended(result.map(|bytes| in_bounds(bytes, room)))
    }

    /// # Safety
    ///
    /// The operation has ended, and the block has not been freed.
    unsafe fn result(block: NonNull<Self>) -> Result<u32, IoctlError> {
        let (mut bytes, mut flags) = (0, 0);
        let overlapped = block.cast::<OVERLAPPED>().as_ptr();
        // SAFETY: the block is there, and nobody writes to it any more.
        let (status, count, socket) =
            unsafe { (Self::status(block), (*overlapped).InternalHigh, (*block.as_ptr()).socket) };
        if status as u32 == STATUS_SUCCESS.cast_unsigned() {
            // A count is 32 bits of its word.
            return Ok(count as u32);
        }
        // SAFETY: the block is there, and the numbers are this function's own.
        match unsafe { WSAGetOverlappedResult(socket, overlapped, &raw mut bytes, FALSE, &raw mut flags) } {
            FALSE => match last_error(bytes) {
                // Windows looks at the socket, which may have been closed: that ended it.
                error if error.number() == WSAENOTSOCK => Err(IoctlError::new(WSA_OPERATION_ABORTED, 0)),
                error => Err(error),
            },
            _ => Ok(bytes),
        }
    }

    /// # Safety
    ///
    /// The operation has not begun, or has ended, and nobody else frees the block.
    pub(super) unsafe fn free(block: NonNull<Self>) -> Self {
        // SAFETY: it came from `leak`, and is freed once.
        *unsafe { Box::from_raw(block.as_ptr()) }
    }
}

/// A status that no operation has.
const NOT_LOOKED_AT: usize = usize::MAX;
