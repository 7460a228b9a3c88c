use std::{fmt, io, net::SocketAddr, time::Duration};

use super::Kind;

/// Why an upstream does not lead to the destination.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be asked for this name.
    #[error("{upstream} cannot be asked for {name:?}, which is no host's name; ask by address")]
    WrongName {
        /// The upstream.
        upstream: Which,
        /// What was to be asked for.
        name: String,
    },
    /// It has not answered, or not to the end.
    #[error("{upstream} did not answer for {to} within {limit:?}; see whether it runs, and whether it reaches that")]
    TimedOut {
        /// The upstream.
        upstream: Which,
        /// What it was asked for.
        to: String,
        /// The time it had.
        limit: Duration,
    },
    /// The connection to it broke.
    #[error("the connection to {upstream} broke before its answer was over; its log may say why")]
    Broken {
        /// The upstream.
        upstream: Which,
        /// The cause.
        source: io::Error,
    },
    /// It has closed the connection in the middle of its answer, or without one.
    #[error("{upstream} ended the connection before its answer was over; see whether it may be used from this host")]
    Ended {
        /// The upstream.
        upstream: Which,
    },
    /// What it says is not of its protocol.
    #[error("{upstream} answers \"{said}\", which is not of that protocol; look at its kind and its address")]
    NotOne {
        /// The upstream.
        upstream: Which,
        /// How the answer begins; what is not printable ASCII is escaped.
        said: String,
    },
    /// Its answer does not end.
    #[error("{upstream} answers with more than {limit} bytes; look at its kind and its address")]
    TooLong {
        /// The upstream.
        upstream: Which,
        /// Bytes that an answer may have.
        limit: usize,
    },
    /// It wants to know who asks, and no credentials were given, or only such as it does not take.
    #[error("{upstream} wants credentials of a kind that were not given; it can be told a user and a password")]
    CredentialsWanted {
        /// The upstream.
        upstream: Which,
    },
    /// It does not take these credentials.
    #[error("{upstream} refuses the user or the password; look them up")]
    CredentialsRefused {
        /// The upstream.
        upstream: Which,
    },
    /// It does not go there.
    #[error("{upstream} does not connect to {to}: {answer}")]
    Refused {
        /// The upstream.
        upstream: Which,
        /// What it was asked for.
        to: String,
        /// Why.
        answer: Answer,
    },
}

/// An upstream, as errors name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Which {
    /// Its protocol.
    pub kind: Kind,
    /// Where it is.
    pub address: SocketAddr,
}

/// An upstream's own word for its refusal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The field REP of RFC 1928.
    Socks5(u8),
    /// A status that is none of success.
    Http {
        /// The number.
        status: u16,
        /// The words behind it; what is not printable ASCII is escaped. They may be missing.
        reason: String,
    },
}

impl Error {
    /// What it would have been had the destination been dialled directly, as far as the upstream lets know.
    pub fn io_kind(&self) -> io::ErrorKind {
        use io::ErrorKind::{
            ConnectionAborted, ConnectionRefused, HostUnreachable, InvalidData, InvalidInput, NetworkUnreachable,
            Other, PermissionDenied, TimedOut,
        };
        match self {
            Self::WrongName { .. } => InvalidInput,
            Self::TimedOut { .. } => TimedOut,
            Self::Broken { source, .. } => source.kind(),
            Self::Ended { .. } => ConnectionAborted,
            Self::NotOne { .. } | Self::TooLong { .. } => InvalidData,
            Self::CredentialsWanted { .. } | Self::CredentialsRefused { .. } => PermissionDenied,
            Self::Refused { answer, .. } => match answer {
                Answer::Socks5(2) | Answer::Http { status: 403, .. } => PermissionDenied,
                Answer::Socks5(3) => NetworkUnreachable,
                Answer::Socks5(4) => HostUnreachable,
                Answer::Socks5(5) | Answer::Http { status: 502 | 503, .. } => ConnectionRefused,
                Answer::Socks5(6) | Answer::Http { status: 504, .. } => TimedOut,
                _ => Other,
            },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.io_kind(), error)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} upstream at {}", self.kind, self.address)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socks5(reply) => {
                let words = match reply {
                    1 => "it failed",
                    2 => "its rules do not allow it",
                    3 => "the network is unreachable",
                    4 => "the host is unreachable",
                    5 => "the connection was refused",
                    6 => "the time to live has run out",
                    7 => "it does not know CONNECT",
                    8 => "it does not know this type of address",
                    _ => "the standard has no word for this",
                };
                write!(f, "{words} (SOCKS5 reply {reply})")
            }
            Self::Http { status, reason } if reason.is_empty() => write!(f, "HTTP status {status}"),
            Self::Http { status, reason } => write!(f, "HTTP status {status} {reason}"),
        }
    }
}
