//! The ioctl, as programs call it and as a service provider has it.

use std::{ffi::c_void, ptr};

use super::{Memory, descriptors, length, told, told_in};
use crate::winsock::{
    LPWSAOVERLAPPED_COMPLETION_ROUTINE, OVERLAPPED, SOCKET, WSATHREADID,
    linux::ioctl::{self, Arguments},
    numbers::*,
};

/// Performs one of the three operations, or begins it: `docs/contract.md` has every rule and every answer.
///
/// 0, or [`SOCKET_ERROR`] and [`WSAGetLastError`](super::WSAGetLastError) says why; [`WSA_IO_PENDING`] there is no
/// failure.
///
/// # Safety
///
/// `s` is not closed during the call. Each pointer is null, or leads to memory that nobody else uses during the call:
/// `cbinbuffer`, `cboutbuffer`, 4 bytes, the size of an [`OVERLAPPED`]. (Where nothing is mapped the answer is
/// [`WSAEFAULT`], unless a sandbox forbids `process_vm_readv`; memory that is somebody's is overwritten.)
///
/// If the operation is begun, the output buffer and the `OVERLAPPED` stay where they are, and nobody else's, until it has
/// ended: also where this thread returns from what it does, or ends. The routine may be called with the `OVERLAPPED`. No
/// [`CompletionQueue`](crate::winsock::CompletionQueue) serves the socket.
pub unsafe extern "system" fn WSAIoctl(
    s: SOCKET,
    dwiocontrolcode: u32,
    lpvinbuffer: *const c_void,
    cbinbuffer: u32,
    lpvoutbuffer: *mut c_void,
    cboutbuffer: u32,
    lpcbbytesreturned: *mut u32,
    lpoverlapped: *mut OVERLAPPED,
    lpcompletionroutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    // SAFETY: the caller's promise.
    told(ioctl::ioctl(unsafe {
        arguments(
            s,
            dwiocontrolcode,
            (lpvinbuffer, cbinbuffer),
            (lpvoutbuffer, cboutbuffer),
            lpcbbytesreturned,
            lpoverlapped,
            lpcompletionroutine,
            ptr::null(),
        )
    }))
}

/// [`WSAIoctl`] as a service provider has it: the error goes to `lperrno`, and the completion routine to the thread of
/// `lpthreadid` (from [`WPUOpenCurrentThread`](super::WPUOpenCurrentThread); null: the calling one). Null for `lperrno`
/// is [`SOCKET_ERROR`], and nothing is done.
///
/// # Safety
///
/// As [`WSAIoctl`]; `lpthreadid` and `lperrno` are null or valid. What `lpthreadid` leads to is not kept.
pub unsafe extern "system" fn WSPIoctl(
    s: SOCKET,
    dwiocontrolcode: u32,
    lpvinbuffer: *const c_void,
    cbinbuffer: u32,
    lpvoutbuffer: *mut c_void,
    cboutbuffer: u32,
    lpcbbytesreturned: *mut u32,
    lpoverlapped: *mut OVERLAPPED,
    lpcompletionroutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    lpthreadid: *const WSATHREADID,
    lperrno: *mut i32,
) -> i32 {
    // SAFETY: the caller's promise.
    let error = unsafe { Memory::new(lperrno, size_of::<i32>()) };
    if error.write(&0i32.to_ne_bytes()).is_err() {
        return SOCKET_ERROR;
    }
    // SAFETY: the caller's promise.
    let result = ioctl::ioctl(unsafe {
        arguments(
            s,
            dwiocontrolcode,
            (lpvinbuffer, cbinbuffer),
            (lpvoutbuffer, cboutbuffer),
            lpcbbytesreturned,
            lpoverlapped,
            lpcompletionroutine,
            lpthreadid,
        )
    });
    told_in(result, error)
}

/// The arguments of either call.
///
/// # Safety
///
/// Theirs.
#[allow(clippy::too_many_arguments, reason = "the call has them")]
unsafe fn arguments<'a>(
    socket: SOCKET,
    code: u32,
    (input, input_length): (*const c_void, u32),
    (output, output_length): (*mut c_void, u32),
    bytes_returned: *mut u32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    thread: *const WSATHREADID,
) -> Arguments<'a> {
    // SAFETY: the caller's promise.
    unsafe {
        Arguments {
            socket: descriptors::borrow(socket),
            code,
            input: Memory::new(input, length(input_length)),
            output: Memory::new(output, length(output_length)),
            bytes_returned: Memory::new(bytes_returned, size_of::<u32>()),
            overlapped: Memory::new(overlapped, size_of::<OVERLAPPED>()),
            routine: boxed(routine, overlapped),
            thread: Memory::new(thread, size_of::<WSATHREADID>()),
        }
    }
}

/// The routine with its operation. Null is none.
///
/// # Safety
///
/// The routine may be called with this operation when it has ended.
unsafe fn boxed(
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    overlapped: *mut OVERLAPPED,
) -> Option<Box<dyn FnOnce(i32, u32) + Send>> {
    /// The caller's pointer, on its way to the thread that runs the routine.
    struct Operation(*mut OVERLAPPED);
    // SAFETY: nobody looks behind it on the way.
    unsafe impl Send for Operation {}

    let routine = routine?;
    let operation = Operation(overlapped);
    Some(Box::new(move |error, bytes| {
        let Operation(overlapped) = { operation };
        // SAFETY: the caller's promise; the operation has ended.
        unsafe { routine(error.cast_unsigned(), bytes, overlapped, 0) }
    }))
}
