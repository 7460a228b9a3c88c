//! Who listens on a port: the kernel's socket diagnosis (`INET_DIAG`), with the cgroup of each listener's maker.
//!
//! Only the calling process's network namespace. Any user may ask. The attributes that are read here are in the answer
//! without being asked for (`INET_DIAG_CGROUP_ID` since Linux 5.8).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Error;

/// A listening TCP socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Where it listens; the unspecified address: everywhere.
    pub address: SocketAddr,
    /// Whether it takes IPv6 connections only (`IPV6_V6ONLY`). False for IPv4.
    pub v6_only: bool,
    /// cgroup2 id of the cgroup in which it was made.
    pub cgroup_id: u64,
    /// Of its maker.
    pub uid: u32,
}

/// Every TCP socket that listens on this port.
pub fn listeners(port: u16) -> Result<Vec<Listener>, Error> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        dump(family, port, &mut found)
            .map_err(|error| Error::io(format!("cannot ask the kernel who listens on port {port}"), error))?;
    }
    Ok(found)
}

fn dump(family: AddressFamily, port: u16, found: &mut Vec<Listener>) -> io::Result<()> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    let request = Request {
        header: Header {
            size: size_of::<Request>() as u32,
            kind: SOCK_DIAG_BY_FAMILY,
            flags: NLM_F_REQUEST | NLM_F_DUMP,
            ..Header::default()
        },
        family: family as u8,
        protocol: IPPROTO_TCP,
        states: 1 << TCP_LISTEN,
        id: SocketId { source_port: port.into(), ..SocketId::default() },
        ..Request::default()
    };
    send(netlink.as_raw_fd(), request.as_bytes(), MsgFlags::empty())?;
    while read_answers(&netlink, found)? {}
    Ok(())
}

/// Reads what one message of the kernel holds. False: the dump is over.
fn read_answers(netlink: &OwnedFd, found: &mut Vec<Listener>) -> io::Result<bool> {
    let mut buffer = vec![0; 32 * 1024];
    let size = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    parse(&buffer[..size], found)
}

fn parse(mut answers: &[u8], found: &mut Vec<Listener>) -> io::Result<bool> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is malformed");
    if answers.is_empty() {
        return Err(malformed());
    }
    while !answers.is_empty() {
        let (header, _) = Header::read_from_prefix(answers).map_err(|_| malformed())?;
        let size = header.size as usize;
        let body = answers.get(size_of::<Header>()..size).ok_or_else(malformed)?;
        match header.kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let (error, _) = i32::read_from_prefix(body).map_err(|_| malformed())?;
                // Negative errnos. Whatever else the number may be, there is one to tell.
                return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
            }
            SOCK_DIAG_BY_FAMILY => {
                let (answer, attributes) = Answer::ref_from_prefix(body).map_err(|_| malformed())?;
                found.push(listener(answer, attributes));
            }
            _ => {}
        }
        answers = answers.get(aligned(size)..).unwrap_or_default();
    }
    Ok(true)
}

fn listener(answer: &Answer, mut attributes: &[u8]) -> Listener {
    let port = answer.id.source_port.get();
    let ip = answer.id.source;
    let address = if answer.family == AddressFamily::Inet as u8 {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3])), port)
    } else {
        SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, 0).into()
    };
    let mut listener = Listener { address, v6_only: false, cgroup_id: 0, uid: answer.uid };
    while let Ok((attribute, _)) = Attribute::read_from_prefix(attributes) {
        let size = usize::from(attribute.size);
        let Some(value) = attributes.get(size_of::<Attribute>()..size) else { break };
        match attribute.kind {
            INET_DIAG_SKV6ONLY => listener.v6_only = value.first().is_some_and(|&only| only != 0),
            INET_DIAG_CGROUP_ID => {
                listener.cgroup_id = u64::read_from_prefix(value).map_or(0, |(id, _)| id);
            }
            _ => {}
        }
        attributes = attributes.get(aligned(size)..).unwrap_or_default();
    }
    listener
}

/// Netlink aligns messages and attributes to four bytes.
fn aligned(size: usize) -> usize {
    size.next_multiple_of(4)
}

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Header {
    size: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
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

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Request {
    header: Header,
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

/// `struct rtattr`.
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Attribute {
    size: u16,
    kind: u16,
}

const _: () = assert!(size_of::<Request>() == 72 && size_of::<Answer>() == 72);

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::sys::socket::sockopt::Ipv6V6Only;
    use nix::sys::socket::{Backlog, SockaddrIn, SockaddrIn6, bind, getsockname, listen, setsockopt};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, &mut Vec::new());
        }

        /// Answers that make sense but for one thing get further than random bytes.
        #[test]
        fn a_damaged_answer_is_read_as_far_as_it_goes(
            kind in prop::sample::select(vec![SOCK_DIAG_BY_FAMILY, NLMSG_ERROR, NLMSG_DONE, 1]),
            body in prop::collection::vec(any::<u8>(), 72..160),
            attribute in (any::<u16>(), prop::sample::select(vec![INET_DIAG_SKV6ONLY, INET_DIAG_CGROUP_ID, 0])),
            wrong in -20..20_i32,
        ) {
            let size = (size_of::<Header>() + body.len()).cast_signed() as i32 + wrong;
            let header = Header { size: size.cast_unsigned(), kind, ..Header::default() };
            let mut answer = [header.as_bytes(), &body].concat();
            let at = size_of::<Header>() + size_of::<Answer>();
            let (size, kind) = attribute;
            for (byte, new) in answer[at..].iter_mut().zip(Attribute { size: size % 16, kind }.as_bytes()) {
                *byte = *new;
            }
            let mut found = Vec::new();
            let result = parse(&answer, &mut found);
            prop_assert!(found.len() <= 1 && (result.is_ok() || found.is_empty() || wrong < 0), "{result:?}: {found:?}");
        }
    }

    /// Negated it is no number of 32 bits.
    #[test]
    fn the_lowest_number_is_an_error_like_others() {
        let header = Header { size: 20, kind: NLMSG_ERROR, ..Header::default() };
        assert!(parse(&[header.as_bytes(), &i32::MIN.to_ne_bytes()].concat(), &mut Vec::new()).is_err());
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

    #[test]
    fn a_cut_answer_is_an_error() {
        let done = Header { size: 16, kind: NLMSG_DONE, ..Header::default() };
        assert!(!parse(done.as_bytes(), &mut Vec::new()).unwrap());
        for size in 0..16 {
            assert!(parse(&done.as_bytes()[..size], &mut Vec::new()).is_err(), "{size} bytes");
        }
        let short = Header { size: 4, kind: NLMSG_DONE, ..Header::default() };
        assert!(parse(short.as_bytes(), &mut Vec::new()).is_err());
        let long = Header { size: 17, kind: NLMSG_DONE, ..Header::default() };
        assert!(parse(long.as_bytes(), &mut Vec::new()).is_err());
    }

    #[test]
    fn the_kernel_s_error_comes_through() {
        let mut answer = Header { size: 20, kind: NLMSG_ERROR, ..Header::default() }.as_bytes().to_vec();
        answer.extend((-13_i32).to_ne_bytes());
        let error = parse(&answer, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
