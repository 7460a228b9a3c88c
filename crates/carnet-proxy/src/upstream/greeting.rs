use super::{
    Answer, Credentials, End, Error, Kind, Target, Which, http_connect::HttpConnect, proxy_v2::header, socks5::Socks5,
};

/// What is said to an upstream and what it answers, without I/O.
///
/// Send what [`to_send`](Self::to_send) gives; unless it [`is_over`](Self::is_over), give what comes to
/// [`receive`](Self::receive); begin again. An answer of any length takes little memory.
#[derive(Debug)]
pub struct Greeting {
    upstream: Which,
    to: String,
    to_send: Option<Vec<u8>>,
    answer: Expected,
}

impl Greeting {
    pub(super) fn new(
        upstream: Which,
        credentials: Option<&Credentials>,
        end: End<'_>,
        target: &Target<'_>,
    ) -> Result<Self, Error> {
        if let End::Name(name, _) = end
            && !is_name(name)
        {
            return Err(Error::WrongName { upstream, name: name.into() });
        }
        let (to_send, answer) = match upstream.kind {
            Kind::Socks5 => {
                let (first, expected) = Socks5::new(credentials, end);
                (first, Expected::Socks5(expected))
            }
            Kind::HttpConnect => {
                let (request, expected) = HttpConnect::new(credentials, end);
                (request, Expected::Http(expected))
            }
            Kind::ProxyV2 => (header(target), Expected::Nothing),
        };
        Ok(Self { upstream, to: end.to_string(), to_send: Some(to_send), answer })
    }

    /// What to send now. `None` where the upstream has to say something first, or where it is over.
    pub fn to_send(&mut self) -> Option<Vec<u8>> {
        self.to_send.take()
    }

    /// Whether the upstream has said all that it has to, and the stream leads to the destination. What is
    /// [to be sent](Self::to_send) goes first.
    pub fn is_over(&self) -> bool {
        match &self.answer {
            Expected::Socks5(answer) => answer.is_over(),
            Expected::Http(answer) => answer.is_over(),
            Expected::Nothing => true,
        }
    }

    /// Takes of what the upstream sends as many bytes as belong to its answer, at least one unless it is over; what
    /// comes after them is the destination's.
    ///
    /// # Errors
    ///
    /// [`Error`], but none of those of the connection.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let heard = match &mut self.answer {
            Expected::Socks5(answer) => answer.receive(bytes, &mut self.to_send),
            Expected::Http(answer) => answer.receive(bytes),
            Expected::Nothing => Ok(0),
        };
        let upstream = self.upstream;
        heard.map_err(|fault| match fault {
            Fault::NotOne(said) => Error::NotOne { upstream, said },
            Fault::TooLong(limit) => Error::TooLong { upstream, limit },
            Fault::CredentialsWanted => Error::CredentialsWanted { upstream },
            Fault::CredentialsRefused => Error::CredentialsRefused { upstream },
            Fault::Refused(answer) => Error::Refused { upstream, to: self.to.clone(), answer },
        })
    }
}

#[derive(Debug)]
enum Expected {
    Socks5(Socks5),
    Http(HttpConnect),
    Nothing,
}

/// What is wrong with an answer; the error that people see says whose it is.
#[derive(Debug)]
pub(super) enum Fault {
    NotOne(String),
    TooLong(usize),
    CredentialsWanted,
    CredentialsRefused,
    Refused(Answer),
}

impl Fault {
    /// For what somebody else has to say, a web server most likely.
    pub(super) fn not_one(answer: &[u8]) -> Self {
        Self::NotOne(answer[..answer.len().min(SHOWN)].escape_ascii().to_string())
    }
}

/// Nothing that could end a line or a field.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// What SOCKS5 has room for; a domain name has two bytes less.
const NAME_MAX: usize = 255;

const SHOWN: usize = 64;
