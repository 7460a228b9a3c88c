//! Sockets.

use std::{ffi::c_void, io};

use super::{LAST_ERROR, descriptors, told};
use crate::winsock::{
    SOCKET,
    linux::{operations, sockets::Named},
    numbers::*,
};

/// Closes a socket; its operations end with [`WSA_OPERATION_ABORTED`]. (After `close()` alone they do, too, when their
/// turn comes.)
///
/// # Safety
///
/// Nobody uses the descriptor after this.
pub unsafe extern "system" fn closesocket(s: SOCKET) -> i32 {
    // SAFETY: closed below, after the last use, and by nobody else.
    let result = unsafe { named(s) }.ok_or(WSAENOTSOCK).map(|socket| {
        socket.forget();
        // SAFETY: it is a socket's, and the caller's to close.
        unsafe { descriptors::close(s) };
        // By its name in the kernel, which is known still.
        operations::abort(|operation| operation.socket.is(socket));
    });
    told(result)
}

/// A socket; [`INVALID_SOCKET`] where there is none. As `socket()`, but one that is made without
/// [`WSA_FLAG_OVERLAPPED`] takes no overlapped operations. Windows' 23 for `AF_INET6` is as good as Linux' 10.
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe. `lpprotocolinfo` has to be null.
pub unsafe extern "system" fn WSASocketW(
    af: i32,
    r#type: i32,
    protocol: i32,
    lpprotocolinfo: *const c_void,
    g: u32,
    dwflags: u32,
) -> SOCKET {
    let result = match dwflags & !(WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT) {
        0 if lpprotocolinfo.is_null() && g == 0 => {
            let family = if af == WINDOWS_AF_INET6 { libc::AF_INET6 } else { af };
            descriptors::socket(family, r#type, protocol, dwflags & WSA_FLAG_NO_HANDLE_INHERIT != 0)
                .map_err(socket_error)
        }
        _ => Err(WSAEINVAL),
    };
    let result = result.inspect(|&number| {
        // SAFETY: it is new, and nobody knows it yet.
        if let (0, Some(socket)) = (dwflags & WSA_FLAG_OVERLAPPED, unsafe { named(number) }) {
            socket.refuse_overlapped();
        }
    });
    result.unwrap_or_else(|error| {
        LAST_ERROR.set(error);
        INVALID_SOCKET
    })
}

/// An open socket.
///
/// # Safety
///
/// As [`descriptors::borrow`].
pub(super) unsafe fn named<'a>(number: SOCKET) -> Option<Named<'a>> {
    // SAFETY: the caller's promise.
    unsafe { descriptors::borrow(number) }.and_then(|socket| Named::of(socket).ok())
}

/// `AF_INET6` in sources that have the number and not the name.
const WINDOWS_AF_INET6: i32 = 23;

/// Of `socket()`.
fn socket_error(error: io::Error) -> i32 {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => WSAEMFILE,
        Some(libc::ENOBUFS | libc::ENOMEM) => WSAENOBUFS,
        Some(libc::EACCES | libc::EPERM) => WSAEACCES,
        Some(libc::EAFNOSUPPORT) => WSAEAFNOSUPPORT,
        Some(libc::EPROTONOSUPPORT) => WSAEPROTONOSUPPORT,
        Some(libc::ESOCKTNOSUPPORT) => WSAESOCKTNOSUPPORT,
        _ => WSAEINVAL,
    }
}
