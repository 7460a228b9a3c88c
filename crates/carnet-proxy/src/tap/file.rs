use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::Error;

/// A new file that only its owner can read, whatever the umask says.
///
/// One that is there is removed and not overwritten: it may be readable by others, have other names, or be open
/// somewhere. What is no regular file stays, and a symbolic link is not followed: creating with `O_EXCL` never does.
pub(super) fn create(path: &Path, replace: bool) -> Result<File, Error> {
    let error = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists if replace => Error::NotAFile { path: path.into() },
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
        _ => Error::Create { path: path.into(), source },
    };
    if replace && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        fs::remove_file(path).map_err(error)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(error)
}
