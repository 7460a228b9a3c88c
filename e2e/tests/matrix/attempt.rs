//! Clients. All of a list connect at once, since some get no answer, and each of those takes its time.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU16, Ordering};

use carnet_e2e::raw;
use carnet_e2e::sockets::PATIENCE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::cell::{Bind, Cell, Kind};
use super::door::Doors;
use super::without;

/// What became of one client.
pub struct Attempt {
    pub cell: Cell,
    /// Where it was to go, as the socket was told.
    pub asked: SocketAddr,
    /// To what it was bound before.
    pub bound: Option<SocketAddr>,
    /// How connect() ended: the errno if not well.
    pub result: Result<TcpStream, i32>,
}

/// Whose processes the clients are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum User {
    Root,
    Nobody,
}

impl User {
    pub fn uid(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Nobody => raw::NOBODY,
        }
    }

    /// One client of this user's for each cell.
    pub fn connect(self, cells: &[Cell], servers: &Doors) -> Vec<Attempt> {
        let to: Vec<_> = cells.iter().map(|cell| cell.destination(servers)).collect();
        let connect = || {
            let begun: Vec<_> = cells.iter().zip(to).map(|(&cell, to)| Begun::new(cell, to)).collect();
            begun.into_iter().map(Begun::end).collect()
        };
        match self {
            Self::Root => connect(),
            Self::Nobody => raw::as_nobody(connect),
        }
    }
}

/// A connect() that may still be under way.
struct Begun {
    cell: Cell,
    asked: SocketAddr,
    bound: Option<SocketAddr>,
    socket: Socket,
    errno: i32,
}

/// For how long those wait who know that there is no answer, in milliseconds: then they have `ETIMEDOUT`.
const SILENCE: u32 = 1000;

/// Ports below those that the kernel gives out. None is used twice, so that none is in `TIME_WAIT`.
static NEXT_PORT: AtomicU16 = AtomicU16::new(2000);

impl Begun {
    fn new(cell: Cell, destination: SocketAddr) -> Self {
        let asked = cell.kind.write(destination);
        let socket = Socket::new(Domain::for_address(asked), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        if asked.is_ipv6() {
            socket.set_only_v6(cell.kind == Kind::V6Only).expect("IPV6_V6ONLY");
        }
        if without::known(cell) == Err(libc::ETIMEDOUT) {
            let silence = SILENCE.to_ne_bytes();
            raw::set(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &silence).expect("TCP_USER_TIMEOUT");
        }
        let ip = match cell.bind {
            Bind::Implicit => None,
            Bind::To(family, place) => Some(place.ip(family)),
            Bind::Wildcard(family) => Some(family.unspecified()),
        };
        let bound = ip.map(|ip| {
            let address = SocketAddr::new(ip, NEXT_PORT.fetch_add(1, Ordering::Relaxed));
            socket.bind(&cell.kind.write(address).into()).expect("every cell's binding is possible");
            address
        });
        socket.set_nonblocking(true).expect("non-blocking");
        let errno = socket.connect(&asked.into()).err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        Self { cell, asked, bound, socket, errno }
    }

    fn end(self) -> Attempt {
        let Self { cell, asked, bound, socket, mut errno } = self;
        if errno == libc::EINPROGRESS {
            let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
            let patience = PollTimeout::try_from(PATIENCE).expect("milliseconds");
            assert_eq!(poll(&mut polled, patience).expect("poll"), 1, "{cell}: neither connected nor failed in time");
            errno = socket.take_error().expect("SO_ERROR").map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        }
        socket.set_nonblocking(false).expect("blocking");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Attempt { cell, asked, bound, result: if errno == 0 { Ok(socket.into()) } else { Err(errno) } }
    }
}
