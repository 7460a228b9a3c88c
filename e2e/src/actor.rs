//! Processes that make single socket calls for a test: each in its own cgroup, each on a descriptor that comes with the
//! call (`SCM_RIGHTS`) and is closed before the answer goes back. So the test holds every socket, and who calls is
//! independent of whose socket it is.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::programs::Started;
use crate::sockets::PATIENCE;
use crate::{passing, raw};

/// A family of TCP sockets, by what they reach.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and IPv4 in the mapped form.
    Dual,
    /// IPv6 alone.
    V6,
}

/// One call.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Call {
    /// Makes a TCP socket.
    Socket(Family),
    /// Makes one that listens there.
    Listen(SocketAddr),
    /// `bind`.
    Bind(SocketAddr),
    /// `connect`, at most [`PATIENCE`] long.
    Connect(SocketAddr),
    /// `connect` with `AF_UNSPEC`.
    Disconnect,
    /// `accept`, without waiting.
    Accept,
    /// `getsockopt`: level, name, length.
    Get(i32, i32, usize),
    /// `setsockopt`: level, name, value.
    Set(i32, i32, Vec<u8>),
    /// `getpeername`.
    PeerName,
    /// Sends one byte, without waiting.
    Send,
    /// Receives at most [`MOST_READ`] bytes, without waiting.
    Receive,
    /// Says that nothing more will be sent.
    Shutdown,
    /// Another call, by a process forked for it that has inherited the socket.
    Fork(Box<Call>),
}

/// What came of a call.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Reply {
    /// 0 or an errno.
    pub error: i32,
    /// The bytes that an option or a read gave, as many as the kernel says.
    pub bytes: Vec<u8>,
    /// The address that was asked for.
    pub name: Option<SocketAddr>,
    /// The process that made the call.
    pub pid: u32,
}

/// [`Call::Receive`] takes no more.
pub const MOST_READ: usize = 64;

/// A process that makes calls, until this is dropped or the test ends.
#[derive(Debug)]
pub struct Actor {
    line: OwnedFd,
    _process: Started,
}

impl Actor {
    /// Starts the program with this command, which brings it into its cgroup.
    pub fn start(command: &mut Command) -> Self {
        let (line, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a pair of sockets");
        Self { line, _process: Started::by(command.stdin(Stdio::from(theirs))) }
    }

    /// Has a call made, on this socket where there is one. Returns what came of it and the socket that it made.
    pub fn call(&self, call: &Call, socket: Option<BorrowedFd<'_>>) -> (Reply, Option<OwnedFd>) {
        let request = serde_json::to_vec(call).expect("calls are text");
        passing::send(&self.line, &request, socket).expect("the actor lives");
        let (reply, made) = passing::receive(&self.line).expect("the actor answers").expect("the actor lives");
        (serde_json::from_slice(&reply).expect("a reply"), made)
    }
}

/// Makes calls that come over standard input, until it ends.
pub fn serve() -> Result<()> {
    let line = io::stdin();
    while let Some((request, socket)) = passing::receive(&line).context("the line to the test")? {
        let call: Call = serde_json::from_slice(&request)?;
        let (reply, made) = perform(&call, socket.as_ref().map(AsFd::as_fd));
        drop(socket);
        passing::send(&line, &serde_json::to_vec(&reply)?, made.as_ref().map(AsFd::as_fd))?;
    }
    Ok(())
}

/// Makes one call on the socket that is its standard input, and prints what came of it.
pub fn once(call: &str) -> Result<()> {
    let (reply, _) = perform(&serde_json::from_str(call)?, Some(io::stdin().as_fd()));
    println!("{}", serde_json::to_string(&reply)?);
    Ok(())
}

fn perform(call: &Call, socket: Option<BorrowedFd<'_>>) -> (Reply, Option<OwnedFd>) {
    let mut reply = Reply { pid: std::process::id(), ..Reply::default() };
    let made = match attempt(call, socket, &mut reply) {
        Ok(made) => made,
        Err(error) => {
            reply.error = error.raw_os_error().unwrap_or(-1);
            None
        }
    };
    (reply, made)
}

fn attempt(call: &Call, socket: Option<BorrowedFd<'_>>, reply: &mut Reply) -> io::Result<Option<OwnedFd>> {
    match call {
        Call::Socket(family) => return new(*family).map(|socket| Some(socket.into())),
        Call::Listen(at) => return listener(*at).map(|socket| Some(socket.into())),
        _ => {}
    }
    let fd = socket.ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
    let socket = SockRef::from(&fd);
    let errno = io::Error::from_raw_os_error;
    match call {
        Call::Socket(_) | Call::Listen(_) => {}
        Call::Bind(at) => socket.bind(&(*at).into())?,
        Call::Connect(to) => socket.connect(&(*to).into())?,
        Call::Disconnect => raw::disconnect(&fd).map_err(errno)?,
        Call::Accept => {
            let accepted = socket.accept()?.0;
            accepted.set_write_timeout(Some(PATIENCE))?;
            return Ok(Some(accepted.into()));
        }
        Call::Get(level, name, length) => {
            let mut value = vec![0; *length];
            let length = raw::get(&fd, *level, *name, &mut value).map_err(errno)?;
            value.truncate(length);
            reply.bytes = value;
        }
        Call::Set(level, name, value) => raw::set(&fd, *level, *name, value).map_err(errno)?,
        Call::PeerName => reply.name = socket.peer_addr()?.as_socket(),
        Call::Send => drop(send(fd, b"x", SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?),
        Call::Receive => {
            let mut bytes = [0; MOST_READ];
            let (count, _) = recv(fd, &mut bytes, RecvFlags::DONTWAIT)?;
            reply.bytes = bytes[..count].to_vec();
        }
        Call::Shutdown => socket.shutdown(Shutdown::Write)?,
        Call::Fork(call) => *reply = forked(call, fd)?,
    }
    Ok(None)
}

fn new(family: Family) -> io::Result<Socket> {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if family != Family::V4 {
        socket.set_only_v6(family == Family::V6)?;
    }
    // What should not take long shows as EINPROGRESS where it does.
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn listener(at: SocketAddr) -> io::Result<Socket> {
    let socket = new(if at.is_ipv4() { Family::V4 } else { Family::V6 })?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn forked(call: &Call, socket: BorrowedFd<'_>) -> io::Result<Reply> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(serde_json::to_string(call)?)
        .stdin(Stdio::from(socket.try_clone_to_owned()?))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut reply = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut reply)?;
    child.wait()?;
    Ok(serde_json::from_str(&reply)?)
}
