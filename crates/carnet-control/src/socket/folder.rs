//! The way to the socket. Who may write to a folder on it can put another in its place, and a socket into that.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use super::BindError;

/// Walks from the root to the folder of the socket at `path`, by way of links, and looks at each step.
pub(super) fn check(path: &Path) -> Result<(), BindError> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let failed = |source| BindError::Folder { folder: folder.into(), source };
    let mut left = steps(&std::path::absolute(folder).map_err(failed)?);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    check_place(&at, &at.symlink_metadata().map_err(failed)?, left.is_empty())?;
    while let Some(step) = left.pop_front() {
        if step == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&step);
        let metadata = next.symlink_metadata().map_err(failed)?;
        if metadata.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(failed(io::ErrorKind::TooManyLinks.into()));
            }
            check_owner(&next, &metadata)?;
            let target = next.read_link().map_err(failed)?;
            if target.is_absolute() {
                at = "/".into();
            }
            steps(&target).into_iter().rev().for_each(|step| left.push_front(step));
            continue;
        }
        if !metadata.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        check_place(&next, &metadata, left.is_empty())?;
        at = next;
    }
    Ok(())
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let step = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(step).collect()
}

fn check_place(folder: &Path, metadata: &Metadata, is_last: bool) -> Result<(), BindError> {
    check_owner(folder, metadata)?;
    // In a folder with the sticky bit, others can make what is not there yet, and touch nothing that is.
    let is_sticky = metadata.mode() & STICKY != 0 && !is_last;
    match metadata.mode() & 0o022 == 0 || is_sticky {
        true => Ok(()),
        false => Err(exposed(folder, metadata)),
    }
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), BindError> {
    match [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
        true => Ok(()),
        false => Err(exposed(path, metadata)),
    }
}

fn exposed(path: &Path, metadata: &Metadata) -> BindError {
    BindError::Exposed { folder: path.into(), owner: metadata.uid(), mode: metadata.mode() & 0o7777 }
}

const STICKY: u32 = 0o1000;
/// As many as the kernel follows.
const MOST_LINKS: usize = 40;
