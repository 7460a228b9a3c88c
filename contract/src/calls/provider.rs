//! `WSPIoctl`: the call as a service provider has it. On Windows a program does not call it, Winsock does.

use std::ptr;

use carnet::winsock::{self as ws, SOCKET, WSATHREADID};

use super::{Operation, Told, UNTOUCHED, as_u32, forget_error, operation::routine, set_last_error, told};

/// A thread that runs completion routines, until [`close`](Thread::close).
pub struct Thread(WSATHREADID);

// SAFETY: a handle is a number, good in every thread.
unsafe impl Send for Thread {}

/// Where the error is told.
#[derive(Clone, Copy)]
pub enum ErrorTo {
    Variable,
    Null,
}

impl Thread {
    /// The calling one.
    pub fn current() -> std::io::Result<Self> {
        let mut thread = WSATHREADID { ThreadHandle: ptr::null_mut(), Reserved: 0 };
        let mut error = 0;
        // SAFETY: both variables are there during the call.
        match unsafe { ws::WPUOpenCurrentThread(&mut thread, &mut error) } {
            0 => Ok(Self(thread)),
            _ => Err(std::io::Error::other(format!("WPUOpenCurrentThread: {error}"))),
        }
    }

    pub fn close(&mut self) -> Told {
        let mut error = 0;
        // SAFETY: both variables are there during the call.
        let ret = unsafe { ws::WPUCloseThread(&mut self.0, &mut error) };
        Told { error, ..told("WPUCloseThread", ret, None) }
    }
}

/// `WSPIoctl` without `OVERLAPPED`, a query with an output of this size; and what the last error is then, which it should
/// have left alone.
pub fn query(socket: SOCKET, code: u32, output: &mut [u8], error_to: ErrorTo) -> (Told, i32) {
    let (mut bytes, mut error) = (UNTOUCHED, UNTOUCHED.cast_signed());
    let error_pointer = match error_to {
        ErrorTo::Variable => &raw mut error,
        ErrorTo::Null => ptr::null_mut(),
    };
    set_last_error(LAST_ERROR_BEFORE);
    // SAFETY: each pointer is null, or leads to memory that is borrowed during the call and as long as told.
    let ret = unsafe {
        ws::WSPIoctl(
            socket,
            code,
            ptr::null(),
            0,
            output.as_mut_ptr().cast(),
            as_u32(output.len()),
            &mut bytes,
            ptr::null_mut(),
            None,
            ptr::null(),
            error_pointer,
        )
    };
    let told = told("WSPIoctl", ret, Some(bytes));
    (Told { error, ..told }, told.error)
}

/// `WSPIoctl` with an operation and its routine, for this thread or the calling one.
pub fn begin(operation: &Operation, socket: SOCKET, code: u32, thread: Option<&Thread>) -> Told {
    let mut error = 0;
    forget_error();
    // SAFETY: what the operation points to is there for ever; the thread and the variable are, during the call.
    let ret = unsafe {
        ws::WSPIoctl(
            socket,
            code,
            operation.input.as_ptr().cast(),
            as_u32(operation.input.len()),
            operation.output.cast(),
            as_u32(operation.capacity),
            operation.returned,
            operation.overlapped,
            Some(routine),
            thread.map_or(ptr::null(), |thread| &raw const thread.0),
            &mut error,
        )
    };
    Told { error, ..told("WSPIoctl, overlapped", ret, None) }
}

/// Set before a call that is to leave it alone.
pub const LAST_ERROR_BEFORE: i32 = 1234;
