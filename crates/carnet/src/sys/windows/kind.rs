//! What the system's error codes mean.

use std::{io, os::windows::io::BorrowedSocket};

use windows_sys::Win32::{
    Foundation::FWP_E_NOT_FOUND,
    Networking::WinSock::{IPPROTO_TCP, WSAEACCES, WSAEINVAL, WSAEISCONN, WSAENOPROTOOPT, WSAEOPNOTSUPP},
};

use super::{answer::is_not_redirected, protocol::protocol};
use crate::ErrorKind;

/// What an error of a query or of `SO_ORIGINAL_DST` means.
pub(crate) fn kind_of_query(error: &io::Error, socket: BorrowedSocket<'_>) -> ErrorKind {
    match error.raw_os_error() {
        None if error.kind() == io::ErrorKind::NotFound => ErrorKind::NoFlow,
        Some(FWP_E_NOT_FOUND) => ErrorKind::NoFlow,
        _ if is_not_redirected(error) => ErrorKind::NotRedirected,
        _ => kind(error, socket),
    }
}

/// What an error of setting records means.
pub(crate) fn kind_of_apply(error: &io::Error, socket: BorrowedSocket<'_>) -> ErrorKind {
    match error.raw_os_error() {
        Some(WSAEINVAL) => ErrorKind::Malformed,
        Some(WSAEACCES) => ErrorKind::NotOwner,
        Some(WSAEISCONN) => ErrorKind::AlreadyConnected,
        _ => kind(error, socket),
    }
}

/// What an error of a call about datagrams means.
pub(crate) fn kind_of_datagram(error: &io::Error) -> ErrorKind {
    match error.raw_os_error() {
        None => ErrorKind::Malformed,
        Some(WSAEOPNOTSUPP | WSAENOPROTOOPT) => ErrorKind::NoEngine,
        Some(_) => ErrorKind::Io,
    }
}

fn kind(error: &io::Error, socket: BorrowedSocket<'_>) -> ErrorKind {
    match error.raw_os_error() {
        None => ErrorKind::Malformed,
        Some(WSAEOPNOTSUPP | WSAENOPROTOOPT) if is_tcp(socket) => ErrorKind::NoEngine,
        Some(WSAEOPNOTSUPP | WSAENOPROTOOPT) => ErrorKind::NotTcp,
        Some(_) => ErrorKind::Io,
    }
}

fn is_tcp(socket: BorrowedSocket<'_>) -> bool {
    protocol(socket).is_ok_and(|protocol| protocol.iProtocol == IPPROTO_TCP)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::windows::io::AsSocket,
    };

    use windows_sys::Win32::Networking::WinSock::{WSAEFAULT, WSAENETDOWN, WSAENOBUFS, WSAENOTCONN, WSAENOTSOCK};

    use super::*;

    /// The tables of the system's answers: of a query, and of setting records.
    #[test]
    fn every_number_has_its_kind() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        for (number, of_query, of_apply) in [
            (WSAEINVAL, ErrorKind::NotRedirected, ErrorKind::Malformed),
            (WSAENOTCONN, ErrorKind::NotRedirected, ErrorKind::Io),
            (1168, ErrorKind::NotRedirected, ErrorKind::Io),
            (FWP_E_NOT_FOUND, ErrorKind::NoFlow, ErrorKind::Io),
            (WSAEACCES, ErrorKind::Io, ErrorKind::NotOwner),
            (WSAEISCONN, ErrorKind::Io, ErrorKind::AlreadyConnected),
            (WSAEOPNOTSUPP, ErrorKind::NoEngine, ErrorKind::NoEngine),
            (WSAENOPROTOOPT, ErrorKind::NoEngine, ErrorKind::NoEngine),
            (WSAEFAULT, ErrorKind::Io, ErrorKind::Io),
            (WSAENOBUFS, ErrorKind::Io, ErrorKind::Io),
            (WSAENOTSOCK, ErrorKind::Io, ErrorKind::Io),
            (WSAENETDOWN, ErrorKind::Io, ErrorKind::Io),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(kind_of_query(&error, socket.as_socket()), of_query, "query, {number}");
            assert_eq!(kind_of_apply(&error, socket.as_socket()), of_apply, "apply, {number}");
        }
    }

    #[test]
    fn sockets_that_are_not_tcp_are_told_apart() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let error = io::Error::from_raw_os_error(WSAEOPNOTSUPP);
        assert_eq!(kind_of_query(&error, socket.as_socket()), ErrorKind::NotTcp);
        assert_eq!(kind_of_apply(&error, socket.as_socket()), ErrorKind::NotTcp);
    }
}
