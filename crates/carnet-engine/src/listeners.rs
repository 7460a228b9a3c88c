//! Who listens on a port: the kernel's socket diagnosis (`INET_DIAG`), with the cgroup of each listener's maker.
//!
//! Only the calling process's network namespace. Any user may ask. The attributes that are read here are in the answer
//! without being asked for (`INET_DIAG_CGROUP_ID` since Linux 5.8).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::sys::socket::{AddressFamily, SockProtocol};
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Error, netlink};

/// A listening TCP socket.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Listener {
    /// Where it listens; the unspecified address: everywhere.
    pub address: SocketAddr,
    /// Whether it takes IPv6 connections only (`IPV6_V6ONLY`). False for IPv4.
    pub v6_only: bool,
    /// cgroup2 id of the cgroup in which it was made.
    pub cgroup_id: u64,
    /// Of its maker.
    pub uid: u32,
    /// Connections in its queue that nobody has accepted yet.
    pub waiting: u32,
    /// Most that fit there.
    pub backlog: u32,
    /// As `fstat()` tells it of the socket's descriptors.
    pub inode: u32,
}

impl Listener {
    /// One that is root's, in no cgroup that is known, and takes what the address says.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, v6_only: false, cgroup_id: 0, uid: 0, waiting: 0, backlog: 0, inode: 0 }
    }
}

/// Every TCP socket that listens on this port.
pub fn listeners(port: u16) -> Result<Vec<Listener>, Error> {
    listeners_on(&[port])
}

/// Every TCP socket that listens on one of these ports. The kernel is asked once for all of them.
pub fn listeners_on(ports: &[u16]) -> Result<Vec<Listener>, Error> {
    let mut found = Vec::new();
    // Port 0 is every port.
    let asked = match ports {
        [] => return Ok(found),
        [port] => *port,
        _ => 0,
    };
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        dump(family, asked, &mut found).map_err(|error| Error::io("cannot ask the kernel who listens", error))?;
    }
    found.retain(|listener| ports.contains(&listener.address.port()));
    Ok(found)
}

/// Connections to this port that nobody has accepted yet, by the kernel's cookies of their sockets.
pub fn waiting_on(port: u16) -> Result<BTreeSet<u64>, Error> {
    let mut waiting = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let request = Request {
            family: family as u8,
            protocol: IPPROTO_TCP,
            states: 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT,
            id: SocketId { source_port: port.into(), ..SocketId::default() },
            ..Request::default()
        };
        let each = |body: &[u8]| {
            let (answer, _) = Answer::ref_from_prefix(body).map_err(|_| netlink::malformed())?;
            // One that has been accepted is a file, with an inode.
            if answer.inode == 0 {
                waiting.insert(u64::from_ne_bytes(answer.id.cookie));
            }
            Ok(())
        };
        netlink::dump(SockProtocol::NetlinkSockDiag, SOCK_DIAG_BY_FAMILY, request.as_bytes(), each)
            .map_err(|error| Error::io(format!("cannot ask the kernel who waits on port {port}"), error))?;
    }
    Ok(waiting)
}

fn dump(family: AddressFamily, port: u16, found: &mut Vec<Listener>) -> io::Result<()> {
    let request = Request {
        family: family as u8,
        protocol: IPPROTO_TCP,
        states: 1 << TCP_LISTEN,
        id: SocketId { source_port: port.into(), ..SocketId::default() },
        ..Request::default()
    };
    netlink::dump(SockProtocol::NetlinkSockDiag, SOCK_DIAG_BY_FAMILY, request.as_bytes(), |body| {
        found.push(listener(body)?);
        Ok(())
    })
}

fn listener(body: &[u8]) -> io::Result<Listener> {
    let (answer, attributes) = Answer::ref_from_prefix(body).map_err(|_| netlink::malformed())?;
    let port = answer.id.source_port.get();
    let ip = answer.id.source;
    let address = if answer.family == AddressFamily::Inet as u8 {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3])), port)
    } else {
        SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, 0).into()
    };
    let mut listener = Listener {
        uid: answer.uid,
        // Of a listening socket these are not bytes.
        waiting: answer.receive_queue,
        backlog: answer.send_queue,
        inode: answer.inode,
        ..Listener::new(address)
    };
    for (kind, value) in netlink::attributes(attributes) {
        match kind {
            INET_DIAG_SKV6ONLY => listener.v6_only = value.first().is_some_and(|&only| only != 0),
            INET_DIAG_CGROUP_ID => {
                listener.cgroup_id = u64::read_from_prefix(value).map_or(0, |(id, _)| id);
            }
            _ => {}
        }
    }
    Ok(listener)
}

/// `struct inet_diag_sockid`.
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct SocketId {
    source_port: U16,
    destination_port: U16,
    source: [u8; 16],
    destination: [U32; 4],
    interface: [u8; 4],
    cookie: [u8; 8],
}

/// `struct inet_diag_req_v2`.
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`.
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

const _: () = assert!(size_of::<Request>() == 56 && size_of::<Answer>() == 72);

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u32 = 1;
const TCP_CLOSE_WAIT: u32 = 8;
const TCP_LISTEN: u32 = 10;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::fs::MetadataExt;

    use nix::sys::socket::sockopt::Ipv6V6Only;
    use nix::sys::socket::{
        Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, getsockname, listen, setsockopt, socket,
    };
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_panics(
            mut body in prop::collection::vec(any::<u8>(), 0..160),
            size in 0..16_u16,
            kind in prop::sample::select(vec![INET_DIAG_SKV6ONLY, INET_DIAG_CGROUP_ID, 0]),
        ) {
            let attribute = [size.to_ne_bytes(), kind.to_ne_bytes()].concat();
            for (byte, new) in body.iter_mut().skip(size_of::<Answer>()).zip(attribute) {
                *byte = new;
            }
            prop_assert_eq!(listener(&body).is_ok(), body.len() >= size_of::<Answer>());
        }
    }

    #[test]
    fn finds_the_listener_of_each_family_and_only_on_its_port() {
        for at in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listening = TcpListener::bind(at).unwrap();
            let other = TcpListener::bind(at).unwrap();
            let address = listening.local_addr().unwrap();

            let found = listeners(address.port()).unwrap();

            assert_eq!(found.iter().filter(|found| found.address == address).count(), 1, "{at}: {found:?}");
            assert!(found.iter().all(|found| found.address.port() == address.port()), "{at}: {found:?}");
            assert!(found.iter().all(|found| found.address != other.local_addr().unwrap()));
            assert!(found.iter().all(|found| found.cgroup_id != 0), "no cgroup: {found:?}");
        }
    }

    #[test]
    fn connections_that_nobody_has_accepted_wait() {
        let [one, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = [&one, &other].map(|listener| listener.local_addr().unwrap().port());
        let _waiting = TcpStream::connect(one.local_addr().unwrap()).unwrap();
        let inode = |listener: &TcpListener| {
            let file = File::from(OwnedFd::from(listener.try_clone().unwrap()));
            file.metadata().unwrap().ino() as u32
        };

        let mut found = listeners_on(&ports).unwrap();

        found.sort_by_key(|found| found.address.port() != ports[0]);
        let seen: Vec<_> = found.iter().map(|found| (found.waiting, found.inode)).collect();
        assert_eq!(seen, [(1, inode(&one)), (0, inode(&other))]);
        assert!(found.iter().all(|found| found.backlog > 0), "{found:?}");
        let queue = waiting_on(ports[0]).unwrap();
        assert_eq!((queue.len(), waiting_on(ports[1]).unwrap().len()), (1, 0));
        let _next = TcpStream::connect(one.local_addr().unwrap()).unwrap();
        assert!(waiting_on(ports[0]).unwrap().is_superset(&queue));
        let _accepted = one.accept().unwrap();
        let rest = waiting_on(ports[0]).unwrap();
        assert!(rest.len() == 1 && rest.is_disjoint(&queue), "the first one was accepted");
        assert_eq!(listeners_on(&[]).unwrap(), []);
    }

    #[test]
    fn a_bound_socket_that_does_not_listen_is_not_found() {
        let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let port = getsockname::<SockaddrIn>(bound.as_raw_fd()).unwrap().port();

        assert_eq!(listeners(port).unwrap(), []);

        listen(&bound, Backlog::MAXCONN).unwrap();
        assert_eq!(listeners(port).unwrap().len(), 1);
    }

    #[test]
    fn tells_dual_stack_listeners_from_those_for_ipv6_alone() {
        for only in [false, true] {
            let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::empty(), None).unwrap();
            setsockopt(&socket, Ipv6V6Only, &only).unwrap();
            bind(socket.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0))).unwrap();
            listen(&socket, Backlog::MAXCONN).unwrap();
            let port = getsockname::<SockaddrIn6>(socket.as_raw_fd()).unwrap().port();

            let found = listeners(port).unwrap();

            assert_eq!(found.iter().map(|found| found.v6_only).collect::<Vec<_>>(), [only]);
        }
    }
}
