use std::net::TcpStream;
#[cfg(unix)]
use std::os::fd::{BorrowedFd as Borrowed, IntoRawFd as _};
#[cfg(windows)]
use std::os::windows::io::{BorrowedSocket as Borrowed, IntoRawSocket as _};

use crate::carnet_error_t;

/// A socket: its descriptor.
#[cfg(not(windows))]
pub type carnet_socket_t = std::ffi::c_int;
/// A SOCKET.
#[cfg(windows)]
pub type carnet_socket_t = usize;

/// What a function gives in the place of a socket when it fails: -1, INVALID_SOCKET.
#[cfg(unix)]
pub(crate) const INVALID: carnet_socket_t = -1;
#[cfg(windows)]
pub(crate) const INVALID: carnet_socket_t = usize::MAX;

/// The caller's socket, for one call.
///
/// # Safety
///
/// It stays open during the call. A number that is no open socket at all is harmless: the system says so.
pub(crate) unsafe fn borrow<'call>(socket: carnet_socket_t) -> Result<Borrowed<'call>, carnet_error_t> {
    if is_invalid(socket) {
        return Err(carnet_error_t::argument(&format!("{socket} is no socket; pass one that is open")));
    }
    // SAFETY: it is not the one number that a borrowed socket must not have, and nobody closes it meanwhile.
    Ok(unsafe { Borrowed::borrow_raw(socket as _) })
}

/// The socket becomes the caller's, who closes it.
pub(crate) fn release(stream: TcpStream) -> carnet_socket_t {
    #[cfg(unix)]
    return stream.into_raw_fd();
    #[cfg(windows)]
    return stream.into_raw_socket() as _;
}

#[cfg(unix)]
fn is_invalid(socket: carnet_socket_t) -> bool {
    socket < 0
}

#[cfg(windows)]
fn is_invalid(socket: carnet_socket_t) -> bool {
    socket == INVALID
}
