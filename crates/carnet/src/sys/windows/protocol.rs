//! What a socket is.

use std::{io, os::windows::io::BorrowedSocket};

use windows_sys::Win32::Networking::WinSock::{SO_PROTOCOL_INFOW, SOL_SOCKET, WSAPROTOCOL_INFOW, getsockopt};

use super::number;

/// Its family, type and protocol, among others.
pub(super) fn protocol(socket: BorrowedSocket<'_>) -> io::Result<WSAPROTOCOL_INFOW> {
    let mut protocol = WSAPROTOCOL_INFOW::default();
    let mut length = i32::try_from(size_of::<WSAPROTOCOL_INFOW>()).map_err(io::Error::other)?;
    let buffer = (&raw mut protocol).cast();
    // SAFETY: the socket is open, for it is borrowed; `buffer` is writable for `length` bytes, and any bytes are valid
    // there: all fields are integers.
    match unsafe { getsockopt(number(socket), SOL_SOCKET, SO_PROTOCOL_INFOW, buffer, &mut length) } {
        0 => Ok(protocol),
        _ => Err(io::Error::last_os_error()),
    }
}
