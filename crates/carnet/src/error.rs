use std::{fmt, io, net::SocketAddr};

use crate::sys::{self, BorrowedSocket, Item, words};

/// What went wrong, in which call.
///
/// `{}` prints the call and what to do next, `{:#}` also the cause, which is the operating system's error wherever
/// there was one ([`source`](std::error::Error::source), [`Error::io_error`], [`Error::os_error`]).
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    call: Call,
    source: io::Error,
}

/// What a service can act on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The outgoing socket has connected, or was accepted: a record is set before `connect()`.
    AlreadyConnected,
    /// The connection came to a redirect service's listener, but its record is missing. Close it.
    ContextLost,
    /// The records are not as the engine gave them.
    Forged,
    /// The operating system's error, without a meaning of Carnet's; refusals of a dialled destination are here.
    Io,
    /// Bytes of a length or version that cannot be records or an answer; or the socket listens.
    Malformed,
    /// The connection was redirected, and by a callout that says nothing of the flow in a form which this library
    /// reads. The bytes it gives are [`Redirect::context`](crate::Redirect::context); read the destination from those.
    /// Only on Windows.
    NoFlow,
    /// No engine answers on this socket: none is loaded, or the service runs outside the cgroups it covers.
    NoEngine,
    /// Records are accepted only from the service to which the newest redirect went; on Windows, from administrators.
    NotOwner,
    /// There is no record: the connection was not redirected.
    NotRedirected,
    /// Only sockets of TCP and MPTCP have records.
    NotTcp,
    /// The records were read too long ago, or come from another engine.
    Stale,
}

/// The call that failed, for the message.
#[derive(Clone, Copy, Debug)]
enum Call {
    Query(Item),
    Apply,
    Decode(Item),
    Connect(SocketAddr),
    Named(&'static str),
}

impl Error {
    /// What a service can act on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operating system's error number, for instance `ECONNREFUSED` of a dialled destination. `None` where bytes
    /// were at fault and no call.
    pub fn os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// The cause.
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }

    pub(crate) fn query(item: Item, socket: BorrowedSocket<'_>, source: io::Error) -> Self {
        Self { kind: sys::kind_of_query(&source, socket), call: Call::Query(item), source }
    }

    pub(crate) fn original_destination(socket: BorrowedSocket<'_>, source: io::Error) -> Self {
        Self::named(sys::kind_of_query(&source, socket), words::ORIGINAL_DESTINATION, source)
    }

    pub(crate) fn apply(socket: BorrowedSocket<'_>, source: io::Error) -> Self {
        Self { kind: sys::kind_of_apply(&source, socket), call: Call::Apply, source }
    }

    pub(crate) fn malformed(item: Item, what: String) -> Self {
        let source = io::Error::new(io::ErrorKind::InvalidData, what);
        Self { kind: ErrorKind::Malformed, call: Call::Decode(item), source }
    }

    pub(crate) fn socket(source: io::Error) -> Self {
        Self::named(ErrorKind::Io, "socket", source)
    }

    pub(crate) fn named(kind: ErrorKind, call: &'static str, source: io::Error) -> Self {
        Self { kind, call: Call::Named(call), source }
    }

    /// Always [`ErrorKind::Io`]: the numbers of `connect()` are the destination's, not the options'.
    pub(crate) fn connect(destination: SocketAddr, source: io::Error) -> Self {
        Self { kind: ErrorKind::Io, call: Call::Connect(destination), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.advice())?;
        if f.alternate() { write!(f, ": {}", self.source) } else { Ok(()) }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<Error> for io::Error {
    /// The cause alone where the operating system gave it, so that its number survives; else the whole error.
    fn from(error: Error) -> Self {
        match error.os_error() {
            Some(_) => error.source,
            None => Self::new(error.source.kind(), error),
        }
    }
}

impl Error {
    fn advice(&self) -> &'static str {
        match (self.kind, self.call) {
            (ErrorKind::AlreadyConnected, _) => {
                "the socket has connected; set the records on a new socket, then connect"
            }
            (ErrorKind::ContextLost, _) => "the record of this redirected connection is missing; close the connection",
            (ErrorKind::Forged, _) => "the records were changed; pass on the bytes as they were read",
            (ErrorKind::Io, Call::Connect(_)) => "no connection; pass the refusal on to the client",
            (ErrorKind::Io, _) => "the operating system refused",
            (ErrorKind::Malformed, Call::Apply) => {
                "bad size or version, or a listener; pass on the bytes as they were read, to a new socket"
            }
            (ErrorKind::Malformed, _) => "not an answer this version of the library knows; use the engine's version",
            (ErrorKind::NoEngine, _) => words::NO_ENGINE,
            (ErrorKind::NoFlow, _) => "the redirect context has no flow; read the filter's own bytes with context()",
            (ErrorKind::NotOwner, _) => words::NOT_OWNER,
            (ErrorKind::NotRedirected, _) => {
                "the connection was not redirected, so it has no destination; close the connection"
            }
            (ErrorKind::NotTcp, _) => "not a TCP socket; use one",
            (ErrorKind::Stale, _) => {
                "the records are too old or another engine's; read them again just before they are set"
            }
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(item) => f.write_str(words::query(*item)),
            Self::Apply => f.write_str(words::APPLY),
            Self::Decode(item) => f.write_str(words::decode(*item)),
            Self::Connect(destination) => write!(f, "connect to {destination}"),
            Self::Named(call) => f.write_str(call),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_destinations_whatever_its_number() {
        let destination = "192.0.2.7:80".parse().unwrap();
        for number in [1, 13, 40, 111, 10013, 10061] {
            let error = Error::connect(destination, io::Error::from_raw_os_error(number));
            assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(number)));
            assert_eq!(io::Error::from(error).raw_os_error(), Some(number));
        }
    }

    #[test]
    fn the_cause_is_the_systems_error() {
        let destination = "192.0.2.7:80".parse().unwrap();
        let cause = || io::Error::from_raw_os_error(13);
        let error = Error::connect(destination, cause());
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), cause().to_string());
        assert_eq!(error.io_error().raw_os_error(), Some(13));
    }

    #[test]
    fn messages_name_the_call_and_the_next_step_and_on_demand_the_cause() {
        let destination = "192.0.2.7:80".parse().unwrap();
        let error = Error::connect(destination, io::Error::from_raw_os_error(sys::TIMED_OUT));
        assert_eq!(error.to_string(), "connect to 192.0.2.7:80: no connection; pass the refusal on to the client");
        assert_eq!(format!("{error:#}"), format!("{error}: {}", io::Error::from_raw_os_error(sys::TIMED_OUT)));
    }
}
