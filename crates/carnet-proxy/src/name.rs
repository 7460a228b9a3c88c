mod authority;
mod http1;
mod http2;
mod ja4;
mod ssh;
mod tls;

use self::{http1::Head, http2::Opening, ssh::Banner, tls::Hello};
use crate::rules::Protocol;

/// Reads from the first bytes that a client sends, as they pass, what it speaks and for whom its connection is.
///
/// What it finds depends on the bytes alone, not on how they are cut. It gives up after [`NameReader::LIMIT`] bytes,
/// and as soon as they are none of the protocols it knows; then it keeps no memory. A caller that holds bytes back until
/// it knows more need not do so any longer when [`NameReader::is_done`].
#[derive(Debug, Default)]
pub struct NameReader {
    state: State,
    seen: usize,
}

/// What a client said first.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// What it speaks.
    pub protocol: Protocol,
    /// For whom its connection is; `None` where it did not say so, or not in one way only.
    pub name: Option<Name>,
    /// Protocols which a TLS client offered (ALPN), in its order; what is not printable ASCII is escaped.
    pub alpn: Vec<String>,
    /// JA4 fingerprint of a TLS client.
    pub ja4: Option<String>,
    /// A TLS client sent an encrypted hello (ECH), or made it look so (GREASE): nobody but the server can tell. Where it
    /// is one, the name is the outer hello's, and the other fields are, too.
    pub ech: bool,
    /// Software and version of an SSH client, such as `OpenSSH_9.2p1`; what is not printable ASCII is escaped.
    pub software: Option<String>,
}

/// For whom a connection is, in lower case, without a port. The client's claim: it proves nothing. Letters, digits and
/// `-_.` only, or an IPv6 address in brackets, so it may be printed as it is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Name {
    /// Server name indication of a TLS ClientHello. Where the client encrypts its hello (ECH), the outer one's.
    Sni(String),
    /// `Host` of the first HTTP/1 request.
    Host(String),
    /// `:authority` of the first HTTP/2 request; its `Host` where it has none.
    Authority(String),
}

impl NameReader {
    /// Bytes after which nothing is found any more.
    pub const LIMIT: usize = 16 * 1024;

    /// A reader that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes; `Some` at most once.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Found> {
        let bytes = &bytes[..bytes.len().min(Self::LIMIT - self.seen)];
        self.seen += bytes.len();
        match self.state.read(bytes) {
            Progress::More if self.seen < Self::LIMIT => None,
            Progress::More | Progress::Nothing => {
                self.state = State::Done;
                None
            }
            Progress::Found(found) => {
                self.state = State::Done;
                Some(found)
            }
        }
    }

    /// Whether the next bytes can make no difference.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

impl Found {
    fn new(protocol: Protocol) -> Self {
        Self { protocol, name: None, alpn: Vec::new(), ja4: None, ech: false, software: None }
    }
}

impl Name {
    /// The name alone.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sni(name) | Self::Host(name) | Self::Authority(name) => name,
        }
    }
}

#[derive(Debug)]
enum State {
    /// Bytes with which more than one protocol may begin.
    Start(Vec<u8>),
    Tls(Hello),
    Http1(Head),
    Http2(Opening),
    Ssh(Banner),
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Start(Vec::new())
    }
}

impl State {
    fn read(&mut self, bytes: &[u8]) -> Progress {
        match self {
            Self::Start(begun) => {
                let mut begun = std::mem::take(begun);
                begun.extend_from_slice(bytes);
                *self = match begun.first() {
                    _ if [http2::PREFACE, ssh::BEGIN]
                        .iter()
                        .any(|begin| begin.starts_with(&begun) && begun != *begin) =>
                    {
                        *self = Self::Start(begun);
                        return Progress::More;
                    }
                    Some(&tls::HANDSHAKE) => Self::Tls(Hello::default()),
                    _ if begun.starts_with(http2::PREFACE) => Self::Http2(Opening::default()),
                    _ if begun.starts_with(ssh::BEGIN) => Self::Ssh(Banner::default()),
                    Some(b'A'..=b'Z') => Self::Http1(Head::default()),
                    _ => return Progress::Nothing,
                };
                self.read(&begun)
            }
            Self::Tls(hello) => hello.read(bytes),
            Self::Http1(head) => head.read(bytes),
            Self::Http2(opening) => opening.read(bytes),
            Self::Ssh(banner) => banner.read(bytes),
            Self::Done => Progress::Nothing,
        }
    }
}

#[derive(Debug)]
enum Progress {
    More,
    Nothing,
    Found(Found),
}
