mod direction;

use std::{io, net::Shutdown, sync::atomic::AtomicBool, time::Duration};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use self::direction::{Broken, Direction};

/// How a relay ended.
#[derive(Debug)]
pub struct Relayed {
    /// Bytes which the server's socket took.
    pub to_server: u64,
    /// Bytes which the client's socket took.
    pub to_client: u64,
    /// How.
    pub end: End,
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// Each side said that it sends no more, and got all that the other one sent.
    Closed,
    /// One side's connection broke, and the other one's was reset.
    Reset {
        /// Whose broke.
        by: Side,
        /// The cause, `ECONNRESET` or `EPIPE` most often.
        error: io::Error,
    },
}

/// One of the two ends of a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// Who connected.
    Client,
    /// To whom.
    Server,
}

/// Passes bytes both ways until both sides have ended; `observe` sees what the client sends, after it was passed on, and
/// an empty slice where it ends its data.
///
/// The two connections behave as one, as far as two sockets can:
///
/// - An end of data (FIN) is passed on for its direction; the other direction goes on.
/// - A reset is passed on as a reset, also in a direction which waits or has ended. What the broken side sent before is
///   offered to the other side first.
/// - While one side does not read, nothing is read from the other one, so that its sender waits too.
/// - Nothing is held back: Nagle's algorithm is off on both sides.
/// - Urgent data is passed as ordinary data.
///
/// Where the relay does not come to its end, because its future is dropped or its process killed, both connections are
/// reset: half an answer never looks like a whole one.
pub async fn relay(client: TcpStream, server: TcpStream, observe: impl FnMut(&[u8]) + Send) -> Relayed {
    relay_after(Vec::new(), client, server, observe, |_| {}).await
}

/// As [`relay`], after `early`: what the client has sent and the server has not got yet, which is not observed. Each
/// direction is observed, and an empty slice is its end of data.
pub async fn relay_after(
    early: Vec<u8>,
    client: TcpStream,
    server: TcpStream,
    from_client: impl FnMut(&[u8]) + Send,
    from_server: impl FnMut(&[u8]) + Send,
) -> Relayed {
    for socket in [&client, &server] {
        reset_when_closed(socket, true);
        let socket = SockRef::from(socket);
        // Neither can fail on a TCP socket, nor would it be a reason to end the flow.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_out_of_band_inline(true);
    }
    let mut to_server = Direction::new(&client, &server, from_client).after(early);
    let mut to_client = Direction::new(&server, &client, from_server);

    let half_closed = AtomicBool::new(false);
    // Not biased: one direction that always has something to do would keep the other one waiting.
    let (by, result) = tokio::select! {
        result = to_server.run(&half_closed) => (Side::Client, result),
        result = to_client.run(&half_closed) => (Side::Server, result),
    };
    let end = match result {
        Ok(()) => {
            [&client, &server].into_iter().for_each(|socket| reset_when_closed(socket, false));
            End::Closed
        }
        Err(Broken { receiver, error }) => {
            let by = if receiver { by.other() } else { by };
            match by {
                Side::Client => to_server.drain(),
                Side::Server => to_client.drain(),
            }
            End::Reset { by, error }
        }
    };
    Relayed { to_server: to_server.passed(), to_client: to_client.passed(), end }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Whether closing the socket, be it by the kernel after a SIGKILL, resets the connection.
pub(crate) fn reset_when_closed(socket: &TcpStream, reset: bool) {
    // Fails only on what is no socket.
    let _ = SockRef::from(socket).set_linger(reset.then_some(Duration::ZERO));
}

/// Waits until the connection is broken: reset, timed out, unreachable. An end of data does not count.
pub(crate) async fn broken(socket: &TcpStream) -> io::Error {
    match socket.ready(Interest::ERROR).await {
        Ok(_) => {
            let error = socket.take_error().ok().flatten();
            error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
        }
        Err(error) => error,
    }
}

fn end_of_data(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).shutdown(Shutdown::Write)
}
