//! The folder itself: whose it is, who works on it, and where in it is what.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;

use super::mount;
use super::stamp::Stamp;
use crate::{Error, ErrorKind};

/// A folder of pins that this process has locked.
pub struct Folder {
    path: PathBuf,
    /// Unlocked when this is dropped, and by the kernel when the process ends, however it ends.
    _turn: Flock<File>,
}

impl Folder {
    /// One that is there, whole or not.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        check_place(path)?;
        Ok(lock(path)?.map(|turn| Self { path: path.into(), _turn: turn }))
    }

    /// An empty one. What a process left there that ended in the middle is removed; a whole one is not.
    pub fn make(path: &Path) -> Result<Self, Error> {
        check_place(path)?;
        loop {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(format!("cannot make {}", path.display()), error));
                }
                _ => {}
            }
            // `None`: somebody has just removed it.
            let Some(folder) = Self::open(path)? else { continue };
            if folder.is_whole()? {
                let what = format!("an engine is pinned at {} already: adopt it, or remove it", path.display());
                return Err(Error::new(ErrorKind::Io, what));
            }
            if folder.is_empty()? {
                return Ok(folder);
            }
            super::remove::remove_all(folder)?;
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.path.join(MAPS).join(name)
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.path.join(PROGRAMS).join(name)
    }

    pub fn link(&self, program: &str, cgroup: u64) -> PathBuf {
        link(&self.path, program, cgroup)
    }

    pub fn make_parts(&self) -> Result<(), Error> {
        for part in PARTS {
            let path = self.path.join(part);
            let made = DirBuilder::new().mode(0o700).create(&path);
            made.map_err(|error| Error::io(format!("cannot make {}", path.display()), error))?;
        }
        Ok(())
    }

    /// Whether somebody has finished it.
    pub fn is_whole(&self) -> Result<bool, Error> {
        Ok(stamp(&self.path)?.is_some())
    }

    /// Marks it as whole, in the place of the stamp before where there is one.
    pub fn stamp(&self, stamp: &Stamp) -> Result<(), Error> {
        let text = stamp.to_string();
        let put = |next: &Path| {
            symlink(&text, next).map_err(|error| Error::io(format!("cannot write {}", next.display()), error))
        };
        self.replace(&self.path.join(STAMP), put)
    }

    /// From now on it is not whole.
    pub fn unstamp(&self) -> Result<(), Error> {
        self.unpin(&self.path.join(STAMP))
    }

    /// Puts a new file in the place of one, at once.
    pub fn replace(&self, path: &Path, put: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
        let next = self.path.join(NEXT);
        self.unpin(&next)?;
        put(&next)?;
        fs::rename(&next, path).map_err(|error| Error::io(format!("cannot replace {}", path.display()), error))
    }

    /// One that is gone is fine.
    pub fn unpin(&self, path: &Path) -> Result<(), Error> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("cannot remove {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the pins and the folder, and detaches nothing: programs stay where somebody else holds them.
    pub fn clear(self) -> Result<(), Error> {
        self.check_is_ours()?;
        self.unstamp()?;
        self.unpin(&self.path.join(NEXT))?;
        for part in PARTS {
            for name in names(&self.path.join(part))? {
                self.unpin(&self.path.join(part).join(name))?;
            }
            remove_directory(&self.path.join(part))?;
        }
        remove_directory(&self.path)
    }

    /// Fails where there is anything that Carnet does not put there: it is another program's folder then.
    pub fn check_is_ours(&self) -> Result<(), Error> {
        let of_ours = |name: &String| PARTS.contains(&&**name) || [STAMP, NEXT].contains(&&**name);
        let mut foreign = names(&self.path)?.into_iter().find(|name| !of_ours(name));
        for part in PARTS {
            let inside = names(&self.path.join(part))?.into_iter().find(|name| !name.starts_with("carnet_"));
            foreign = foreign.or(inside.map(|name| format!("{part}/{name}")));
        }
        let Some(foreign) = foreign else { return Ok(()) };
        let place = self.path.display();
        let what = format!("{place} is not Carnet's: it has {foreign}. Nothing was changed. Choose another folder");
        Err(Error::new(ErrorKind::Io, what))
    }

    fn is_empty(&self) -> Result<bool, Error> {
        Ok(names(&self.path)?.is_empty())
    }
}

/// The stamp of the folder at this path.
pub fn stamp(folder: &Path) -> Result<Option<String>, Error> {
    let path = folder.join(STAMP);
    match fs::read_link(&path) {
        Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
    }
}

/// Programs and cgroups' ids of the links at this folder, by the names of their files.
pub fn links(folder: &Path) -> Result<Vec<(String, u64)>, Error> {
    let parse = |name: String| {
        let (program, cgroup) = name.rsplit_once('-')?;
        Some((program.to_owned(), cgroup.parse().ok()?))
    };
    Ok(names(&folder.join(LINKS))?.into_iter().filter_map(parse).collect())
}

pub fn link(folder: &Path, program: &str, cgroup: u64) -> PathBuf {
    folder.join(LINKS).join(format!("{program}-{cgroup}"))
}

/// Names of the files in a directory, in order; none where there is no such directory.
pub fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = |error| Error::io(format!("cannot list {}", directory.display()), error);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// The process that has the folder locked, where it can be seen.
pub fn holder(folder: &Path) -> Option<u32> {
    let there = fs::metadata(folder).ok()?;
    let device = there.dev();
    let wanted = format!("{:02x}:{:02x}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device), there.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let found = line.into_iter().find(|words| words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&&*wanted))?;
    // 0: of another pid namespace.
    found.get(4)?.parse().ok().filter(|&pid| pid != 0)
}

fn check_place(path: &Path) -> Result<(), Error> {
    let bad = |why: &str| {
        let what = format!("cannot pin at {}: {why}. An example of a good place is /sys/fs/bpf/carnet", path.display());
        Err(Error::new(ErrorKind::Io, what))
    };
    let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
        return bad("it is not the absolute path of a folder");
    };
    if OsStr::to_string_lossy(name).contains('.') {
        return bad("no name in a bpf file system has a dot");
    }
    mount::check(parent)
}

/// Locks the folder, which must be this user's alone: in a bpf file system that everybody may write to, anybody can have
/// made it. `None`: there is none.
fn lock(path: &Path) -> Result<Option<Flock<File>>, Error> {
    let failed = |error| Error::io(format!("cannot open {}", path.display()), error);
    loop {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let folder = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            folder => folder.map_err(failed)?,
        };
        let opened = folder.metadata().map_err(failed)?;
        if opened.uid() != geteuid().as_raw() || opened.mode() & 0o077 != 0 {
            let (place, uid, mode) = (path.display(), opened.uid(), opened.mode() & 0o7777);
            let what = format!(
                "{place} is of uid {uid} and has the mode {mode:o}, so that others may have changed what is in it. \
                 Remove it if it is not needed"
            );
            return Err(Error::new(ErrorKind::Io, what));
        }
        let turn = match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => turn,
            Err((_, Errno::EWOULDBLOCK)) => return Err(held(path)),
            Err((_, error)) => return Err(failed(error.into())),
        };
        // Between opening and locking, somebody may have removed it, and made another.
        if fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (opened.dev(), opened.ino())) {
            return Ok(Some(turn));
        }
    }
}

fn held(path: &Path) -> Error {
    let holder = holder(path);
    let who = holder.map_or_else(|| "another process".into(), |pid| format!("process {pid}"));
    Error::new(ErrorKind::Held(holder), format!("{who} runs the engine that is pinned at {}", path.display()))
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

pub const MAPS: &str = "maps";
pub const PROGRAMS: &str = "programs";
const LINKS: &str = "links";
const PARTS: [&str; 3] = [MAPS, PROGRAMS, LINKS];
const STAMP: &str = "stamp";
/// What is about to take another file's place.
const NEXT: &str = "next";
