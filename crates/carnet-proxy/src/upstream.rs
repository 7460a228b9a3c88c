//! Proxies of somebody else's that flows are handed to: SOCKS5, HTTP CONNECT, the PROXY protocol.
//!
//! ```no_run
//! use carnet_proxy::upstream::{Kind, Target, Upstream};
//! use tokio::net::TcpStream;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let upstream = Upstream::new(Kind::Socks5, "192.0.2.1:1080".parse()?, None)?;
//! let mut server = TcpStream::connect(upstream.address()).await?; // with the flow's record on its socket
//! upstream.greet(&mut server, &Target::to("198.51.100.7:443".parse()?)).await?;
//! // From here on `server` leads to 198.51.100.7:443.
//! # Ok(())
//! # }
//! ```
//!
//! In goes a stream that is connected to the upstream, out comes one that leads to the destination: not a byte of what
//! follows the upstream's answer is taken off it. Connecting, and the record on the socket, are the caller's business;
//! docs/upstreams.md says what the record means there, and what goes wrong with an upstream on the same host.
//!
//! [`Greeting`] is the same without I/O.

mod credentials;
mod error;
mod greeting;
mod http_connect;
mod proxy_v2;
mod socks5;

use std::{
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    path::Path,
    time::Duration,
};

use carnet::Flow;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

pub use self::{
    credentials::{Credentials, Mistake},
    error::{Answer, Error, Which},
    greeting::Greeting,
    proxy_v2::tlv,
};

/// A proxy, and how it is spoken to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    which: Which,
    credentials: Option<Credentials>,
    by_name: bool,
    timeout: Duration,
}

/// The protocol by which an upstream is told where to go.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// SOCKS version 5 (RFC 1928), with user and password (RFC 1929) where it asks for them.
    Socks5,
    /// The method CONNECT of HTTP/1.1 (RFC 9110, 9.3.6), with the scheme Basic (RFC 7617).
    HttpConnect,
    /// A header of the PROXY protocol, version 2, before the client's first byte. It asks for nothing: the upstream goes
    /// where it likes, and is told where the client was going and who the client is. There is no answer to it.
    ProxyV2,
}

/// Where an upstream is to go, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Where this hop's connection was going: [`Flow::destination`].
    pub address: SocketAddr,
    /// The name that the client asked for. Its claim: it proves nothing.
    pub name: Option<&'a str>,
    /// Protocols which a TLS client offered, in its order.
    pub alpn: &'a [String],
    /// Whose connection it is. Told by [`Kind::ProxyV2`] alone, so leave it out where the upstream is not to know.
    pub flow: Option<&'a Flow>,
    /// Path of the application's executable, told as `flow` is ([`carnet::Origin::executable_path`]).
    pub executable: Option<&'a Path>,
}

impl Upstream {
    /// How long a greeting may take by default, the upstream's own connecting included.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// An upstream at this address.
    ///
    /// # Errors
    ///
    /// A [`Mistake`] where its protocol has no place for such credentials.
    pub fn new(kind: Kind, address: SocketAddr, credentials: Option<Credentials>) -> Result<Self, Mistake> {
        if let Some(credentials) = &credentials {
            credentials.check(kind)?;
        }
        Ok(Self { which: Which { kind, address }, credentials, by_name: false, timeout: Self::TIMEOUT })
    }

    /// Asks for the name that a client gave, where it gave one, so that the upstream resolves it. Then the connection goes
    /// where the name leads, which the client chooses freely, and not to the address that rules have seen.
    /// [`Kind::ProxyV2`] tells both in any case.
    #[must_use]
    pub fn by_name(mut self, by_name: bool) -> Self {
        self.by_name = by_name;
        self
    }

    /// Gives up a greeting after this time instead of [`TIMEOUT`](Self::TIMEOUT).
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// The protocol.
    pub fn kind(&self) -> Kind {
        self.which.kind
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.which.address
    }

    /// Has an upstream, to which `stream` is connected, go on to the target. What comes after its answer stays in the stream.
    ///
    /// # Errors
    ///
    /// Any [`Error`]. Close the stream then: the upstream is somewhere in the middle of a sentence.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    pub async fn greet(&self, stream: &mut TcpStream, to: &Target<'_>) -> Result<(), Error> {
        let mut greeting = self.greeting(to)?;
        let limit = self.timeout;
        let timed_out = |_| Error::TimedOut { upstream: self.which, to: self.end(to).to_string(), limit };
        time::timeout(limit, converse(&mut greeting, stream, self.which)).await.map_err(timed_out)?
    }

    /// What is to be said and heard, for those with I/O of their own.
    ///
    /// # Errors
    ///
    /// [`Error::WrongName`].
    pub fn greeting(&self, to: &Target<'_>) -> Result<Greeting, Error> {
        Greeting::new(self.which, self.credentials.as_ref(), self.end(to), to)
    }

    fn end<'a>(&self, to: &Target<'a>) -> End<'a> {
        let name = to.name.filter(|name| self.by_name && !is_address(name));
        name.map_or_else(|| End::at(to.address), |name| End::Name(name, to.address.port()))
    }
}

impl Target<'_> {
    /// An address, with nothing more known.
    pub fn to(address: SocketAddr) -> Self {
        Self { address, name: None, alpn: &[], flow: None, executable: None }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socks5 => "SOCKS5",
            Self::HttpConnect => "HTTP CONNECT",
            Self::ProxyV2 => "PROXY protocol",
        })
    }
}

/// What an upstream is asked for.
#[derive(Clone, Copy, Debug)]
enum End<'a> {
    Address(SocketAddr),
    Name(&'a str, u16),
}

impl End<'_> {
    fn at(address: SocketAddr) -> Self {
        Self::Address(canonical(address))
    }
}

impl fmt::Display for End<'_> {
    /// As in a URL: an IPv6 address is in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// IPv4 where it is IPv4 in IPv6's form; without a scope, which means nothing to another host.
fn canonical(address: SocketAddr) -> SocketAddr {
    match SocketAddr::new(address.ip().to_canonical(), address.port()) {
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
        v4 => v4,
    }
}

/// As `Host` has it, with brackets around IPv6.
fn is_address(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok()
}

async fn converse(greeting: &mut Greeting, stream: &mut TcpStream, upstream: Which) -> Result<(), Error> {
    let broken = |source| Error::Broken { upstream, source };
    // Not on the stack: it would be a part of every flow's task.
    let mut buffer = vec![0; ANSWER];
    loop {
        if let Some(bytes) = greeting.to_send() {
            stream.write_all(&bytes).await.map_err(broken)?;
        }
        if greeting.is_over() {
            return Ok(());
        }
        // Looked at first: how much of it is the answer can only be told from what it says.
        let came = stream.peek(&mut buffer).await.map_err(broken)?;
        if came == 0 {
            return Err(Error::Ended { upstream });
        }
        let taken = greeting.receive(&buffer[..came])?;
        stream.read_exact(&mut buffer[..taken]).await.map_err(broken)?;
    }
}

/// Bytes of an answer that are looked at in one step. Most have fewer.
const ANSWER: usize = 1024;
