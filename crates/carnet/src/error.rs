use std::{fmt, io, net::SocketAddr};

use crate::sys::{self, BorrowedSocket, Item};

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
    /// No engine answers on this socket: none is loaded, or the service runs outside the cgroups it covers.
    NoEngine,
    /// Records are accepted only from the service to which the newest redirect went.
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
    OriginalDestination,
    Apply,
    Decode(Item),
    Socket,
    Connect(SocketAddr),
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
        Self { kind: sys::kind(&source, socket), call: Call::Query(item), source }
    }

    pub(crate) fn original_destination(socket: BorrowedSocket<'_>, source: io::Error) -> Self {
        Self { kind: sys::kind(&source, socket), call: Call::OriginalDestination, source }
    }

    pub(crate) fn apply(socket: BorrowedSocket<'_>, source: io::Error) -> Self {
        Self { kind: sys::kind(&source, socket), call: Call::Apply, source }
    }

    pub(crate) fn malformed(item: Item, what: String) -> Self {
        let source = io::Error::new(io::ErrorKind::InvalidData, what);
        Self { kind: ErrorKind::Malformed, call: Call::Decode(item), source }
    }

    pub(crate) fn socket(source: io::Error) -> Self {
        Self { kind: ErrorKind::Io, call: Call::Socket, source }
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
            (ErrorKind::NoEngine, _) => {
                "no engine answers on this socket; start the service in a cgroup which the engine covers"
            }
            (ErrorKind::NotOwner, _) => {
                "the newest redirect was to another service; set the records in the one that accepted the connection"
            }
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
            Self::Query(item) => write!(f, "getsockopt {}", item.option_name()),
            Self::OriginalDestination => f.write_str("getsockopt SO_ORIGINAL_DST"),
            Self::Apply => write!(f, "setsockopt {}", Item::Records.option_name()),
            Self::Decode(item) => write!(f, "decode {}", item.option_name()),
            Self::Socket => f.write_str("socket"),
            Self::Connect(destination) => write!(f, "connect to {destination}"),
        }
    }
}

impl Item {
    fn option_name(self) -> &'static str {
        match self {
            Self::Context => "CARNET_CONTEXT",
            Self::Flow => "CARNET_FLOW",
            Self::Records => "CARNET_RECORDS",
            Self::State => "CARNET_STATE",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, net::TcpListener, os::fd::AsFd};

    use super::*;

    /// The table of the engine's answers, on a TCP socket.
    #[test]
    fn every_number_has_its_kind() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        for (number, kind) in [
            (libc::ENODATA, ErrorKind::NotRedirected),
            (libc::ENOENT, ErrorKind::NotRedirected),
            (libc::EIDRM, ErrorKind::ContextLost),
            (libc::ENOPROTOOPT, ErrorKind::NoEngine),
            (libc::EOPNOTSUPP, ErrorKind::NoEngine),
            (libc::ESTALE, ErrorKind::Stale),
            (libc::EBADMSG, ErrorKind::Forged),
            (libc::EACCES, ErrorKind::NotOwner),
            (libc::EISCONN, ErrorKind::AlreadyConnected),
            (libc::EINVAL, ErrorKind::Malformed),
            (libc::EMSGSIZE, ErrorKind::Malformed),
            (libc::ENOBUFS, ErrorKind::Io),
            (libc::EBADF, ErrorKind::Io),
        ] {
            let error = Error::apply(socket.as_fd(), io::Error::from_raw_os_error(number));
            assert_eq!(error.kind(), kind, "errno {number}");
            assert_eq!(error.os_error(), Some(number));
            assert_eq!(error.source().unwrap().to_string(), io::Error::from_raw_os_error(number).to_string());
        }
    }

    #[test]
    fn a_refusal_is_the_destinations_whatever_its_number() {
        let destination = "192.0.2.7:80".parse().unwrap();
        for number in [libc::ECONNREFUSED, libc::ELOOP, libc::EACCES] {
            let error = Error::connect(destination, io::Error::from_raw_os_error(number));
            assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(number)));
            assert_eq!(io::Error::from(error).raw_os_error(), Some(number));
        }
    }

    #[test]
    fn messages_name_the_call_and_the_next_step_and_on_demand_the_cause() {
        let destination = "192.0.2.7:80".parse().unwrap();
        let error = Error::connect(destination, io::Error::from_raw_os_error(libc::ECONNREFUSED));
        assert_eq!(error.to_string(), "connect to 192.0.2.7:80: no connection; pass the refusal on to the client");
        assert_eq!(format!("{error:#}"), format!("{error}: Connection refused (os error 111)"));
    }
}
