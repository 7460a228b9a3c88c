use std::net::SocketAddr;

use super::{
    Redirected,
    control::{self, Message},
};
use crate::{
    Error, Records,
    sys::{self, AsSocket, BorrowedSocket, datagram},
};

/// A service's view of a UDP socket to which datagrams are redirected; borrows it and leaves it as it is.
#[derive(Debug)]
pub struct Listener<'s> {
    socket: BorrowedSocket<'s>,
    receiver: datagram::Receiver,
    /// Of u64, for control data is laid out in rows of that size.
    control: Vec<u64>,
}

/// A datagram.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// How many bytes of the buffer it takes.
    pub length: usize,
    /// Who sent it: the client. Answers go there, and later datagrams of the flow come from there.
    pub source: SocketAddr,
    /// What redirected it.
    pub redirected: Redirected,
    /// It was longer than the buffer, and its end is lost; or control data was, and the system did not say how long it
    /// is.
    pub is_cut: bool,
    /// Control data was lost, and with it perhaps records or context: [`Listener::with_control_room`].
    pub is_control_cut: bool,
}

impl<'s> Listener<'s> {
    /// The view of a UDP socket, which from now on is told of records and contexts: at the level of its family, and
    /// where it takes both families, at both.
    ///
    /// Call it before the first datagram can come, for what came before is not told later.
    ///
    /// # Errors
    ///
    /// [`NoEngine`](crate::ErrorKind::NoEngine) where the system knows no such options.
    pub fn of(socket: &'s impl AsSocket) -> Result<Self, Error> {
        let socket = sys::borrow(socket);
        datagram::opt_in(socket).map_err(|source| failed(datagram::OPT_IN, source))?;
        let receiver = datagram::Receiver::of(socket).map_err(|source| failed(datagram::RECEIVE, source))?;
        Ok(Self { socket, receiver, control: vec![0; CONTROL_ROOM / size_of::<u64>()] })
    }

    /// With room for so many bytes of control data, where a filter's contexts, or other options which the socket has,
    /// need more than the usual 16 KiB.
    #[must_use]
    pub fn with_control_room(mut self, bytes: usize) -> Self {
        self.control = vec![0; bytes.div_ceil(size_of::<u64>())];
        self
    }

    /// Waits for a datagram, unless the socket is one that does not wait, and reads it into `buffer`.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io): among others `WouldBlock`, and `ConnectionReset` where something that was sent
    /// from this socket has come to a closed port. Both are no reason to end.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Error> {
        let control = zerocopy::IntoBytes::as_mut_bytes(self.control.as_mut_slice());
        let arrived = self.receiver.receive(self.socket, buffer, control);
        let arrived = arrived.map_err(|source| failed(datagram::RECEIVE, source))?;
        Ok(Received {
            length: arrived.length,
            source: arrived.source,
            redirected: Redirected::from_control(&control[..arrived.control])?,
            is_cut: arrived.is_cut,
            is_control_cut: arrived.is_control_cut,
        })
    }
}

/// Sends a flow's first datagram on, with its record beside it, and returns how many bytes went. Those after it need no
/// record, and go by the socket's own `send_to`.
///
/// # Errors
///
/// [`NoEngine`](crate::ErrorKind::NoEngine), [`Io`](crate::ErrorKind::Io). Where it fails do not send the datagram
/// without the record: it would look like a new flow of the service's own.
pub fn send(
    socket: &impl AsSocket,
    datagram: &[u8],
    destination: SocketAddr,
    records: &Records,
) -> Result<usize, Error> {
    let (level, kind) = datagram::records_message(destination);
    let control = control::encode(&[Message { level, kind, data: records.as_bytes() }]);
    let sent = datagram::send(sys::borrow(socket), datagram, destination, &control);
    sent.map_err(|source| failed(datagram::SEND, source))
}

fn failed(call: &'static str, source: std::io::Error) -> Error {
    Error::named(sys::kind_of_datagram(&source), call, source)
}

/// Twice what those who ask for records leave room for.
const CONTROL_ROOM: usize = 16 << 10;
