//! Linux: `getsockopt` and `setsockopt` of level `SOL_CARNET`.

pub(crate) use std::os::fd::{AsFd as AsSocket, BorrowedFd as BorrowedSocket};

mod descriptors;
mod executable;
mod memory;
mod original_destination;
#[cfg(feature = "tokio")]
mod watch;
pub mod winsock;
pub(crate) mod words;

use std::{io, os::fd::AsRawFd};

use carnet_abi::{CARNET_CONTEXT, CARNET_FLOW, CARNET_RECORDS, CARNET_STATE, SOL_CARNET};
use socket2::{Protocol, SockRef, Type};

#[cfg(feature = "tokio")]
pub(crate) use self::watch::watch;
pub(crate) use self::{
    descriptors::{cookie_of, spawn},
    executable::path as executable_path,
    memory::Memory,
    original_destination::original_destination,
};
use crate::{ErrorKind, sys::Item};

/// What a proxy passes on where a connection took too long.
pub(crate) const TIMED_OUT: i32 = libc::ETIMEDOUT;

pub(crate) fn borrow(socket: &impl AsSocket) -> BorrowedSocket<'_> {
    socket.as_fd()
}

/// The socket as C programs have it.
pub(crate) fn number(socket: BorrowedSocket<'_>) -> usize {
    // An open descriptor's is not negative.
    usize::try_from(socket.as_raw_fd()).unwrap_or(usize::MAX)
}

/// Reads `item` into `buffer`; the answer's length is at most the buffer's.
pub(crate) fn query(socket: BorrowedSocket<'_>, item: Item, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: `buffer` is writable for `length` bytes and `length` outlives the call; the descriptor is open, for it is
    // borrowed.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), SOL_CARNET, option(item), buffer.as_mut_ptr().cast(), &mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    match usize::try_from(length) {
        Ok(length) if length <= buffer.len() => Ok(length),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer's length is beyond the buffer")),
    }
}

/// Puts a records blob on a socket that has not connected.
pub(crate) fn apply(socket: BorrowedSocket<'_>, records: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(records.len()).map_err(io::Error::other)?;
    // SAFETY: `records` is readable for `length` bytes; the descriptor is open, for it is borrowed.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), SOL_CARNET, CARNET_RECORDS, records.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A connection without a record is ENODATA, one without a context this.
pub(crate) fn is_no_context(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// What an error of [`query`], [`apply`] or `SO_ORIGINAL_DST` means.
pub(crate) fn kind(error: &io::Error, socket: BorrowedSocket<'_>) -> ErrorKind {
    let Some(code) = error.raw_os_error() else {
        return ErrorKind::Malformed;
    };
    match code {
        // SO_ORIGINAL_DST says ENOENT, as netfilter does.
        libc::ENODATA | libc::ENOENT => ErrorKind::NotRedirected,
        libc::EIDRM => ErrorKind::ContextLost,
        // The engine's answer for a datagram socket and the kernel's own where no engine listens are the same number.
        libc::EOPNOTSUPP | libc::ENOPROTOOPT if is_tcp(socket) => ErrorKind::NoEngine,
        libc::EOPNOTSUPP | libc::ENOPROTOOPT => ErrorKind::NotTcp,
        libc::ESTALE => ErrorKind::Stale,
        libc::EBADMSG => ErrorKind::Forged,
        libc::EACCES => ErrorKind::NotOwner,
        libc::EISCONN => ErrorKind::AlreadyConnected,
        libc::EINVAL | libc::EMSGSIZE => ErrorKind::Malformed,
        _ => ErrorKind::Io,
    }
}

/// TCP, be it over several paths.
pub(crate) fn is_tcp(socket: BorrowedSocket<'_>) -> bool {
    let socket = SockRef::from(&socket);
    let protocol = socket.protocol().ok().flatten();
    matches!(socket.r#type(), Ok(Type::STREAM)) && matches!(protocol, Some(Protocol::TCP | Protocol::MPTCP))
}

fn option(item: Item) -> libc::c_int {
    match item {
        Item::Context => CARNET_CONTEXT,
        Item::Flow => CARNET_FLOW,
        Item::Records => CARNET_RECORDS,
        Item::State => CARNET_STATE,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// The table of the engine's answers, on a TCP socket.
    #[test]
    fn every_number_has_its_kind() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        for (number, expected) in [
            (libc::ENODATA, ErrorKind::NotRedirected),
            (libc::ENOENT, ErrorKind::NotRedirected),
            (libc::EIDRM, ErrorKind::ContextLost),
            (libc::ENOPROTOOPT, ErrorKind::NoEngine),
            (libc::EOPNOTSUPP, ErrorKind::NoEngine),
            (libc::ESTALE, ErrorKind::Stale),
            (libc::EBADMSG, ErrorKind::Forged),
            (libc::EACCES, ErrorKind::NotOwner),
            (libc::EISCONN, ErrorKind::AlreadyConnected),
            (libc::EINVAL, ErrorKind::Malformed),
            (libc::EMSGSIZE, ErrorKind::Malformed),
            (libc::ENOBUFS, ErrorKind::Io),
            (libc::EBADF, ErrorKind::Io),
        ] {
            let found = kind(&io::Error::from_raw_os_error(number), socket.as_fd());
            assert_eq!(found, expected, "errno {number}");
        }
    }
}
