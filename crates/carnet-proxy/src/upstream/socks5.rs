use std::net::SocketAddr;

use super::{Answer, Credentials, End, greeting::Fault};

/// An upstream's part of a dialogue in SOCKS5: the method it chose, the outcome of the login, the reply.
pub(super) struct Socks5 {
    step: Step,
    /// What has come of this step's answer.
    heard: Vec<u8>,
    login: Option<Vec<u8>>,
    request: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Method,
    Login,
    Reply,
    Over,
}

impl Socks5 {
    /// And what is to be said first. The password goes out only where it is asked for.
    pub(super) fn new(credentials: Option<&Credentials>, to: End<'_>) -> (Vec<u8>, Self) {
        let login = credentials.map(login);
        let hello = match &login {
            Some(_) => vec![VERSION, 2, NO_LOGIN, PASSWORD],
            None => vec![VERSION, 1, NO_LOGIN],
        };
        (hello, Self { step: Step::Method, heard: Vec::new(), login, request: connect(to) })
    }

    pub(super) fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    pub(super) fn receive(&mut self, bytes: &[u8], to_send: &mut Option<Vec<u8>>) -> Result<usize, Fault> {
        let mut rest = bytes;
        while self.step != Step::Over {
            let needed = self.needed()?;
            let (taken, left) = rest.split_at(rest.len().min(needed - self.heard.len()));
            self.heard.extend_from_slice(taken);
            rest = left;
            if self.heard.len() < needed {
                break;
            }
            // What was heard may say that there is more.
            if self.needed()? == needed {
                *to_send = self.next()?;
                self.heard.clear();
                if to_send.is_some() {
                    break; // Nobody answers what was not asked.
                }
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Length of this step's answer, as far as can be told by now: never less than what has come.
    fn needed(&self) -> Result<usize, Fault> {
        if self.step != Step::Reply {
            return Ok(2);
        }
        match self.heard[..] {
            // Some say no more than this where they refuse.
            [] | [_] => Ok(2),
            [version, ..] if version != VERSION => Err(Fault::not_one(&self.heard)),
            [_, reply, ..] if reply != SUCCEEDED => Err(Fault::Refused(Answer::Socks5(reply))),
            [_, _, _, IPV4, ..] => Ok(4 + 4 + 2),
            [_, _, _, IPV6, ..] => Ok(4 + 16 + 2),
            [_, _, _, NAME, length, ..] => Ok(4 + 1 + usize::from(length) + 2),
            [_, _, _, NAME] => Ok(5),
            [_, _, _, ..] if self.heard.len() > 3 => Err(Fault::not_one(&self.heard)),
            _ => Ok(4),
        }
    }

    /// After a whole answer: what is said next.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        match (self.step, &self.heard[..]) {
            (Step::Method, [VERSION, NO_LOGIN]) => {
                self.step = Step::Reply;
                Ok(Some(std::mem::take(&mut self.request)))
            }
            (Step::Method, [VERSION, PASSWORD]) if self.login.is_some() => {
                self.step = Step::Login;
                Ok(self.login.take())
            }
            // Another one than was offered is as good as none.
            (Step::Method, [VERSION, _]) => Err(Fault::CredentialsWanted),
            // The version is the login's own, which some confuse with the protocol's.
            (Step::Login, [LOGIN_VERSION | VERSION, 0]) => {
                self.step = Step::Reply;
                Ok(Some(std::mem::take(&mut self.request)))
            }
            (Step::Login, [LOGIN_VERSION | VERSION, _]) => Err(Fault::CredentialsRefused),
            (Step::Method | Step::Login, _) => Err(Fault::not_one(&self.heard)),
            (Step::Reply | Step::Over, _) => {
                self.step = Step::Over;
                Ok(None)
            }
        }
    }
}

impl std::fmt::Debug for Socks5 {
    /// Without the login.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socks5").field("step", &self.step).field("heard", &self.heard).finish_non_exhaustive()
    }
}

fn login(credentials: &Credentials) -> Vec<u8> {
    let mut bytes = vec![LOGIN_VERSION];
    for text in [credentials.user(), credentials.password()] {
        put(&mut bytes, text);
    }
    bytes
}

fn connect(to: End<'_>) -> Vec<u8> {
    let mut bytes = vec![VERSION, CONNECT, 0];
    let port = match to {
        End::Address(SocketAddr::V4(v4)) => {
            bytes.push(IPV4);
            bytes.extend(v4.ip().octets());
            v4.port()
        }
        End::Address(SocketAddr::V6(v6)) => {
            bytes.push(IPV6);
            bytes.extend(v6.ip().octets());
            v6.port()
        }
        End::Name(name, port) => {
            bytes.push(NAME);
            put(&mut bytes, name);
            port
        }
    };
    bytes.extend(port.to_be_bytes());
    bytes
}

/// A text behind its length. That it fits was seen to before: `Credentials::check`, `is_name`.
fn put(bytes: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    bytes.push(length);
    bytes.extend(text.bytes().take(length.into()));
}

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;

const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;

const CONNECT: u8 = 1;
const SUCCEEDED: u8 = 0;

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
