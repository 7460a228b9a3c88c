mod http;
mod tls;

use self::{http::Head, tls::Hello};

/// Reads the name for which a connection is from the first bytes its client sends, as they pass.
///
/// What it finds depends on the bytes alone, not on how they are cut. It gives up after [`NameReader::LIMIT`] bytes,
/// and at once where they are neither TLS nor HTTP/1; then it keeps no memory.
#[derive(Debug, Default)]
pub struct NameReader {
    state: State,
    seen: usize,
}

/// A name, and what came with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The name.
    pub name: Name,
    /// Protocols which a TLS client offered (ALPN), in its order; what is not printable ASCII is escaped.
    pub alpn: Vec<String>,
}

/// For whom a connection is, in lower case, without a port. The client's claim: it proves nothing. Letters, digits and
/// `-_.` only, or an IPv6 address in brackets, so it may be printed as it is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Name {
    /// Server name indication of a TLS ClientHello. Where the client encrypts its hello (ECH), the outer one's.
    Sni(String),
    /// `Host` of the first HTTP/1 request.
    Host(String),
}

impl NameReader {
    /// Bytes after which there is no name.
    pub const LIMIT: usize = 16 * 1024;

    /// A reader that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes; `Some` at most once.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Found> {
        let (&first, room) = (bytes.first()?, Self::LIMIT - self.seen);
        let bytes = &bytes[..bytes.len().min(room)];
        self.seen += bytes.len();

        let progress = match &mut self.state {
            State::Done => return None,
            State::Tls(hello) => hello.read(bytes),
            State::Http(head) => head.read(bytes),
            State::Start => match first {
                tls::HANDSHAKE => self.begin(State::Tls(Box::default()), bytes),
                b'A'..=b'Z' => self.begin(State::Http(Head::default()), bytes),
                _ => Progress::Nothing,
            },
        };
        match progress {
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

    fn begin(&mut self, state: State, bytes: &[u8]) -> Progress {
        self.state = state;
        match &mut self.state {
            State::Tls(hello) => hello.read(bytes),
            State::Http(head) => head.read(bytes),
            State::Start | State::Done => Progress::Nothing,
        }
    }
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    Tls(Box<Hello>),
    Http(Head),
    Done,
}

#[derive(Debug)]
enum Progress {
    More,
    Nothing,
    Found(Found),
}
