//! The operating system's side, one file per system behind the same names:
//!
//! - `AsSocket`, `BorrowedSocket`, `borrow`: whatever the system calls a socket that somebody else owns.
//! - `query(socket, item, buffer) -> io::Result<length>`: one answer about an accepted socket.
//! - `apply(socket, records) -> io::Result<()>`: put a records blob on an outgoing socket.
//! - `original_destination(socket) -> io::Result<SocketAddr>`: the answer of `SO_ORIGINAL_DST`.
//! - `is_no_context(error) -> bool`: whether a query for the context says that the filter gives none.
//! - `kind_of_query(error, socket)`, `kind_of_apply(error, socket) -> ErrorKind`: what the system's error codes mean.
//! - `executable_path(pid, start_time, executable) -> Option<PathBuf>`.
//! - `number(socket)`: the socket as C programs have it.
//! - `words`: how the calls are called in messages, and what to do about an error.
//! - `datagram`, `kind_of_datagram`: on Windows alone, for the module of that name.
//! - `CONTEXT_MAX`, `RECORDS_MAX`: the longest answers. `TIMED_OUT`: the number of a connection that took too long.

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "socket options with our own level have no safe interface")]
pub(crate) mod linux;
#[allow(unsafe_code, reason = "the calls of Winsock take raw pointers")]
mod overlapped;
#[cfg(any(windows, test))]
mod size_protocol;
#[cfg(windows)]
#[allow(unsafe_code, reason = "the calls of Winsock have no safe interface")]
mod windows;

pub(crate) use self::overlapped::ioctl;
pub use self::overlapped::{Attached, Completion, CompletionQueue, Operation, begin_with, wait_alertable};

#[cfg(target_os = "linux")]
pub use carnet_abi::{CONTEXT_MAX, RECORDS_MAX};
#[cfg(all(target_os = "linux", feature = "tokio"))]
pub(crate) use linux::watch;
#[cfg(target_os = "linux")]
pub(crate) use linux::{
    AsSocket, BorrowedSocket, TIMED_OUT, apply, borrow, executable_path, is_no_context, kind as kind_of_apply,
    kind as kind_of_query, number, original_destination, query, words,
};
// What `winsock` is made of where the system has no Winsock.
#[cfg(target_os = "linux")]
pub(crate) use {
    crate::winsock::linux::port::Readiness,
    linux::{Memory, cookie_of, is_tcp, spawn},
};

#[cfg(windows)]
pub(crate) use windows::{
    AsSocket, BorrowedSocket, TIMED_OUT, apply, borrow, datagram, executable_path, is_no_context, kind_of_apply,
    kind_of_datagram, kind_of_query, number, original_destination, query, words,
};
#[cfg(windows)]
pub use windows::{CONTEXT_MAX, RECORDS_MAX};

#[cfg(not(any(target_os = "linux", windows)))]
compile_error!("carnet is for Linux and Windows");

/// Whether a records blob begins with its version and size, as the engine's does. Windows' has no format that is told.
pub(crate) const RECORDS_HAVE_A_HEADER: bool = cfg!(target_os = "linux");

/// What can be asked of an accepted socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Item {
    Context,
    Flow,
    Records,
    State,
}
