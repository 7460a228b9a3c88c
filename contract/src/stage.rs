//! The sockets that cases ask about: redirected connections, which somebody has to make, and ordinary ones.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
};

use carnet::winsock::{
    self as ws, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, SOCKET,
};
use socket2::{Domain, Socket, Type};

use crate::{
    calls::{Buffer, Ioctl, Pages, Told, system},
    case::{Need, Stop},
};

/// What there is to ask about.
pub struct Stage {
    /// Accepted, redirected, and the filter gives a context.
    pub with_context: Option<TcpStream>,
    /// Accepted, redirected, and the filter gives none.
    pub without_context: Option<TcpStream>,
    /// Accepted by the service's listener, and not redirected there.
    pub lost: Option<TcpStream>,
    /// The listener of the service.
    pub listener: Option<TcpListener>,
    /// A record that another service has read.
    pub others_record: Option<Vec<u8>>,
    /// What the context should be.
    pub known_context: Option<Vec<u8>>,
    pub pages: Pages,
    pub facts: Facts,
}

/// About the process and the system.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Facts {
    /// The three operations are answered, and not by "not supported".
    pub engine: bool,
    pub elevated: bool,
}

impl Facts {
    /// An engine may come after this process: a service is there before it.
    pub fn now() -> io::Result<Self> {
        Ok(Self { engine: is_answered()?, elevated: system::is_elevated() })
    }
}

/// The two operations that read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Query {
    Records,
    Context,
}

impl Query {
    pub const BOTH: [Self; 2] = [Self::Records, Self::Context];

    pub fn code(self) -> u32 {
        match self {
            Self::Records => SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS,
            Self::Context => SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT,
        }
    }

    /// As case ids begin.
    pub fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Context => "context",
        }
    }

    /// What the connection must have for it to succeed.
    pub fn need(self) -> Need {
        match self {
            Self::Records => Need::Record,
            Self::Context => Need::Context,
        }
    }
}

impl Stage {
    /// With ordinary connections alone.
    pub fn new() -> io::Result<Self> {
        let facts = Facts::now()?;
        let pages = Pages::new()?;
        Ok(Self {
            with_context: None,
            without_context: None,
            lost: None,
            listener: None,
            others_record: None,
            known_context: None,
            pages,
            facts,
        })
    }

    /// Takes a connection that the service has accepted, for what it is. False: there is one of this kind already.
    pub fn take(&mut self, accepted: TcpStream) -> bool {
        let place = if !whole(number(&accepted), Query::Records).1.is_ok() {
            &mut self.lost
        } else if whole(number(&accepted), Query::Context).1.is_ok() {
            &mut self.with_context
        } else {
            &mut self.without_context
        };
        let is_new = place.is_none();
        place.get_or_insert(accepted);
        is_new
    }

    /// Why the case that has this need cannot be asked.
    pub fn lacks(&self, need: Need) -> Option<&'static str> {
        let missing = |there: bool, why| (!there).then_some(why);
        match need {
            Need::Record => missing(self.redirected().is_ok(), "no connection was redirected here"),
            Need::Context => missing(self.with_context.is_some(), "no connection with a context was redirected here"),
            Need::NoContext => missing(self.without_context.is_some(), "each redirected connection had a context"),
            Need::Lost => missing(self.lost.is_some(), "no connection came past the redirection"),
            Need::OthersRecord => missing(self.others_record.is_some(), "there is no --others-record"),
            Need::KnownContext => missing(self.known_context.is_some(), "there is no --context"),
            Need::NoEngine => missing(!self.facts.engine, "the operations are answered here"),
            Need::Elevated => missing(self.facts.elevated, "the process is not elevated"),
            Need::NotElevated => missing(!self.facts.elevated, "the process is elevated"),
        }
    }

    /// A connection with a record.
    pub fn redirected(&self) -> Result<SOCKET, Stop> {
        let stream = self.with_context.as_ref().or(self.without_context.as_ref());
        stream.map(number).ok_or_else(|| Stop::NotRun("no connection was redirected here".into()))
    }

    /// A connection for which this query succeeds.
    pub fn answering(&self, query: Query) -> Result<SOCKET, Stop> {
        match query {
            Query::Records => self.redirected(),
            Query::Context => there(&self.with_context),
        }
    }

    /// How long this query's answer is now.
    pub fn size(&self, query: Query) -> Result<usize, Stop> {
        Ok(self.answer(query)?.len())
    }

    /// This query's answer now.
    pub fn answer(&self, query: Query) -> Result<Vec<u8>, Stop> {
        match whole(self.answering(query)?, query) {
            (bytes, told) if told.is_ok() => Ok(bytes),
            (_, told) => Err(Stop::Failed(format!("the {} query says {}", query.name(), told.words(None)))),
        }
    }

    /// A record, fresh; where there is none one that is made up.
    pub fn record(&self) -> Vec<u8> {
        self.answer(Query::Records).unwrap_or_else(|_| vec![7; 528])
    }
}

/// The socket of a stream that the case needs.
pub fn there(stream: &Option<TcpStream>) -> Result<SOCKET, Stop> {
    stream.as_ref().map(number).ok_or_else(|| Stop::NotRun("there is no such connection".into()))
}

/// A query with more room than any answer needs.
pub fn whole(socket: SOCKET, query: Query) -> (Vec<u8>, Told) {
    let mut bytes = vec![0; LARGE];
    let told = Ioctl { output: Buffer::of(&mut bytes), ..Ioctl::new(socket, query.code()) }.call();
    bytes.truncate(told.bytes.unwrap_or(0) as usize);
    (bytes, told)
}

/// The largest buffer that users of these calls were seen to pass.
pub const LARGE: usize = 1 << 16;

/// An ordinary connection: listener, client, accepted.
pub struct Pair {
    pub listener: TcpListener,
    pub client: TcpStream,
    pub accepted: TcpStream,
}

impl Pair {
    pub fn new() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (accepted, _) = listener.accept()?;
        Ok(Self { listener, client, accepted })
    }
}

/// A TCP socket that nothing was done with.
pub fn fresh() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}

pub fn udp() -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
}

/// As the calls have it.
#[cfg(unix)]
pub fn number(socket: &impl std::os::fd::AsFd) -> SOCKET {
    use std::os::fd::AsRawFd;
    socket.as_fd().as_raw_fd() as SOCKET
}

/// As the calls have it.
#[cfg(windows)]
pub fn number(socket: &impl std::os::windows::io::AsSocket) -> SOCKET {
    use std::os::windows::io::AsRawSocket;
    socket.as_socket().as_raw_socket() as SOCKET
}

/// A pipe's or a file's, which is no socket.
#[cfg(unix)]
pub fn handle(file: &impl std::os::fd::AsRawFd) -> SOCKET {
    file.as_raw_fd() as SOCKET
}

/// A pipe's or a file's, which is no socket.
#[cfg(windows)]
pub fn handle(file: &impl std::os::windows::io::AsRawHandle) -> SOCKET {
    file.as_raw_handle() as SOCKET
}

/// Whether anybody here knows the operations.
fn is_answered() -> io::Result<bool> {
    let pair = Pair::new()?;
    let told = Ioctl::new(number(&pair.accepted), Query::Records.code()).call();
    Ok(told.is_ok() || told.error != ws::WSAEOPNOTSUPP)
}

/// Kept for the threads of cases that do not end.
pub type Shared = Arc<Stage>;
