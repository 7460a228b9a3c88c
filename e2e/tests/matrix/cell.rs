//! One connect(): which socket, bound to what, going where. And all that there are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::door::Doors;
use Family::{V4, V6};
use Place::{Loopback, Nowhere, Other, Own};

/// One connect().
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cell {
    pub kind: Kind,
    pub bind: Bind,
    /// Of the destination. IPv4 is written as an IPv4-mapped address for a socket of the IPv6 family.
    pub family: Family,
    /// Of the destination.
    pub place: Place,
}

/// A socket by its family, and by `IPV6_V6ONLY`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    V4,
    V6Only,
    Dual,
}

/// To what a socket is bound before it connects, always with a port of the test's choice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bind {
    /// Not at all.
    Implicit,
    /// To an address of this host's.
    To(Family, Place),
    /// To a port alone.
    Wildcard(Family),
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    Loopback,
    /// An address of this host's that is not loopback.
    Own,
    /// Another host's.
    Other,
    /// A virtual address, which this host has a route to and nobody has. The service goes on to the other host.
    Nowhere,
}

impl Cell {
    /// Every connect() to this place whose socket can be made and bound: 4 + 8 + 14.
    pub fn to(place: Place) -> Vec<Self> {
        let mut cells = Vec::new();
        for kind in [Kind::V4, Kind::V6Only, Kind::Dual] {
            for &family in kind.destinations() {
                cells.extend(kind.bindings().into_iter().map(|bind| Self { kind, bind, family, place }));
            }
        }
        cells
    }

    /// Where it goes.
    pub fn destination(self, servers: &Doors) -> SocketAddr {
        let server = servers.get(&(self.family, self.place));
        server.map_or_else(|| SocketAddr::new(self.place.ip(self.family), 9), |server| server.address)
    }
}

impl Kind {
    /// Of the socket itself, and so of the hook that sees its connect().
    pub fn family(self) -> Family {
        if self == Self::V4 { V4 } else { V6 }
    }

    /// This address as such a socket writes it.
    pub fn write(self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(v4) if self.family() == V6 => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
            _ => address,
        }
    }

    /// What can be asked of it. A v6-only socket can be asked to go to a mapped address, too.
    fn destinations(self) -> &'static [Family] {
        if self == Self::V4 { &[V4] } else { &[V6, V4] }
    }

    /// A v6-only socket cannot be bound to a mapped address: EINVAL.
    fn bindings(self) -> Vec<Bind> {
        let families: &[Family] = match self {
            Self::V4 => &[V4],
            Self::V6Only => &[V6],
            Self::Dual => &[V6, V4],
        };
        let to = |&family: &Family| [Bind::To(family, Loopback), Bind::To(family, Own), Bind::Wildcard(family)];
        [Bind::Implicit].into_iter().chain(families.iter().flat_map(to)).collect()
    }
}

impl Place {
    pub const ALL: [Self; 4] = [Loopback, Own, Other, Nowhere];

    /// This host's, where a service can listen.
    pub const HERE: [Self; 2] = [Loopback, Own];

    /// The address there. Those of the network namespace that `netns::with_neighbour` makes.
    pub fn ip(self, family: Family) -> IpAddr {
        match (self, family) {
            (Loopback, V4) => Ipv4Addr::LOCALHOST.into(),
            (Loopback, V6) => Ipv6Addr::LOCALHOST.into(),
            (Own, V4) => Ipv4Addr::new(10, 99, 0, 1).into(),
            (Own, V6) => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1).into(),
            (Other, V4) => Ipv4Addr::new(10, 99, 0, 2).into(),
            (Other, V6) => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2).into(),
            (Nowhere, V4) => Ipv4Addr::new(10, 99, 0, 77).into(),
            (Nowhere, V6) => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x77).into(),
        }
    }
}

impl Family {
    pub const BOTH: [Self; 2] = [V4, V6];

    pub fn unspecified(self) -> IpAddr {
        match self {
            V4 => Ipv4Addr::UNSPECIFIED.into(),
            V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapped = if self.kind.family() == V6 && self.family == V4 { "mapped " } else { "" };
        let Self { kind, bind, family, place } = self;
        write!(f, "a {kind:?} socket, bound: {bind:?}, to {mapped}{place:?} by {family:?}")
    }
}
