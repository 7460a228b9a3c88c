//! The same for tokio. [`Redirect`] takes tokio's sockets as they are; only dialling waits.

#[cfg(target_os = "linux")]
mod completions;

use std::net;

use ::tokio::net::{TcpSocket, TcpStream};

#[cfg(target_os = "linux")]
pub use self::completions::Completions;
use crate::{Error, Redirect, sys::AsSocket};

/// [`dial`](crate::dial) without blocking; the record is set before the first wait.
///
/// For a time limit, put it into `tokio::time::timeout`. Dropping the future closes the socket.
///
/// # Errors
///
/// As [`dial`](crate::dial).
///
/// # Panics
///
/// As tokio's sockets: outside of a runtime with I/O enabled.
pub async fn dial(accepted: &impl AsSocket) -> Result<TcpStream, Error> {
    let (socket, flow) = crate::dial::prepare(&Redirect::of(accepted))?;
    // tokio does not do that when it takes a socket over.
    socket.set_nonblocking(true).map_err(Error::socket)?;
    let socket = TcpSocket::from_std_stream(net::TcpStream::from(socket));
    socket.connect(flow.destination()).await.map_err(|source| Error::connect(flow.destination(), source))
}
