//! `SO_ORIGINAL_DST`, which Windows Server 2022 answers for connections that a policy of its host network service has
//! redirected.

use std::{io, net::SocketAddr, os::windows::io::BorrowedSocket};

use socket2::SockAddr;
use windows_sys::Win32::Networking::WinSock::{SO_ORIGINAL_DST, SOL_IP, SOL_IPV6, SOL_SOCKET, getsockopt};

use super::number;

/// The first answer of a level that has one, or the error of the first.
pub(crate) fn original_destination(socket: BorrowedSocket<'_>) -> io::Result<SocketAddr> {
    let [first, others @ ..] = LEVELS;
    ask(socket, first)
        .or_else(|error| others.into_iter().find_map(|level| ask(socket, level).ok()).ok_or(error))?
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an IP address"))
}

fn ask(socket: BorrowedSocket<'_>, level: i32) -> io::Result<SockAddr> {
    // SAFETY: the socket is open, for it is borrowed. `try_init` gives storage that is writable for `length` bytes; an
    // address that the call writes there says its family first.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            match getsockopt(number(socket), level, SO_ORIGINAL_DST as i32, storage.cast(), length) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })?
    };
    Ok(address)
}

/// The header which has the option says no level. Beside it are two that only sources for netfilter have a use for, and
/// Envoy asks at the first of them; by its number it is an option of the third.
const LEVELS: [i32; 3] = [SOL_IP as i32, SOL_IPV6 as i32, SOL_SOCKET];
