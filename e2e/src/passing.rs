//! Messages and sockets from process to process (`SCM_RIGHTS`).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Sends a descriptor by a Unix socket.
pub fn give(by: &impl AsFd, socket: &impl AsFd) -> Result<()> {
    send(by, b"!", Some(socket.as_fd()))
}

/// Waits for one.
pub fn take(by: &impl AsFd) -> Result<OwnedFd> {
    let (_, socket) = receive(by)?.context("the other side has closed instead of giving a descriptor")?;
    socket.context("the message brought no descriptor")
}

/// Sends a message by a Unix socket, and a descriptor with it where there is one.
pub fn send(by: &impl AsFd, message: &[u8], socket: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = socket.as_slice();
    let fits = sockets.is_empty() || control.push(SendAncillaryMessage::ScmRights(sockets));
    ensure!(fits, "no room for one descriptor");
    sendmsg(by, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for a message. `None`: the other side has closed.
pub fn receive(by: &impl AsFd) -> Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut message = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut message)];
    let received = recvmsg(by, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    ensure!(received.bytes < LONGEST, "a message of more than {LONGEST} bytes");
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    message.truncate(received.bytes);
    Ok(Some((message, socket)))
}

const LONGEST: usize = 64 * 1024;
