use std::fmt;

use super::Kind;

/// User and password for an upstream. Never shown: `{:?}` has the user alone.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    user: String,
    password: String,
}

/// Credentials which an upstream's protocol has no place for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// The PROXY protocol has none.
    #[error("the PROXY protocol has no credentials; leave them out")]
    NotTaken,
    /// SOCKS5 has one byte for a length.
    #[error("SOCKS5 takes a user of 1 to 255 bytes and a password of at most 255")]
    Length,
    /// Basic ends the user at the first colon, and neither may hold control characters.
    #[error("HTTP takes no colon in a user, and no control character in either")]
    Character,
}

impl Credentials {
    /// A user with a password, which may be empty.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn check(&self, kind: Kind) -> Result<(), Mistake> {
        let (user, password) = (self.user.as_str(), self.password.as_str());
        match kind {
            Kind::ProxyV2 => Err(Mistake::NotTaken),
            Kind::Socks5 if user.is_empty() || user.len() > 255 || password.len() > 255 => Err(Mistake::Length),
            Kind::HttpConnect if user.contains(':') || [user, password].concat().contains(char::is_control) => {
                Err(Mistake::Character)
            }
            Kind::Socks5 | Kind::HttpConnect => Ok(()),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
