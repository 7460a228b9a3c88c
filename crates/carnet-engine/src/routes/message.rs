//! What rtnetlink says of a route and of a rule.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;
use nix::sys::socket::AddressFamily;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::prefix::Prefix;
use super::table::{Route, Rule, Step, Way};
use crate::netlink::{attributes, malformed};

/// `None`: of another family, or a cached one, which is in no table.
pub fn route(body: &[u8], family: AddressFamily) -> io::Result<Option<Route>> {
    let (header, rest) = RouteHeader::read_from_prefix(body).map_err(|_| malformed())?;
    if header.family != family as u8 || header.flags & libc::RTM_F_CLONED != 0 {
        return Ok(None);
    }
    let mut table = u32::from(header.table);
    let mut metric = 0;
    let mut destination = None;
    let mut dead = header.flags & RTNH_F_DEAD != 0;
    for (kind, value) in attributes(rest) {
        match kind {
            libc::RTA_DST => destination = Some(address(value)?),
            libc::RTA_PRIORITY => metric = number(value)?,
            libc::RTA_TABLE => table = number(value)?,
            libc::RTA_MULTIPATH => dead |= all_dead(value),
            _ => {}
        }
    }
    let destination = match destination {
        Some(destination) => destination,
        None if header.destination_length == 0 => unspecified(family),
        None => return Err(malformed()),
    };
    let way = match header.kind {
        libc::RTN_BLACKHOLE => Way::Closed(libc::EINVAL as u32),
        libc::RTN_UNREACHABLE => Way::Closed(libc::EHOSTUNREACH as u32),
        libc::RTN_PROHIBIT => Way::Closed(libc::EACCES as u32),
        libc::RTN_THROW => Way::Throw,
        _ if dead => Way::Dead,
        _ => Way::Open,
    };
    let prefix = Prefix::new(destination, header.destination_length);
    let is_conditional = header.tos != 0 || header.source_length != 0;
    Ok(Some(Route { table, prefix, metric, is_conditional, way }))
}

/// Whether each of several next hops is down.
fn all_dead(mut hops: &[u8]) -> bool {
    let mut dead = !hops.is_empty();
    while let Ok((hop, _)) = NextHop::read_from_prefix(hops) {
        dead &= u32::from(hop.flags) & RTNH_F_DEAD != 0;
        let size = usize::from(hop.size).max(size_of::<NextHop>()).next_multiple_of(4);
        hops = hops.get(size..).unwrap_or_default();
    }
    dead
}

/// `None`: of another family. What is not known to be no condition is one.
pub fn rule(body: &[u8], family: AddressFamily) -> io::Result<Option<Rule>> {
    let (header, rest) = RuleHeader::read_from_prefix(body).map_err(|_| malformed())?;
    if header.family != family as u8 {
        return Ok(None);
    }
    let mut table = u32::from(header.table);
    let mut priority = 0;
    let mut target = None;
    let mut longer_than = None;
    let is_inverted = header.flags & FIB_RULE_INVERT != 0;
    let mut is_conditional = is_inverted || (header.source_length, header.tos) != (0, 0);
    let mut destination = None;
    let mut by_interface = false;
    for (kind, value) in attributes(rest) {
        match kind {
            // "Not to" is for all the others, so it is a mere condition.
            FRA_DST if !is_inverted => destination = Some(Prefix::new(address(value)?, header.destination_length)),
            FRA_TABLE => table = number(value)?,
            FRA_PRIORITY => priority = number(value)?,
            FRA_GOTO => target = Some(number(value)?),
            FRA_SUPPRESS_PREFIXLEN => longer_than = number(value)?.try_into().ok(),
            FRA_L3MDEV => by_interface = value.first().is_some_and(|&set| set != 0),
            // Accounting; who made the rule; padding; what is found by an interface's group is found.
            FRA_FLOW | FRA_PROTOCOL | FRA_PAD | FRA_SUPPRESS_IFGROUP => {}
            _ => is_conditional = true,
        }
    }
    let in_family = if family == AddressFamily::Inet { 96 } else { 0 };
    let step = match (header.action, target) {
        // Its table is that of the interface the socket is bound to, and such sockets are not asked about.
        _ if by_interface => Step::Pass,
        (FR_ACT_TO_TBL, _) => {
            Step::Table { table, longer_than: longer_than.map(|length: u8| length.saturating_add(in_family)) }
        }
        (FR_ACT_GOTO, Some(target)) if header.flags & FIB_RULE_UNRESOLVED == 0 => Step::Jump(target),
        (FR_ACT_BLACKHOLE, _) => Step::Fail(libc::EINVAL as u32),
        (FR_ACT_UNREACHABLE, _) => Step::Fail(libc::ENETUNREACH as u32),
        (FR_ACT_PROHIBIT, _) => Step::Fail(libc::EACCES as u32),
        _ => Step::Pass,
    };
    Ok(Some(Rule { priority, destination, is_conditional, step }))
}

/// The rules of a kernel without rules, which are those that every network namespace begins with.
pub fn usual_rules() -> Vec<Rule> {
    let tables = [(0, libc::RT_TABLE_LOCAL), (32766, libc::RT_TABLE_MAIN), (32767, libc::RT_TABLE_DEFAULT)];
    let step = |table: u8| Step::Table { table: table.into(), longer_than: None };
    let rule = |(priority, table)| Rule { priority, destination: None, is_conditional: false, step: step(table) };
    tables.map(rule).to_vec()
}

fn address(value: &[u8]) -> io::Result<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Ok(v4.into());
    }
    <[u8; 16]>::try_from(value).map(IpAddr::from).map_err(|_| malformed())
}

fn unspecified(family: AddressFamily) -> IpAddr {
    if family == AddressFamily::Inet { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn number(value: &[u8]) -> io::Result<u32> {
    u32::read_from_bytes(value).map_err(|_| malformed())
}

/// `struct rtmsg`.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RouteHeader {
    family: u8,
    destination_length: u8,
    source_length: u8,
    tos: u8,
    table: u8,
    protocol: u8,
    scope: u8,
    kind: u8,
    flags: u32,
}

/// `struct rtnexthop`.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct NextHop {
    size: u16,
    flags: u8,
    hops: u8,
    interface: i32,
}

/// `struct fib_rule_hdr`.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RuleHeader {
    family: u8,
    destination_length: u8,
    source_length: u8,
    tos: u8,
    table: u8,
    reserved: [u8; 2],
    action: u8,
    flags: u32,
}

const RTNH_F_DEAD: u32 = 0x1;
const FIB_RULE_INVERT: u32 = 0x2;
const FIB_RULE_UNRESOLVED: u32 = 0x4;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FR_ACT_BLACKHOLE: u8 = 6;
const FR_ACT_UNREACHABLE: u8 = 7;
const FR_ACT_PROHIBIT: u8 = 8;
const FRA_DST: u16 = 1;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FLOW: u16 = 11;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PAD: u16 = 18;
const FRA_L3MDEV: u16 = 19;
const FRA_PROTOCOL: u16 = 21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [(4 + value.len() as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A route to 192.0.2.0/24 in `main`.
    fn route_message(tos: u8, kind: u8, flags: u32, more: &[Vec<u8>]) -> Vec<u8> {
        let header = [libc::AF_INET as u8, 24, 0, tos, 254, 3, 0, kind];
        let destination = attribute(libc::RTA_DST, &[192, 0, 2, 0]);
        [&header[..], &flags.to_ne_bytes(), &destination, &more.concat()].concat()
    }

    fn read(bytes: &[u8]) -> Route {
        route(bytes, AddressFamily::Inet).unwrap().unwrap()
    }

    #[test]
    fn what_each_kind_of_route_says() {
        let expected = [
            (libc::RTN_UNICAST, Way::Open),
            (libc::RTN_LOCAL, Way::Open),
            (libc::RTN_BROADCAST, Way::Open),
            (libc::RTN_UNREACHABLE, Way::Closed(libc::EHOSTUNREACH as u32)),
            (libc::RTN_PROHIBIT, Way::Closed(libc::EACCES as u32)),
            (libc::RTN_BLACKHOLE, Way::Closed(libc::EINVAL as u32)),
            (libc::RTN_THROW, Way::Throw),
            (200, Way::Open),
        ];
        for (kind, way) in expected {
            assert_eq!(read(&route_message(0, kind, 0, &[])).way, way, "{kind}");
        }
    }

    #[test]
    fn a_table_with_a_large_number_and_a_metric() {
        let more = [attribute(libc::RTA_TABLE, &70000_u32.to_ne_bytes()), attribute(libc::RTA_PRIORITY, &[9, 0, 0, 0])];
        let route = read(&route_message(0, libc::RTN_UNICAST, 0, &more));
        assert_eq!((route.table, route.metric, route.is_conditional), (70000, u32::from_ne_bytes([9, 0, 0, 0]), false));
        assert_eq!(route.prefix, Prefix::new([192, 0, 2, 0].into(), 24));
        assert!(read(&route_message(16, libc::RTN_UNICAST, 0, &[])).is_conditional, "a type of service");
    }

    #[test]
    fn dead_are_routes_whose_every_next_hop_is() {
        assert_eq!(read(&route_message(0, libc::RTN_UNICAST, RTNH_F_DEAD, &[])).way, Way::Dead);
        let hop = |flags: u8| [&8_u16.to_ne_bytes()[..], &[flags, 0], &[1, 0, 0, 0]].concat();
        for (flags, way) in [([1, 1], Way::Dead), ([1, 0], Way::Open), ([0, 0], Way::Open)] {
            let hops = attribute(libc::RTA_MULTIPATH, &flags.map(hop).concat());
            assert_eq!(read(&route_message(0, libc::RTN_UNICAST, 0, &[hops])).way, way, "{flags:?}");
        }
    }

    #[test]
    fn what_is_of_no_table_or_of_another_family_is_none() {
        let bytes = route_message(0, libc::RTN_UNICAST, libc::RTM_F_CLONED, &[]);
        assert_eq!(route(&bytes, AddressFamily::Inet).unwrap(), None);
        let bytes = route_message(0, libc::RTN_UNICAST, 0, &[]);
        assert_eq!(route(&bytes, AddressFamily::Inet6).unwrap(), None);
    }

    fn read_rule(flags: u32, action: u8, more: &[Vec<u8>]) -> Rule {
        let header = [libc::AF_INET as u8, 0, 0, 0, 254, 0, 0, action];
        let bytes = [&header[..], &flags.to_ne_bytes(), &more.concat()].concat();
        rule(&bytes, AddressFamily::Inet).unwrap().unwrap()
    }

    #[test]
    fn what_is_not_known_of_a_rule_is_a_condition() {
        let none = attribute(FRA_SUPPRESS_PREFIXLEN, &u32::MAX.to_ne_bytes());
        let plain = read_rule(0, FR_ACT_TO_TBL, &[none, attribute(FRA_PROTOCOL, &[2])]);
        assert_eq!((plain.is_conditional, plain.step), (false, Step::Table { table: 254, longer_than: None }));
        // A mark, and one that no kernel has yet.
        for kind in [10, 999] {
            assert!(read_rule(0, FR_ACT_TO_TBL, &[attribute(kind, &[1, 0, 0, 0])]).is_conditional, "{kind}");
        }
        assert!(read_rule(FIB_RULE_INVERT, FR_ACT_TO_TBL, &[]).is_conditional);
    }

    #[test]
    fn a_suppressed_length_is_in_the_mapped_form() {
        let rule = read_rule(0, FR_ACT_TO_TBL, &[attribute(FRA_SUPPRESS_PREFIXLEN, &0_u32.to_ne_bytes())]);
        assert_eq!(rule.step, Step::Table { table: 254, longer_than: Some(96) });
    }

    #[test]
    fn a_jump_without_a_target_is_nothing() {
        let target = attribute(FRA_GOTO, &300_u32.to_ne_bytes());
        assert_eq!(read_rule(0, FR_ACT_GOTO, std::slice::from_ref(&target)).step, Step::Jump(300));
        assert_eq!(read_rule(FIB_RULE_UNRESOLVED, FR_ACT_GOTO, &[target]).step, Step::Pass);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>) {
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                if let Some(first) = bytes.first_mut() {
                    *first = family as u8;
                }
                let _ = route(&bytes, family);
                let _ = rule(&bytes, family);
            }
        }
    }
}
