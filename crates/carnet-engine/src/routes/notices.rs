//! Notice that something has changed which routes depend on.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

/// A socket that becomes readable when routes, rules, interfaces or addresses of this network namespace change.
pub fn subscribe() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let notices = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(notices.as_raw_fd(), &NetlinkAddr::new(0, CHANGES))?;
    Ok(notices)
}

/// Takes all notices there are, unread: what has changed is found by looking. Lost ones are notices too.
pub fn drain(notices: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match recv(notices.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The kernel's groups of notices: bit n - 1 for group n.
const CHANGES: u32 = group(libc::RTNLGRP_LINK) // IPv4 routes go with their interface, and nobody says so
    | group(libc::RTNLGRP_NEXTHOP)
    | group(libc::RTNLGRP_IPV4_IFADDR)
    | group(libc::RTNLGRP_IPV6_IFADDR)
    | group(libc::RTNLGRP_IPV4_ROUTE)
    | group(libc::RTNLGRP_IPV6_ROUTE)
    | group(libc::RTNLGRP_IPV4_RULE)
    | group(libc::RTNLGRP_IPV6_RULE)
    | group(libc::RTNLGRP_IPV4_NETCONF) // ignore_routes_with_linkdown
    | group(libc::RTNLGRP_IPV6_NETCONF);

const fn group(number: u32) -> u32 {
    1 << (number - 1)
}
