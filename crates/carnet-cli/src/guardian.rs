//! `carnet __guardian`: outlives `carnet run` and clears up after it, whatever ended it.
//!
//! It is started first, stands outside of the run's cgroup and terminal, and holds one end of a socket whose other end is
//! `carnet run`'s alone. When that closes, by exit or by SIGKILL, the guardian kills the run's cgroup and removes it. It
//! holds the engine's links until then: were they gone with `carnet run`, a command that is about to be killed could
//! still connect, uninspected.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carnet_engine::cgroup::remove_tree;
use nix::sys::signal::SigSet;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send};
use rustix::process::{chdir, setsid};
use rustix::stdio::stdin;

/// Name of the subcommand.
pub const NAME: &str = "__guardian";

/// Guards until its standard input, a socket to `carnet run`, closes.
pub fn guard() -> Result<ExitCode> {
    // Nothing but SIGKILL ends it early, and Ctrl-C does not reach it.
    SigSet::all().thread_block().context("cannot block signals")?;
    setsid().context("cannot leave the terminal")?;
    chdir("/").context("cannot leave the directory")?;

    let mut run: Option<PathBuf> = None;
    let mut links = Vec::new();
    while let Some(message) = receive()? {
        if let Some(cgroup) = message.cgroup {
            run = Some(cgroup);
        }
        links.extend(message.links);
        // `carnet run` goes on only when the guardian knows.
        send(stdin(), b"k", SendFlags::NOSIGNAL).ok();
    }
    let cleared = match &run {
        Some(run) => remove_tree(run, CLEARING_DEADLINE),
        None => Ok(()),
    };
    drop(links);
    cleared.context("processes of the run are left; the next `carnet run` tries to end them again")?;
    Ok(ExitCode::SUCCESS)
}

/// What `carnet run` hands over.
struct Message {
    /// The run's cgroup, before it is made.
    cgroup: Option<PathBuf>,
    /// The engine's links.
    links: Vec<OwnedFd>,
}

/// `None`: `carnet run` has ended.
fn receive() -> Result<Option<Message>> {
    let mut bytes = [0; 4096];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = match recvmsg(stdin(), &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
        // A peer that was killed with messages of ours unread.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        received => received.context("cannot hear from carnet")?,
    };
    let mut links = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            links.extend(descriptors);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        bail!("a message of carnet's is longer than expected");
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some(Message::parse(&bytes[..received.bytes], links)))
}

impl Message {
    fn parse(bytes: &[u8], links: Vec<OwnedFd>) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let cgroup = bytes.strip_prefix(CGROUP).map(|path| std::ffi::OsStr::from_bytes(path).into());
        Self { cgroup, links }
    }
}

/// Begins the message that names the run's cgroup.
pub const CGROUP: &[u8] = b"cgroup ";
/// The message that carries links.
pub const LINKS: &[u8] = b"links";
/// The kernel's limit for one message (SCM_MAX_FD).
pub const MOST_DESCRIPTORS: usize = 253;

const CLEARING_DEADLINE: Duration = Duration::from_secs(10);
