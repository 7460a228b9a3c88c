//! A program file: as the kernel knows it, and who could put another in its place.

use std::collections::BTreeSet;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use carnet_policy::Executable;
use carnet_policy::file::{ExecutableAt, OpenTo, Writers};
use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags, statx};

/// Follows links.
pub fn look(path: &Path) -> io::Result<ExecutableAt> {
    let real = path.canonicalize()?;
    let status = statx(CWD, &real, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    if u32::from(status.stx_mode) & FILE_TYPE != REGULAR {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mount =
        mount(&mounts, status.stx_mnt_id).ok_or_else(|| io::Error::other("its file system is not mounted here"))?;
    Ok(ExecutableAt {
        executable: Executable { dev: mount.dev, ino: status.stx_ino },
        file_system: mount.file_system.to_owned(),
        open_to: open_to(path, &real)?,
        is_script: is_script(&real),
    })
}

#[derive(Debug, Eq, PartialEq)]
struct Mount<'t> {
    /// In the kernel's encoding.
    dev: u32,
    file_system: &'t str,
}

/// The device of the file system, which is the kernel's. What `stat()` tells is another one on btrfs and others.
fn mount(mounts: &str, id: u64) -> Option<Mount<'_>> {
    mounts.lines().find_map(|line| {
        // ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS [TAG]... - TYPE SOURCE OPTIONS
        let mut fields = line.split(' ');
        if fields.next()?.parse::<u64>().ok()? != id {
            return None;
        }
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        let dev = major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?;
        Some(Mount { dev, file_system: fields.skip_while(|field| *field != "-").nth(1)? })
    })
}

/// The file, what it is reached by, and the folders above both, where others than root can write. Access lists are not
/// looked at.
fn open_to(path: &Path, real: &Path) -> io::Result<Vec<OpenTo>> {
    let all: BTreeSet<PathBuf> = path.ancestors().chain(real.ancestors()).map(Path::to_owned).collect();
    let mut open = Vec::new();
    for path in all {
        // Folders of links, too, are what the path leads through.
        let metadata = fs::metadata(&path)?;
        open.extend(writers(&metadata).map(|writers| OpenTo { path: path.display().to_string(), writers }));
    }
    Ok(open)
}

fn writers(metadata: &Metadata) -> Option<Writers> {
    // In a folder like /tmp, only its owner can put something else in the place of a file.
    let is_sticky = metadata.is_dir() && metadata.mode() & STICKY != 0;
    if metadata.uid() != 0 {
        Some(Writers::Uid(metadata.uid()))
    } else if metadata.mode() & EVERYBODY != 0 && !is_sticky {
        Some(Writers::Everybody)
    } else if metadata.mode() & GROUP != 0 && metadata.gid() != 0 && !is_sticky {
        Some(Writers::Gid(metadata.gid()))
    } else {
        None
    }
}

/// Where it may not be read, it is taken for a program.
fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    // Another file may be there by now, such as a FIFO, which is not waited for.
    let open = OpenOptions::new().read(true).custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32).open(path);
    let read = open.and_then(|mut file| match file.metadata()?.is_file() {
        true => file.read_exact(&mut start),
        false => Err(io::ErrorKind::InvalidInput.into()),
    });
    read.is_ok() && start == *b"#!"
}

const FILE_TYPE: u32 = 0o170000;
const REGULAR: u32 = 0o100000;
const STICKY: u32 = 0o1000;
const GROUP: u32 = 0o020;
const EVERYBODY: u32 = 0o002;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_device_is_that_of_the_mount() {
        let mounts = "22 1 0:21 / / rw shared:1 master:2 - btrfs /dev/vda1 rw,subvol=/@\n\
            23 22 259:1048575 / /a rw - ext4 /dev/b rw\n24 22 x:1 / /b rw - ext4 /dev/c rw\n25 22\n";
        assert_eq!(mount(mounts, 22), Some(Mount { dev: 21, file_system: "btrfs" }));
        assert_eq!(mount(mounts, 23), Some(Mount { dev: 259 << 20 | 0xfffff, file_system: "ext4" }));
        for id in [24, 25, 26] {
            assert_eq!(mount(mounts, id), None);
        }
    }

    #[test]
    fn who_can_write_to_it_is_told() {
        let folder = std::env::temp_dir().join(format!("carnet-writers-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("program");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).unwrap();
        let found = look(&file);
        fs::remove_dir_all(&folder).unwrap();
        let found = found.unwrap();
        let own = found.open_to.iter().find(|open| open.path == file.display().to_string()).unwrap();
        let expected = match fs::metadata("/proc/self").unwrap().uid() {
            0 => Writers::Everybody,
            uid => Writers::Uid(uid),
        };
        assert_eq!(own.writers, expected);
        assert!(found.is_script);
    }
}
