//! Reads this network namespace's rules and routes, and makes entries of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockProtocol};

use super::entries::{fitting, minimal};
use super::message;
use super::prefix::Prefix;
use super::table::{Entry, Family, Way};
use crate::netlink;

/// Which destinations have no way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reading {
    /// Minimal.
    pub entries: Vec<Entry>,
    /// There was no room for all: some destinations without a way are taken for reachable.
    pub is_coarse: bool,
}

/// Reads both families. At most `room` entries.
pub fn read(room: usize) -> io::Result<Reading> {
    let [all_v4, all_v6] =
        [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(|ip: IpAddr| Prefix::new(ip, 0));
    let no_route = libc::ENETUNREACH as u32;
    let v4 = family(AddressFamily::Inet)?.entries(all_v4, no_route);
    let family = family(AddressFamily::Inet6)?;
    let has_address = has_address(&family);
    let mut v6 = family.entries(all_v6, no_route);
    // IPv4 has routes of its own, also where an IPv6 socket asks.
    v6.retain(|(prefix, _)| !all_v4.covers(*prefix));
    if !has_address {
        // connect() looks for its own address first, and finds none.
        for (_, errno) in v6.iter_mut().filter(|(_, errno)| *errno != 0) {
            *errno = libc::EADDRNOTAVAIL as u32;
        }
    }
    // One for IPv4's root, which is no entry where it says the same as IPv6's.
    let (v4, less_v4) = fitting(&v4, (room / 2).saturating_sub(1));
    let (v6, less_v6) = fitting(&v6, room / 2);
    let mut both = [v6, v4].concat();
    if !both.iter().any(|(prefix, _)| *prefix == all_v4) {
        both.push((all_v4, 0));
    }
    both.sort_unstable();
    Ok(Reading { entries: minimal(&both), is_coarse: less_v4 || less_v6 })
}

/// Whether this host has an address that is ready for use: those have a route in the local table.
fn has_address(family: &Family) -> bool {
    let local = u32::from(libc::RT_TABLE_LOCAL);
    family.routes.iter().any(|route| route.table == local && route.prefix.length() == 128 && route.way == Way::Open)
}

fn family(family: AddressFamily) -> io::Result<Family> {
    let mut rules = Vec::new();
    let read = dump(libc::RTM_GETRULE, family, &mut |body| {
        rules.extend(message::rule(body, family)?);
        Ok(())
    });
    match read {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {
            rules = message::usual_rules();
        }
        read => read?,
    }
    let mut routes = Vec::new();
    dump(libc::RTM_GETROUTE, family, &mut |body| {
        routes.extend(message::route(body, family)?);
        Ok(())
    })?;
    Ok(Family { rules, routes })
}

/// All rules or routes of a family: `struct rtmsg` and `struct fib_rule_hdr` begin with it and have one size.
fn dump(kind: u16, family: AddressFamily, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut request = [0; 12];
    request[0] = family as u8;
    netlink::dump(SockProtocol::NetlinkRoute, kind, &request, each)
}
