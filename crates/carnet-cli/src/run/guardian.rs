//! `carnet run`'s end of the guardian: see `crate::guardian` for the other one.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carnet_engine::cgroup::remove_tree;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    send, sendmsg, socketpair,
};

use super::SELF;
use crate::guardian::{CGROUP, LINKS, MOST_DESCRIPTORS, NAME};
use crate::run::wait::{pidfd_of, wait_for_end};

/// The running guardian. Dropping it has the run cleared up, without waiting for it.
pub struct Guardian {
    socket: OwnedFd,
    child: Child,
    pidfd: OwnedFd,
    cgroup: Option<PathBuf>,
}

impl Guardian {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let failed = "cannot start the guardian process";
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context(failed)?;
        let child =
            Command::new(SELF).arg(NAME).stdin(Stdio::from(theirs)).stdout(Stdio::null()).spawn().context(failed)?;
        let pidfd = pidfd_of(&child).context(failed)?;
        Ok(Self { socket, child, pidfd, cgroup: None })
    }

    /// Readable when it has died.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Names the cgroup that is to be removed at the end. Call it before the cgroup is made.
    pub fn entrust(&mut self, cgroup: &Path) -> Result<()> {
        let message = [CGROUP, cgroup.as_os_str().as_bytes()].concat();
        send(&self.socket, &message, SendFlags::NOSIGNAL).context(DEAD)?;
        self.cgroup = Some(cgroup.into());
        self.acknowledged()
    }

    /// Has it hold these, until the run is cleared up.
    pub fn hold(&self, links: &[BorrowedFd<'_>]) -> Result<()> {
        for links in links.chunks(MOST_DESCRIPTORS) {
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(links));
            sendmsg(&self.socket, &[IoSlice::new(LINKS)], &mut ancillary, SendFlags::NOSIGNAL).context(DEAD)?;
            self.acknowledged()?;
        }
        Ok(())
    }

    /// Has the run cleared up, and waits for that. Where the guardian has died the run is cleared up here.
    pub fn finish(mut self) -> Result<()> {
        drop(self.socket);
        if !wait_for_end(self.pidfd.as_fd(), 2 * CLEARING_DEADLINE)? {
            // Stopped, perhaps.
            self.child.kill().context("cannot end the guardian process")?;
        }
        let status = self.child.wait().context("cannot wait for the guardian process")?;
        match &self.cgroup {
            _ if status.success() => Ok(()),
            Some(cgroup) => remove_tree(cgroup, CLEARING_DEADLINE).context("cannot clear up"),
            None => Ok(()),
        }
    }

    fn acknowledged(&self) -> Result<()> {
        let mut answer = [0; 1];
        match recv(&self.socket, &mut answer, RecvFlags::empty()) {
            Ok((1, _)) => Ok(()),
            Ok(_) => bail!(DEAD),
            Err(error) => Err(error).context(DEAD),
        }
    }
}

/// Said wherever it is found out.
pub const DEAD: &str = "the guardian process was killed, so the run was ended: nothing would clear up after it";

const CLEARING_DEADLINE: Duration = Duration::from_secs(10);
