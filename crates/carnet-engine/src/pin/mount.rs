//! Where a bpf file system is mounted.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::{Error, ErrorKind, mounts};

/// Where a bpf file system is mounted, by `/proc/thread-self/mounts`: `/sys/fs/bpf` where there is one, else the first.
pub fn mount_point() -> Result<PathBuf, Error> {
    choose(&mounts::read()?).ok_or_else(|| Error::new(ErrorKind::NoBpffs, "no bpf file system is mounted"))
}

/// `carnet` at the [`mount_point`].
pub fn default_folder() -> Result<PathBuf, Error> {
    Ok(mount_point()?.join("carnet"))
}

/// Fails where this directory is not on a bpf file system. Something else may be mounted over one.
pub fn check(directory: &Path) -> Result<(), Error> {
    match statfs(directory) {
        Ok(there) if there.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {
            let what = format!("{} is not a directory of a bpf file system", directory.display());
            Err(Error::new(ErrorKind::NoBpffs, what))
        }
        Err(error) => Err(Error::io(format!("cannot look at {}", directory.display()), error.into())),
    }
}

fn choose(mounts: &str) -> Option<PathBuf> {
    let all: Vec<_> = mounts::of_type(mounts, "bpf").collect();
    all.iter().find(|place| *place == Path::new("/sys/fs/bpf")).or(all.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_place_goes_first() {
        let elsewhere = "bpf /run/my\\040bpf bpf rw 0 0\n";
        let usual = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n";
        assert_eq!(choose(elsewhere), Some("/run/my bpf".into()));
        assert_eq!(choose(&format!("{elsewhere}{usual}")), Some("/sys/fs/bpf".into()));
        assert_eq!(choose("sysfs /sys/fs/bpf sysfs rw 0 0\n"), None);
    }
}
