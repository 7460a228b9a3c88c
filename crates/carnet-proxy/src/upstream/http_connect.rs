use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Answer, Credentials, End, greeting::Fault};

/// An upstream's answer to CONNECT: the head of a response, and perhaps interim ones (1xx) before it. A head of success
/// has nothing after it that would be the upstream's own (RFC 9110, 9.3.6).
#[derive(Debug)]
pub(super) struct HttpConnect {
    head: Vec<u8>,
    /// Bytes of interim heads.
    before: usize,
    has_credentials: bool,
    over: bool,
}

impl HttpConnect {
    /// And the request.
    pub(super) fn new(credentials: Option<&Credentials>, to: End<'_>) -> (Vec<u8>, Self) {
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(credentials) = credentials {
            let both = format!("{}:{}", credentials.user(), credentials.password());
            request += &format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(both));
        }
        request += "\r\n";
        let answer = Self { head: Vec::new(), before: 0, has_credentials: credentials.is_some(), over: false };
        (request.into_bytes(), answer)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if self.over {
            return Ok(0);
        }
        let had = self.head.len();
        let bytes = &bytes[..bytes.len().min(LIMIT - self.before - had)];
        self.head.extend_from_slice(bytes);
        // Only the end of a line can end a head, so the attempts are as few as the lines. The first one tells at once
        // what is no HTTP.
        let parsed = if had == 0 || bytes.contains(&b'\n') { parse(&self.head)? } else { None };
        let Some(Parsed { length, status, reason }) = parsed else {
            let full = self.before + self.head.len() == LIMIT;
            return if full { Err(Fault::TooLong(LIMIT)) } else { Ok(bytes.len()) };
        };
        match status {
            200..300 => self.over = true,
            SWITCHING => return Err(Fault::Refused(Answer::Http { status, reason })),
            100..200 if self.before + length == LIMIT => return Err(Fault::TooLong(LIMIT)),
            100..200 => {
                self.before += length;
                self.head.clear();
            }
            LOGIN_WANTED if self.has_credentials => return Err(Fault::CredentialsRefused),
            LOGIN_WANTED => return Err(Fault::CredentialsWanted),
            _ => return Err(Fault::Refused(Answer::Http { status, reason })),
        }
        Ok(length.saturating_sub(had))
    }
}

struct Parsed {
    length: usize,
    status: u16,
    reason: String,
}

/// `None`: there is more to come.
fn parse(head: &[u8]) -> Result<Option<Parsed>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let reason = response.reason.unwrap_or_default().as_bytes();
            let reason = reason[..reason.len().min(REASON_MAX)].escape_ascii().to_string();
            Ok(Some(Parsed { length, status: response.code.unwrap_or_default(), reason }))
        }
        Err(httparse::Error::TooManyHeaders) => Err(Fault::TooLong(LIMIT)),
        Err(_) => Err(Fault::not_one(head)),
    }
}

/// Bytes of all heads. Proxies that want a login send pages of fields.
const LIMIT: usize = 16 * 1024;
const FIELDS_MAX: usize = 128;
const REASON_MAX: usize = 128;

/// Nobody has asked it to.
const SWITCHING: u16 = 101;
const LOGIN_WANTED: u16 = 407;
