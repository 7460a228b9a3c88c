//! Control groups, version 2: where they are mounted, and the ones Carnet makes. Plain files; no BPF here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, mounts};

/// The mounted cgroup2 hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount: PathBuf,
}

impl Hierarchy {
    /// Finds it in `/proc/thread-self/mounts`; its place is never assumed, since hybrid systems have it elsewhere.
    pub fn find() -> Result<Self, Error> {
        match mounts::of_type(&mounts::read()?, "cgroup2").next() {
            Some(mount) => Ok(Self { mount }),
            None => Err(Error::new(ErrorKind::NoCgroup2, "no cgroup2 hierarchy is mounted")),
        }
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Depth of a cgroup below the root, which is 0. `None` where the path is not below the mount.
    pub fn level_of(&self, path: &Path) -> Option<u32> {
        let below = path.strip_prefix(&self.mount).ok()?;
        Some(below.components().count() as u32)
    }

    /// The cgroup with this id. Walks the hierarchy, so it is not for hot paths.
    pub fn find_by_id(&self, id: u64) -> Option<PathBuf> {
        self.paths_of(&BTreeSet::from([id])).ok()?.into_values().next()
    }

    /// Those of the cgroups with these ids that are to be seen from here, by one walk over the hierarchy. What is removed
    /// meanwhile is left out; other failures are told, since one that is left out looks as if it were gone.
    pub fn paths_of(&self, ids: &BTreeSet<u64>) -> Result<BTreeMap<u64, PathBuf>, Error> {
        let mut paths = BTreeMap::new();
        let mut open = vec![self.mount.clone()];
        while paths.len() < ids.len()
            && let Some(path) = open.pop()
        {
            match look_into(&path) {
                Ok((id, below)) => {
                    open.extend(below);
                    if ids.contains(&id) {
                        paths.insert(id, path);
                    }
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(Error::io(format!("cannot look into the cgroup {}", path.display()), error)),
            }
        }
        Ok(paths)
    }
}

/// A cgroup's id, and those in it.
fn look_into(path: &Path) -> io::Result<(u64, Vec<PathBuf>)> {
    let mut below = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        }
    }
    Ok((fs::metadata(path)?.ino(), below))
}

fn is_gone(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV)
}

/// One cgroup below the mount. It does not remove itself: see [`Cgroup::remove_tree`].
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
    id: u64,
    level: u32,
}

impl Cgroup {
    /// Makes the cgroup `name`, a path of one or more components below the mount. It must not exist.
    pub fn create(hierarchy: &Hierarchy, name: &str) -> Result<Self, Error> {
        let path = hierarchy.mount.join(name);
        fs::create_dir(&path)
            .map_err(|error| Error::io(format!("cannot create the cgroup {}", path.display()), error))?;
        Self::open(hierarchy, &path)
    }

    /// One that exists; `path` is absolute.
    pub fn open(hierarchy: &Hierarchy, path: &Path) -> Result<Self, Error> {
        let level = hierarchy.level_of(path).ok_or_else(|| {
            Error::new(
                ErrorKind::NoCgroup(path.into()),
                format!("{} is not below {}", path.display(), hierarchy.mount.display()),
            )
        })?;
        let failed = |error| Error::io(format!("cannot open the cgroup {}", path.display()), error);
        let directory = File::open(path).map_err(failed)?;
        let id = directory.metadata().map_err(failed)?.ino();
        Ok(Self { path: path.into(), directory, id, level })
    }

    /// Makes a cgroup in this one.
    pub fn child(&self, name: &str) -> Result<Self, Error> {
        let path = self.path.join(name);
        let failed = |error| Error::io(format!("cannot create the cgroup {}", path.display()), error);
        fs::create_dir(&path).map_err(failed)?;
        let directory = File::open(&path).map_err(failed)?;
        let id = directory.metadata().map_err(failed)?.ino();
        Ok(Self { path, directory, id, level: self.level + 1 })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id, as `bpf_get_current_cgroup_id()` and INET_DIAG give it: the directory's inode.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Depth below the root, which is 0.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Moves a process into it. Sockets the process has made before keep their cgroup.
    pub fn add(&self, pid: u32) -> Result<(), Error> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Moves the calling process into it.
    pub fn add_self(&self) -> Result<(), Error> {
        self.add(std::process::id())
    }

    /// SIGKILL for every process in it and below.
    pub fn kill(&self) -> Result<(), Error> {
        self.write("cgroup.kill", "1")
    }

    /// Whether a process is in it or below.
    pub fn is_populated(&self) -> Result<bool, Error> {
        let path = self.path.join("cgroup.events");
        let events =
            fs::read_to_string(&path).map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    /// Kills what is in it, waits until it is empty, and removes it with everything below.
    pub fn remove_tree(&self, deadline: Duration) -> Result<(), Error> {
        remove_tree(&self.path, deadline)
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        let path = self.path.join(file);
        fs::write(&path, value).map_err(|error| Error::io(format!("cannot write {value} to {}", path.display()), error))
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Kills everything in the cgroup `path`, waits until it is empty, and removes it with everything below. A cgroup that
/// is gone already is fine.
pub fn remove_tree(path: &Path, deadline: Duration) -> Result<(), Error> {
    let end = Instant::now() + deadline;
    loop {
        match try_remove(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Killed processes leave their cgroup only once they are gone, which takes the kernel a moment.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(Error::io(format!("cannot remove the cgroup {}", path.display()), error)),
        }
    }
}

fn try_remove(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.kill"), "1")?;
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            try_remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_count_from_the_mount() {
        let hierarchy = Hierarchy { mount: "/sys/fs/cgroup".into() };
        assert_eq!(hierarchy.level_of(Path::new("/sys/fs/cgroup")), Some(0));
        assert_eq!(hierarchy.level_of(Path::new("/sys/fs/cgroup/a/b")), Some(2));
        assert_eq!(hierarchy.level_of(Path::new("/sys/fs")), None);
    }
}
