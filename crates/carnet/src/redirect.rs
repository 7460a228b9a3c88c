use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    CONTEXT_MAX, Error, Flow, RECORDS_MAX, Records, State, dial,
    sys::{self, AsSocket, BorrowedSocket, Item},
};

/// A service's view of a connection it accepted; borrows the socket and leaves it as it is.
///
/// All questions may be asked any number of times, at any time after `accept()`, also when the client is gone already.
#[derive(Clone, Copy, Debug)]
pub struct Redirect<'s> {
    socket: BorrowedSocket<'s>,
}

impl<'s> Redirect<'s> {
    /// The view of an accepted socket: std's, tokio's, socket2's or any other.
    pub fn of(socket: &'s impl AsSocket) -> Self {
        Self { socket: sys::borrow(socket) }
    }

    /// Where the connection was going, who made it, and which services have had it.
    ///
    /// # Errors
    ///
    /// [`NotRedirected`](crate::ErrorKind::NotRedirected), [`ContextLost`](crate::ErrorKind::ContextLost),
    /// [`NoEngine`](crate::ErrorKind::NoEngine), [`NotTcp`](crate::ErrorKind::NotTcp); so for the other questions, too.
    pub fn flow(&self) -> Result<Flow, Error> {
        let mut buffer = [0; size_of::<carnet_abi::Flow>()];
        Flow::from_bytes(self.query(Item::Flow, &mut buffer)?)
    }

    /// The connection's record, to be set on the socket with which the service goes on.
    ///
    /// # Errors
    ///
    /// As [`flow`](Self::flow).
    #[doc(alias = "SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS")]
    pub fn records(&self) -> Result<Records, Error> {
        let mut buffer = [0; RECORDS_MAX];
        Records::from_bytes(self.query(Item::Records, &mut buffer)?)
    }

    /// The bytes which the filter that redirected gives to this service, at most [`CONTEXT_MAX`]. `None`: the
    /// connection was redirected, and the filter gives none.
    ///
    /// # Errors
    ///
    /// As [`flow`](Self::flow).
    #[doc(alias = "SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT")]
    pub fn context(&self) -> Result<Option<Vec<u8>>, Error> {
        let mut buffer = [0; CONTEXT_MAX];
        match self.query(Item::Context, &mut buffer) {
            Ok(context) => Ok(Some(context.to_vec())),
            Err(error) if sys::is_no_context(error.io_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether this service has had the flow. A connection without a record is an answer here, and no error.
    ///
    /// # Errors
    ///
    /// [`NoEngine`](crate::ErrorKind::NoEngine), [`NotTcp`](crate::ErrorKind::NotTcp),
    /// [`Malformed`](crate::ErrorKind::Malformed) where the engine knows more states than this library.
    #[doc(alias = "FWPS_CONNECTION_REDIRECT_STATE")]
    pub fn state(&self) -> Result<State, Error> {
        let mut buffer = [0; 4];
        let answer = self.query(Item::State, &mut buffer)?;
        let Ok(raw) = answer.try_into().map(u32::from_ne_bytes) else {
            return Err(Error::malformed(Item::State, format!("{} bytes, not 4", answer.len())));
        };
        State::from_raw(raw).ok_or_else(|| Error::malformed(Item::State, format!("no state has the number {raw}")))
    }

    /// The destination of this hop by `SO_ORIGINAL_DST`, for a service that also works behind netfilter's `REDIRECT`.
    ///
    /// Netfilter answers with the service's own address where connections are tracked and this one was not redirected:
    /// compare with the socket's local address before dialling. [`flow`](Self::flow) has no such trap.
    ///
    /// # Errors
    ///
    /// [`NotRedirected`](crate::ErrorKind::NotRedirected) (also where the record is lost),
    /// [`NoEngine`](crate::ErrorKind::NoEngine) where neither Carnet nor netfilter answers,
    /// [`NotTcp`](crate::ErrorKind::NotTcp).
    #[doc(alias = "SO_ORIGINAL_DST")]
    #[doc(alias = "IP6T_SO_ORIGINAL_DST")]
    pub fn original_destination(&self) -> Result<SocketAddr, Error> {
        sys::original_destination(self.socket).map_err(|source| Error::original_destination(self.socket, source))
    }

    /// Goes on to [`Flow::destination`]: [`dial`](crate::dial) for this socket.
    ///
    /// # Errors
    ///
    /// As [`dial`](crate::dial).
    pub fn dial(&self) -> Result<TcpStream, Error> {
        dial(&self.socket)
    }

    /// Goes on to [`Flow::destination`]: [`dial_timeout`](crate::dial_timeout) for this socket.
    ///
    /// # Errors
    ///
    /// As [`dial_timeout`](crate::dial_timeout).
    pub fn dial_timeout(&self, timeout: Duration) -> Result<TcpStream, Error> {
        crate::dial_timeout(&self.socket, timeout)
    }

    fn query<'b>(&self, item: Item, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
        match sys::query(self.socket, item, buffer) {
            Ok(length) => Ok(&buffer[..length]),
            Err(source) => Err(Error::query(item, self.socket, source)),
        }
    }
}
