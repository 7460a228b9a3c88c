//! One of the three operations, on a socket: what the engine answers, in the contract's numbers.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use carnet_abi::{CONTEXT_MAX, RECORDS_MAX};
use socket2::SockRef;

use crate::{
    sys::{self, Item, Memory},
    winsock::numbers::*,
};

/// What is asked of a socket.
#[derive(Debug)]
pub(crate) enum Request {
    Query { item: Item, output: Memory },
    Set { records: Vec<u8> },
}

/// Why it failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    pub(crate) error: i32,
    /// The bytes returned: 0, or the size that the buffer must have.
    pub(crate) bytes: u32,
}

impl From<i32> for Failure {
    fn from(error: i32) -> Self {
        Self { error, bytes: 0 }
    }
}

impl Request {
    /// The bytes returned: those put out.
    pub(crate) fn perform(&self, socket: &impl AsFd) -> Result<u32, Failure> {
        let socket = socket.as_fd();
        match self {
            Self::Query { item, output } => query(socket, *item, *output),
            Self::Set { records } => match sys::apply(socket, records) {
                Ok(()) => Ok(0),
                Err(error) => Err(set_error(&error, socket).into()),
            },
        }
    }
}

fn query(socket: BorrowedFd<'_>, item: Item, output: Memory) -> Result<u32, Failure> {
    let mut buffer = [0; if CONTEXT_MAX > RECORDS_MAX { CONTEXT_MAX } else { RECORDS_MAX }];
    let length = sys::query(socket, item, &mut buffer).map_err(|error| Failure::from(query_error(&error, socket)))?;
    // At most the buffer's.
    let bytes = u32::try_from(length).unwrap_or(u32::MAX);
    if length > output.length() {
        return Err(Failure { error: ERROR_INSUFFICIENT_BUFFER.cast_signed(), bytes });
    }
    match output.write(&buffer[..length]) {
        Ok(()) => Ok(bytes),
        Err(_fault) => Err(WSAEFAULT.into()),
    }
}

fn query_error(error: &io::Error, socket: BorrowedFd<'_>) -> i32 {
    match error.raw_os_error() {
        Some(libc::ENODATA) if !is_connected(socket) => WSAENOTCONN,
        // Redirected, and the filter gives no context.
        Some(libc::ENOENT) => FWP_E_NOT_FOUND,
        Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT) if !sys::is_tcp(socket) => WSAENOPROTOOPT,
        code => any_error(code),
    }
}

fn set_error(error: &io::Error, socket: BorrowedFd<'_>) -> i32 {
    match error.raw_os_error() {
        // The page of SET knows no WSAENOPROTOOPT: "not applicable to the type of socket".
        Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT) if !sys::is_tcp(socket) => WSAEINVAL,
        code => any_error(code),
    }
}

/// Those that mean the same in every operation. Not all of them can happen: `docs/contract.md` says which.
fn any_error(code: Option<i32>) -> i32 {
    match code {
        Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT) => WSAEOPNOTSUPP,
        Some(libc::EACCES | libc::EPERM) => WSAEACCES,
        Some(libc::EISCONN) => WSAEISCONN,
        Some(libc::ENOTCONN) => WSAENOTCONN,
        Some(libc::EBADF | libc::ENOTSOCK) => WSAENOTSOCK,
        Some(libc::ENOBUFS | libc::ENOMEM) => WSAENOBUFS,
        Some(libc::EFAULT) => WSAEFAULT,
        Some(libc::EINTR) => WSAEINTR,
        Some(libc::ENETDOWN) => WSAENETDOWN,
        Some(libc::ECANCELED) => WSA_OPERATION_ABORTED,
        // ENODATA, EIDRM; EINVAL, EBADMSG, ESTALE: no record to be had, or none that is acceptable.
        _ => WSAEINVAL,
    }
}

fn is_connected(socket: BorrowedFd<'_>) -> bool {
    SockRef::from(&socket).peer_addr().is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    /// The rows that need an engine are in the contract suite, which runs below one.
    #[test]
    fn every_number_of_the_engine_has_the_contracts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (connected, idle) = (client.as_fd(), listener.as_fd());
        let number = io::Error::from_raw_os_error;

        for (errno, error) in [
            (libc::ENODATA, WSAEINVAL),
            (libc::EIDRM, WSAEINVAL),
            (libc::ENOENT, FWP_E_NOT_FOUND),
            (libc::EOPNOTSUPP, WSAEOPNOTSUPP),
            (libc::ENOPROTOOPT, WSAEOPNOTSUPP),
            (libc::EBADF, WSAENOTSOCK),
            (libc::ENOTSOCK, WSAENOTSOCK),
            (libc::EFAULT, WSAEFAULT),
            (libc::ENOBUFS, WSAENOBUFS),
            (libc::EINTR, WSAEINTR),
            (libc::ENETDOWN, WSAENETDOWN),
            (libc::ENOTCONN, WSAENOTCONN),
        ] {
            assert_eq!(query_error(&number(errno), connected), error, "errno {errno}");
        }
        assert_eq!(query_error(&number(libc::ENODATA), idle), WSAENOTCONN);

        for (errno, error) in [
            (libc::EACCES, WSAEACCES),
            (libc::EINVAL, WSAEINVAL),
            (libc::EBADMSG, WSAEINVAL),
            (libc::ESTALE, WSAEINVAL),
            (libc::EISCONN, WSAEISCONN),
            (libc::EOPNOTSUPP, WSAEOPNOTSUPP),
            (libc::ENOBUFS, WSAENOBUFS),
        ] {
            assert_eq!(set_error(&number(errno), idle), error, "errno {errno}");
        }
    }

    #[test]
    fn a_datagram_socket_is_of_the_wrong_protocol() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for errno in [libc::EOPNOTSUPP, libc::ENOPROTOOPT] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(query_error(&error, socket.as_fd()), WSAENOPROTOOPT);
            assert_eq!(set_error(&error, socket.as_fd()), WSAEINVAL);
        }
    }
}
