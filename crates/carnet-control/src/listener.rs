//! A descriptor that came from another process, looked at before it is used.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::fstat,
    net::{AddressFamily, Protocol, SocketType, getsockname, ipproto, sockopt},
};

/// A TCP socket that listens.
#[derive(Debug)]
pub struct Listener {
    descriptor: OwnedFd,
    address: SocketAddr,
    v6_only: bool,
    inode: u64,
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

    /// Whether it takes IPv6 connections only (`IPV6_V6ONLY`). False for IPv4.
    pub fn v6_only(&self) -> bool {
        self.v6_only
    }

    /// As the socket diagnosis (`INET_DIAG`) tells it, too. One that is not among what listens in the daemon's own network
    /// namespace listens in another one. No other way to see that is open to safe code.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether its address can be dialled as it is. A wildcard cannot, nor can one that needs an interface beside it.
    pub fn is_dialable(&self) -> bool {
        match self.address.ip().to_canonical() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
        }
    }

    /// Where to dial it: its address, or for a wildcard the loopback address of each family that it takes. Empty: there is
    /// no such address.
    pub fn dialable(&self) -> Vec<SocketAddr> {
        let at = |ip: IpAddr| SocketAddr::new(ip, self.address.port());
        match self.address.ip().to_canonical() {
            ip if self.is_dialable() => vec![at(ip)],
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![at(Ipv4Addr::LOCALHOST.into())],
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) if self.v6_only => vec![at(Ipv6Addr::LOCALHOST.into())],
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())],
            _ => Vec::new(),
        }
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
        let v6_only = family == AddressFamily::INET6 && sockopt::ipv6_v6only(&descriptor).map_err(no_socket)?;
        let inode = fstat(&descriptor).map_err(no_socket)?.st_ino;
        Ok(Self { descriptor, address, v6_only, inode })
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
    use std::{
        net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
        os::fd::OwnedFd,
    };

    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};

    use super::{Listener, NoListener};

    #[test]
    fn a_wildcard_is_dialled_at_the_loopback_address_of_each_family_it_takes() {
        let cases = [
            ("127.0.0.1:0", None, true, &["127.0.0.1"][..]),
            ("[::1]:0", None, true, &["::1"]),
            ("[::ffff:127.0.0.1]:0", None, true, &["127.0.0.1"]),
            ("0.0.0.0:0", None, false, &["127.0.0.1"]),
            ("[::]:0", Some(false), false, &["127.0.0.1", "::1"]),
            ("[::]:0", Some(true), false, &["::1"]),
        ];
        for (address, v6_only, is_dialable, dialable) in cases {
            let listener = listening(address.parse().unwrap(), v6_only);
            assert_eq!(listener.is_dialable(), is_dialable, "{address}");
            // The kernel says so of every address that is IPv6 alone, asked for or not.
            assert_eq!(listener.v6_only(), v6_only == Some(true) || address == "[::1]:0", "{address}");
            let port = listener.address().port();
            let expected: Vec<_> = dialable.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect();
            assert_eq!(listener.dialable(), expected, "{address} {v6_only:?}");
            for address in expected {
                TcpStream::connect(address).unwrap();
            }
        }
    }

    #[test]
    fn what_needs_an_interface_beside_it_cannot_be_dialled() {
        let listener = listening("[::1]:0".parse().unwrap(), None);
        let address = SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 1).into();
        let listener = Listener { address, ..listener };
        assert!(!listener.is_dialable());
        assert_eq!(listener.dialable(), []);
    }

    #[test]
    fn two_listeners_have_two_inodes_and_a_duplicate_has_the_same() {
        let [one, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let copy = Listener::try_from(one.try_clone().unwrap()).unwrap();
        let [one, other] = [one, other].map(|listener| Listener::try_from(listener).unwrap());
        assert_ne!(one.inode(), other.inode());
        assert_eq!(one.inode(), copy.inode());
    }

    fn listening(address: SocketAddr, v6_only: Option<bool>) -> Listener {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket(family, SocketType::STREAM, None).unwrap();
        if let Some(v6_only) = v6_only {
            sockopt::set_ipv6_v6only(&socket, v6_only).unwrap();
        }
        bind(&socket, &address).unwrap();
        listen(&socket, 8).unwrap();
        socket.try_into().unwrap()
    }

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
