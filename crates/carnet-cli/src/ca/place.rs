//! Where the authority is if nobody says where.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::geteuid;

/// Root's is the host's. Everybody else has one of their own.
pub fn default_folder() -> Result<PathBuf> {
    if geteuid().is_root() {
        return Ok(Path::new("/var/lib").join(BELOW));
    }
    of_user(env::var_os("XDG_DATA_HOME"), env::var_os("HOME"))
        .context("the environment has neither XDG_DATA_HOME nor HOME; say with --dir where the authority is")
}

/// A relative XDG_DATA_HOME counts as none, as its specification says.
fn of_user(data: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute(data).or_else(|| Some(absolute(home)?.join(".local/share")))?;
    Some(data.join(BELOW))
}

const BELOW: &str = "carnet/ca";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_is_below_the_folder_for_data() {
        for (data, home, expected) in [
            (Some("/data"), Some("/h"), Some("/data/carnet/ca")),
            (None, Some("/h"), Some("/h/.local/share/carnet/ca")),
            (Some("data"), Some("/h"), Some("/h/.local/share/carnet/ca")),
            (Some(""), None, None),
            (None, None, None),
        ] {
            assert_eq!(of_user(data.map(Into::into), home.map(Into::into)), expected.map(PathBuf::from));
        }
    }
}
