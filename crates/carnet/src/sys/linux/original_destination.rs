//! `SO_ORIGINAL_DST`, answered by the engine or by netfilter.

use std::{io, net::SocketAddr};

use socket2::{SockAddr, SockRef, Socket};

use super::BorrowedSocket;

pub(crate) fn original_destination(socket: BorrowedSocket<'_>) -> io::Result<SocketAddr> {
    let socket = SockRef::from(&socket);
    let local = socket.local_addr()?;
    let is_v6 = local.as_socket_ipv6().is_some_and(|local| local.ip().to_ipv4_mapped().is_none());
    let (own, other): (Query, Query) = match is_v6 {
        true => (Socket::original_dst_v6, Socket::original_dst_v4),
        false => (Socket::original_dst_v4, Socket::original_dst_v6),
    };
    // The other family: an IPv6 flow reaches a service that listens on IPv4 alone. Its error would only mislead.
    let address = own(&socket).or_else(|error| other(&socket).map_err(|_| error))?;
    address.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an IP address"))
}

type Query = fn(&Socket) -> io::Result<SockAddr>;
