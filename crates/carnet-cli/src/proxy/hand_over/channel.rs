//! A connection between two processes that carries messages and descriptors, each packet by itself.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Uid;
use rustix::cmsg_space;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recvmsg, sendmsg,
    socket_with,
};

use super::message::{Message, ROOM};

/// One side of it.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Where the next process connects to.
#[derive(Debug)]
pub struct Door(OwnedFd);

impl Door {
    /// At a path where nothing is. Only its owner, and root, may come in.
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = packets()?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Nobody can connect before it listens.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listen(&socket, BACKLOG)?;
        Ok(Self(socket))
    }

    /// Waits for the next one.
    pub fn accept(&self) -> io::Result<Channel> {
        Channel::with_patience(accept_with(&self.0, SocketFlags::CLOEXEC)?)
    }
}

impl Channel {
    /// To the process whose door is at this path.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let channel = Self::with_patience(packets()?)?;
        connect(&channel.0, &SocketAddrUnix::new(path)?)?;
        Ok(channel)
    }

    /// The process on the other side, which is this user's, or root's.
    pub fn peer(&self) -> io::Result<i32> {
        let who = getsockopt(&self.0, PeerCredentials)?;
        let (pid, uid) = (who.pid(), Uid::from_raw(who.uid()));
        if uid != Uid::effective() && !uid.is_root() {
            let what = format!("process {pid} is of user {uid}: it has to be of the same user, or root's");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Ok(pid)
    }

    /// Sends a packet with descriptors, at most [`MOST_ALONG`].
    pub fn send(&self, message: Message, along: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_ALONG))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !along.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(along)) {
            return Err(io::Error::other("these are too many descriptors for one message"));
        }
        sendmsg(&self.0, &[IoSlice::new(&message.bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for a packet, and what comes along. [`io::ErrorKind::UnexpectedEof`]: the other side has gone.
    pub fn receive(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut bytes = [0; ROOM];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_ALONG))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut along = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                along.extend(descriptors);
            }
        }
        match &bytes[..received.bytes] {
            [] => Err(io::ErrorKind::UnexpectedEof.into()),
            packet => Ok((Message::read(packet).map_err(io::Error::other)?, along)),
        }
    }

    /// Neither side waits for ever for one that is stuck.
    fn with_patience(socket: OwnedFd) -> io::Result<Self> {
        for way in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, way, Some(PATIENCE))?;
        }
        Ok(Self(socket))
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn packets() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Descriptors that one packet carries; the kernel takes up to 253.
pub const MOST_ALONG: usize = 64;

const PATIENCE: Duration = Duration::from_secs(30);
const BACKLOG: i32 = 4;
