use std::net::SocketAddr;

use crate::scan::Direction;

/// Something that happened where a flow is opened, or is not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenReport {
    /// [`carnet::Flow::id`].
    pub flow_id: u128,
    /// Where it is going.
    pub destination: SocketAddr,
    /// The name that its client asks for.
    pub name: Option<String>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It is open.
    Opened {
        /// What is inside.
        inside: Inside,
    },
    /// The client does not accept the certificate of the local authority. Its connection is over, and the next ones of
    /// this program to this name are passed on or refused as [`Event::Unread`] says.
    Pinned,
    /// There is no TLS with the client for another reason, and its connection is over. Where the reason is that both have
    /// nothing in common, it is the same with its next ones as after [`Event::Pinned`].
    Failed {
        /// The cause.
        error: String,
    },
    /// It cannot be opened, or what is inside cannot be read.
    Unread {
        /// Why.
        why: Why,
        /// Whether it passes all the same.
        passed: bool,
    },
    /// There is no TLS with the server, most often because its certificate is not to be trusted. The client was told.
    Untrusted {
        /// The cause.
        error: String,
    },
    /// A request was refused.
    Refused {
        /// The request's URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// A scan has stopped a body.
    Stopped {
        /// Whose body.
        direction: Direction,
        /// The request's URL.
        url: String,
        /// What the scan says.
        reason: String,
    },
}

/// What is inside of an opened flow.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Inside {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Something else, which is passed on as it is.
    Bytes,
}

/// Why a flow cannot be read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// The client has not accepted the authority's certificates before.
    Pinned,
    /// The client speaks TLS in no way that we do: RSA or old versions only.
    Incompatible,
    /// The server asks for a certificate of the client, whose key nobody else has.
    ClientCertificate,
    /// It is neither TLS nor HTTP.
    Unknown,
    /// It is TLS, and what is inside is no HTTP.
    NotHttp,
    /// HTTP that turns into something else: `CONNECT`, or an upgrade, to WebSocket for example.
    Tunnel,
}

impl Why {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Incompatible => "incompatible",
            Self::ClientCertificate => "client-certificate",
            Self::Unknown => "unknown",
            Self::NotHttp => "not-http",
            Self::Tunnel => "tunnel",
        }
    }
}

impl Inside {
    /// What it is called, as ALPN has it where it has a name there.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
            Self::Bytes => "bytes",
        }
    }
}
