//! How sockets are made and closed where that matters.

use std::{io, ptr};

use carnet::winsock::{self as ws, SOCKET};

use super::{Told, forget_error, last_error, told};

/// A socket made by `WSASocketW`, without the overlapped attribute. Closed when dropped.
pub struct NotOverlapped(SOCKET);

impl NotOverlapped {
    pub fn tcp() -> io::Result<Self> {
        const AF_INET: i32 = 2;
        const SOCK_STREAM: i32 = 1;
        const IPPROTO_TCP: i32 = 6;
        // SAFETY: numbers, and no protocol information.
        match unsafe { ws::WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, ptr::null(), 0, 0) } {
            ws::INVALID_SOCKET => Err(io::Error::other(format!("WSASocketW: {}", last_error()))),
            number => Ok(Self(number)),
        }
    }

    pub fn number(&self) -> SOCKET {
        self.0
    }
}

impl Drop for NotOverlapped {
    fn drop(&mut self) {
        // SAFETY: this value's own.
        unsafe { ws::closesocket(self.0) };
    }
}

/// `closesocket`.
pub fn close(socket: impl Into<socket2::Socket>) -> Told {
    let socket = socket.into();
    #[cfg(unix)]
    let number = std::os::fd::IntoRawFd::into_raw_fd(socket) as SOCKET;
    #[cfg(windows)]
    let number = std::os::windows::io::IntoRawSocket::into_raw_socket(socket) as SOCKET;
    forget_error();
    // SAFETY: it was this function's own, and nobody has it any more.
    told("closesocket", unsafe { ws::closesocket(number) }, None)
}

/// `closesocket` of a number that is no socket's.
pub fn close_invalid() -> Told {
    forget_error();
    // SAFETY: there is nothing to close.
    told("closesocket", unsafe { ws::closesocket(ws::INVALID_SOCKET) }, None)
}
