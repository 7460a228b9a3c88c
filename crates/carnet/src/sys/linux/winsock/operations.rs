//! Operations that have begun.

use super::{Memory, descriptors, is_true};
use crate::winsock::{BOOL, HANDLE, OVERLAPPED, SOCKET, linux::operations, numbers::*};

/// How an operation has ended: true, or false and [`WSAGetLastError`](super::WSAGetLastError) says why;
/// [`WSA_IO_INCOMPLETE`]: not yet, and `fwait` is false. `s` is not looked at: the result of an operation whose socket is
/// closed can be had as well.
///
/// # Safety
///
/// `lpoverlapped` is that of an operation which [`WSAIoctl`](super::WSAIoctl) has begun; the other pointers are null or
/// valid for 4 bytes.
pub unsafe extern "system" fn WSAGetOverlappedResult(
    s: SOCKET,
    lpoverlapped: *const OVERLAPPED,
    lpcbtransfer: *mut u32,
    fwait: BOOL,
    lpdwflags: *mut u32,
) -> BOOL {
    let _not_looked_at = s;
    // SAFETY: the caller's promise.
    let (overlapped, transferred, flags) = unsafe {
        (
            Memory::new(lpoverlapped, size_of::<OVERLAPPED>()),
            Memory::new(lpcbtransfer, size_of::<u32>()),
            Memory::new(lpdwflags, size_of::<u32>()),
        )
    };
    let put = |memory: Memory, value: u32| memory.write(&value.to_ne_bytes()).map_err(|_fault| WSAEFAULT);
    let result = put(transferred, 0).and_then(|()| put(flags, 0)).and_then(|()| {
        let (error, bytes) = operations::result(overlapped, fwait != 0)?.ok_or(WSA_IO_INCOMPLETE)?;
        put(transferred, bytes)?;
        if error == 0 { Ok(()) } else { Err(error) }
    });
    is_true(result)
}

/// Cancels a socket's operations, or the one of `lpoverlapped`. False ([`ERROR_NOT_FOUND`]): there is none that could
/// still be cancelled. A cancelled operation ends with [`WSA_OPERATION_ABORTED`], told as any end.
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe.
pub unsafe extern "system" fn CancelIoEx(hfile: HANDLE, lpoverlapped: *const OVERLAPPED) -> BOOL {
    let cookie = descriptors::cookie_of(hfile.addr()).map_err(|_errno| WSA_INVALID_HANDLE);
    let result = cookie.and_then(|cookie| {
        let one = (!lpoverlapped.is_null()).then(|| lpoverlapped.addr());
        let cancelled = operations::abort(|operation| {
            operation.socket.has(cookie) && one.is_none_or(|one| operation.overlapped.address() == one)
        });
        if cancelled > 0 { Ok(()) } else { Err(ERROR_NOT_FOUND.cast_signed()) }
    });
    is_true(result)
}
