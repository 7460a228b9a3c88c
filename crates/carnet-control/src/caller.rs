//! Who asks.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;

use crate::{Access, Role};

/// The process at the other end, as it was when it connected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Its process, as far as the kernel can tell it. For messages: the connection may have been passed on.
    pub pid: Option<i32>,
    /// Its supplementary groups, as they were when the connection was accepted. Empty also where they cannot be told for
    /// sure: before Linux 6.5, and where it had ended, or had become another user, before it was looked at.
    pub groups: Vec<u32>,
    /// Its cgroup at that moment, a path below the cgroup2 mount (`/system.slice/dlp.service`). `None`: it cannot be told
    /// for sure, for the same reasons, or is not to be seen from the daemon's.
    pub cgroup: Option<PathBuf>,
    /// What it may do, by the access lists of this moment.
    pub role: Option<Role>,
}

impl Caller {
    /// The process that connected, with no role yet.
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let (uid, gid, pid) = (credentials.uid(), credentials.gid(), credentials.pid());
        Ok(Self { uid, gid, pid, groups: Vec::new(), cgroup: None, role: None })
    }

    /// With what `/proc` says of it, where that is sure.
    pub(crate) fn looked_up(self, stream: &impl AsFd) -> Self {
        let Some(looks) = Looks::of(stream).filter(|looks| looks.is(self.uid, self.gid)) else { return self };
        Self { groups: looks.groups, cgroup: looks.cgroup, ..self }
    }

    /// With the role that these lists give.
    pub(crate) fn by(self, access: &Access) -> Self {
        Self { role: self.role_by(access), ..self }
    }

    pub(crate) fn role_by(&self, access: &Access) -> Option<Role> {
        access.role(self.uid, &[&[self.gid], &self.groups[..]].concat())
    }
}

/// What `/proc` says of a process.
#[derive(Debug, Eq, PartialEq)]
struct Looks {
    /// Real, effective, saved and of the file system.
    uids: Vec<u32>,
    gids: Vec<u32>,
    groups: Vec<u32>,
    cgroup: Option<PathBuf>,
}

impl Looks {
    /// Of the process that connected, if it still lives. A pid alone says nothing, for it may be another's by now; but as
    /// long as a process lives nobody else has its pid.
    fn of(stream: &impl AsFd) -> Option<Self> {
        let pidfd = getsockopt(stream, PeerPidfd).ok()?;
        let process = PathBuf::from(format!("/proc/{}", pid(&pidfd)?));
        let status = fs::read_to_string(process.join("status")).ok()?;
        let cgroup = read_cgroup(&process.join("cgroup"));
        let looks = Self::parse(&status, cgroup)?;
        lives(&pidfd).then_some(looks)
    }

    fn parse(status: &str, cgroup: Option<PathBuf>) -> Option<Self> {
        let ids = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().map(|id| id.parse().ok()).collect()
        };
        Some(Self { uids: ids("Uid:")?, gids: ids("Gid:")?, groups: ids("Groups:")?, cgroup })
    }

    /// Whether it is this user in every respect. A program that has more rights than who started it, or had, does not speak
    /// for its starter: who connected may have become it since.
    fn is(&self, uid: u32, gid: u32) -> bool {
        self.uids.iter().all(|&its| its == uid) && self.gids.iter().all(|&its| its == gid)
    }
}

/// As `/proc` numbers processes, whatever namespace that is of. `None`: it is over, or not to be seen there.
fn pid(pidfd: &OwnedFd) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|&pid| pid > 0)
}

/// A pidfd can be read when its process is over.
fn lives(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
}

fn read_cgroup(file: &Path) -> Option<PathBuf> {
    let mut text = Vec::new();
    File::open(file).ok()?.read_to_end(&mut text).ok()?;
    cgroup(&text)
}

/// The line of version 2. A path is any bytes.
fn cgroup(text: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;

    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    // Of one that has been removed, and of one above the daemon's namespace.
    let is_gone = line.ends_with(b" (deleted)");
    let is_outside = line.starts_with(b"/..");
    (!is_gone && !is_outside).then(|| std::ffi::OsString::from_vec(line.to_owned()).into())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, path::Path};

    use nix::{errno::Errno, sys::socket::getsockopt};

    use super::{Looks, PeerPidfd, cgroup};

    const STATUS: &str = "Name:\tcurl\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nFDSize:\t256\nGroups:\t4 24 1000 \n";

    #[test]
    fn a_process_is_its_user_only_where_all_of_its_ids_say_so() {
        let looks = Looks::parse(STATUS, None).unwrap();
        assert_eq!(looks.groups, [4, 24, 1000]);
        assert!(looks.is(7, 8));
        assert!(!looks.is(8, 7));
        for ids in ["0\t7\t7\t7", "7\t7\t0\t7", "7\t7\t7\t0"] {
            let setuid = Looks::parse(&STATUS.replace("7\t7\t7\t7", ids), None).unwrap();
            assert!(!setuid.is(7, 8), "{ids}");
        }
        let setgid = Looks::parse(&STATUS.replace("8\t8\t8\t8", "8\t4\t4\t4"), None).unwrap();
        assert!(!setgid.is(7, 8) && !setgid.is(7, 4));
        assert_eq!(Looks::parse(&STATUS.replace("24", "x"), None), None);
        assert_eq!(Looks::parse("Name:\tcurl\n", None), None);
    }

    #[test]
    fn a_cgroup_is_that_of_version_2_and_has_to_be_there() {
        assert_eq!(cgroup(b"1:cpu:/x\n0::/a/b c\n").as_deref(), Some(Path::new("/a/b c")));
        assert_eq!(cgroup(b"0::/\n").as_deref(), Some(Path::new("/")));
        for text in ["1:cpu:/x\n", "0::/a (deleted)\n", "0::/../other\n", ""] {
            assert_eq!(cgroup(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_kernel_tells_who_connected_since_6_5() {
        let (one, _other) = UnixStream::pair().unwrap();
        // Before, there is no such option.
        if getsockopt(&one, PeerPidfd).is_err_and(|error| error == Errno::ENOPROTOOPT) {
            return assert_eq!(Looks::of(&one), None);
        }
        let looks = Looks::of(&one).unwrap();
        let own: Vec<u32> = rustix::process::getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        assert_eq!(looks.groups, own);
        let text = std::fs::read("/proc/self/cgroup").unwrap();
        assert_eq!(looks.cgroup, cgroup(&text));
    }
}
