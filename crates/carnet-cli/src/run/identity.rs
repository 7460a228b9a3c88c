//! As whom the command and the services it names run.

use std::env;

use anyhow::{Context, Result};
use nix::unistd::geteuid;

/// A user, or whoever called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity(Option<(u32, u32)>);

impl Identity {
    /// Under sudo the user who called it, so that `sudo carnet run -- CMD` does with CMD what CMD alone would do.
    pub fn of_caller() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        Self::of_sudo(env::var("SUDO_UID").ok().as_deref(), env::var("SUDO_GID").ok().as_deref())
    }

    /// Uid to change to.
    pub fn uid(&self) -> Option<u32> {
        self.0.map(|(uid, _)| uid)
    }

    /// Gid to change to.
    pub fn gid(&self) -> Option<u32> {
        self.0.map(|(_, gid)| gid)
    }

    fn of_sudo(uid: Option<&str>, gid: Option<&str>) -> Result<Self> {
        let (Some(uid), Some(gid)) = (uid, gid) else { return Ok(Self(None)) };
        let number = |name: &str, text: &str| -> Result<u32> {
            text.parse().with_context(|| {
                format!("{name} in the environment is {text:?}, no number; unset it to run the command as root")
            })
        };
        Ok(Self(Some((number("SUDO_UID", uid)?, number("SUDO_GID", gid)?))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_names_the_user() {
        for (uid, gid, expected) in [
            (None, None, Some(None)),
            (Some("1000"), None, Some(None)),
            (Some("1000"), Some("100"), Some(Some((1000, 100)))),
            (Some("0"), Some("0"), Some(Some((0, 0)))),
            (Some("-1"), Some("0"), None),
            (Some("root"), Some("0"), None),
            (Some("1000"), Some(""), None),
        ] {
            assert_eq!(Identity::of_sudo(uid, gid).ok().map(|identity| identity.0), expected, "{uid:?} {gid:?}");
        }
    }
}
