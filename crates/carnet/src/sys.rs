//! The operating system's side, one file per system behind the same names:
//!
//! - `AsSocket`, `BorrowedSocket`, `borrow`: whatever the system calls a socket that somebody else owns.
//! - `query(socket, item, buffer) -> io::Result<length>`: one answer about an accepted socket.
//! - `apply(socket, records) -> io::Result<()>`: put a records blob on an outgoing socket.
//! - `is_no_context(error) -> bool`: whether a query for the context says that the filter gives none.
//! - `kind(error, socket) -> ErrorKind`: what the system's error code of those two means.

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "socket options with our own level have no safe interface")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use linux::{AsSocket, BorrowedSocket, apply, borrow, is_no_context, kind, query};

#[cfg(not(target_os = "linux"))]
compile_error!("carnet redirects connections on Linux only, so far");

/// What can be asked of an accepted socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Item {
    Context,
    Flow,
    Records,
    State,
}
