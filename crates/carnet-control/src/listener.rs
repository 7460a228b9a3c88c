//! A descriptor that came from another process, looked at before it is used.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{AddressFamily, Protocol, SocketType, getsockname, ipproto, sockopt};

/// A TCP socket that listens.
#[derive(Debug)]
pub struct Listener {
    descriptor: OwnedFd,
    address: SocketAddr,
}

/// What was passed is no listener that connections can be redirected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoListener {
    /// It is a file, a pipe or the like.
    #[error("it is no socket")]
    NoSocket(#[source] io::Error),
    /// It is a socket of another kind.
    #[error("it is no TCP socket")]
    NoTcp,
    /// `listen()` has not been called.
    #[error("it does not listen: call listen() first")]
    Deaf,
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl TryFrom<OwnedFd> for Listener {
    type Error = NoListener;

    fn try_from(descriptor: OwnedFd) -> Result<Self, NoListener> {
        let no_socket = |error: rustix::io::Errno| NoListener::NoSocket(error.into());
        let family = sockopt::socket_domain(&descriptor).map_err(no_socket)?;
        let kind = sockopt::socket_type(&descriptor).map_err(no_socket)?;
        let protocol = sockopt::socket_protocol(&descriptor).map_err(no_socket)?;
        if !matches!(family, AddressFamily::INET | AddressFamily::INET6) || kind != SocketType::STREAM {
            return Err(NoListener::NoTcp);
        }
        if !protocol.is_none_or(|protocol: Protocol| protocol == ipproto::TCP || protocol == ipproto::MPTCP) {
            return Err(NoListener::NoTcp);
        }
        if !sockopt::socket_acceptconn(&descriptor).map_err(no_socket)? {
            return Err(NoListener::Deaf);
        }
        let name = getsockname(&descriptor).map_err(no_socket)?;
        let address = name.try_into().map_err(|_| NoListener::NoTcp)?;
        Ok(Self { descriptor, address })
    }
}

impl TryFrom<TcpListener> for Listener {
    type Error = NoListener;

    fn try_from(listener: TcpListener) -> Result<Self, NoListener> {
        OwnedFd::from(listener).try_into()
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.descriptor
    }
}

impl From<Listener> for TcpListener {
    fn from(listener: Listener) -> Self {
        listener.descriptor.into()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::OwnedFd;

    use super::{Listener, NoListener};

    #[test]
    fn a_listener_says_where_it_listens() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(Listener::try_from(listener).unwrap().address(), address);
        }
    }

    #[test]
    fn what_is_no_listener_is_told_by_kind() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(matches!(Listener::try_from(OwnedFd::from(stream)), Err(NoListener::Deaf)));

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(matches!(Listener::try_from(OwnedFd::from(udp)), Err(NoListener::NoTcp)));

        let (unix, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(Listener::try_from(OwnedFd::from(unix)), Err(NoListener::NoTcp)));

        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(Listener::try_from(OwnedFd::from(file)), Err(NoListener::NoSocket(_))));
    }
}
