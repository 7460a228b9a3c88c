//! Windows: `WSAIoctl` with the codes of the Windows Filtering Platform.

mod answer;
pub(crate) mod datagram;
mod ioctl;
mod kind;
mod original_destination;
mod protocol;
pub(crate) mod words;

pub(crate) use std::os::windows::io::{AsSocket, BorrowedSocket};

use std::{io, os::windows::io::AsRawSocket, path::PathBuf, time::Duration};

use windows_sys::Win32::Networking::WinSock::{SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, WSAETIMEDOUT};

use self::ioctl::ioctl;
pub(crate) use self::{
    answer::is_no_context,
    kind::{kind_of_apply, kind_of_datagram, kind_of_query},
    original_destination::original_destination,
};
use crate::{Executable, sys::Item};

/// No maximum is documented. Those who ask in earnest give up at this size.
pub const RECORDS_MAX: usize = 64 << 10;
/// Longest context that is read.
pub const CONTEXT_MAX: usize = 64 << 10;

/// What a proxy passes on where a connection took too long.
pub(crate) const TIMED_OUT: i32 = WSAETIMEDOUT;

pub(crate) fn borrow(socket: &impl AsSocket) -> BorrowedSocket<'_> {
    socket.as_socket()
}

/// The socket as the calls have it.
pub(crate) fn number(socket: BorrowedSocket<'_>) -> usize {
    // A 64-bit number on every Windows, of which 32-bit ones use half.
    socket.as_raw_socket() as usize
}

/// Reads `item` into `buffer`; the answer's length is at most the buffer's.
pub(crate) fn query(socket: BorrowedSocket<'_>, item: Item, buffer: &mut [u8]) -> io::Result<usize> {
    answer::answer(item, buffer, &mut |code, room| ioctl(socket, code, &[], room))
}

/// Puts a records blob on a socket that has not connected.
pub(crate) fn apply(socket: BorrowedSocket<'_>, records: &[u8]) -> io::Result<()> {
    match ioctl(socket, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, records, &mut []) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refusal.error),
    }
}

/// A record tells device and inode, which only Linux has.
pub(crate) fn executable_path(_pid: u32, _start_time: Duration, _executable: Executable) -> Option<PathBuf> {
    None
}
