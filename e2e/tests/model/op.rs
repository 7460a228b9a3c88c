//! What a sequence is made of: calls, and what the administrator does meanwhile.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use carnet_e2e::actor::Family;
use serde::{Deserialize, Serialize};

/// Whose process makes a call.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Role {
    /// An application.
    App,
    /// A process that the application has forked, which has inherited the socket.
    Fork,
    /// The first service.
    S0,
    /// The second service.
    S1,
    /// The third service.
    S2,
    /// Somebody outside the governed cgroup.
    Outside,
}

/// One step. Sockets are in numbered slots; a step that names an empty one, or makes a socket in a full one, is left out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Op {
    Socket { by: Role, slot: u8, family: Family },
    Listen { by: Role, slot: u8, port: Port, v6: bool },
    Bind { by: Role, slot: u8, to: Source },
    Connect { by: Role, slot: u8, ip: Ip, port: Port },
    Disconnect { by: Role, slot: u8 },
    Accept { by: Role, slot: u8, from: u8 },
    Records { by: Role, slot: u8, length: u16, blob: u8 },
    Set { by: Role, slot: u8, blob: u8, damage: Damage },
    Flow { by: Role, slot: u8, length: u16 },
    Context { by: Role, slot: u8, length: u16 },
    State { by: Role, slot: u8, length: u16 },
    OriginalDst { by: Role, slot: u8, v6: bool, length: u16 },
    PeerName { by: Role, slot: u8 },
    Send { by: Role, slot: u8 },
    Receive { by: Role, slot: u8 },
    Shutdown { by: Role, slot: u8 },
    Close { slot: u8 },
    RotateKey,
    Policy { variant: u8 },
}

/// Where sockets are bound to, always to a port that the kernel chooses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Source {
    /// 127.0.0.1 or ::1, according to the family.
    Loopback,
    /// 127.0.0.2, of an IPv6 socket in the mapped form.
    OtherV4,
}

/// Where to. A socket of the other family is given what comes nearest: see [`destination`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Ip {
    V4,
    V6,
    /// 127.0.0.2, where nobody listens.
    OtherV4,
    /// The unspecified address.
    Any,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Port {
    /// The destination.
    Server,
    /// Nobody listens there at first.
    Closed,
    /// The same; policies make a difference between this and the others.
    Helper,
    /// A service's listener.
    Service(u8),
}

/// What is wrong with a blob that is set.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Damage {
    None,
    /// This bit is turned.
    Bit(u16),
    /// Cut, or zeros added.
    Length(u16),
}

pub const ROLES: [Role; 6] = [Role::App, Role::Fork, Role::S0, Role::S1, Role::S2, Role::Outside];
pub const SERVICES: usize = 3;
/// Slots of the listeners that there are at the beginning; the generator uses those above for everything else.
pub const LISTENERS: u8 = 7;
pub const SLOTS: u8 = 18;
pub const BLOBS: u8 = 3;

impl Op {
    /// The socket on which the call is made. `None`: on none, or it makes one.
    pub fn slot(&self) -> Option<u8> {
        match *self {
            Self::Bind { slot, .. }
            | Self::Connect { slot, .. }
            | Self::Disconnect { slot, .. }
            | Self::Records { slot, .. }
            | Self::Set { slot, .. }
            | Self::Flow { slot, .. }
            | Self::Context { slot, .. }
            | Self::State { slot, .. }
            | Self::OriginalDst { slot, .. }
            | Self::PeerName { slot, .. }
            | Self::Send { slot, .. }
            | Self::Receive { slot, .. }
            | Self::Shutdown { slot, .. }
            | Self::Close { slot } => Some(slot),
            Self::Accept { from, .. } => Some(from),
            Self::Socket { .. } | Self::Listen { .. } | Self::RotateKey | Self::Policy { .. } => None,
        }
    }
}

impl Role {
    pub fn service(self) -> Option<usize> {
        match self {
            Self::S0 => Some(0),
            Self::S1 => Some(1),
            Self::S2 => Some(2),
            _ => None,
        }
    }

    /// The role that stands for the cgroup.
    pub fn cgroup(self) -> Self {
        if self == Self::Fork { Self::App } else { self }
    }

    /// The hooks of connect() see sockets made there.
    pub fn is_governed(self) -> bool {
        self != Self::Outside
    }
}

impl Port {
    pub fn number(self) -> u16 {
        match self {
            Self::Server => 7001,
            Self::Closed => 7002,
            Self::Helper => 7003,
            Self::Service(service) => 9000 + u16::from(service),
        }
    }
}

/// The address that a socket of this family is told to connect to.
pub fn destination(family: Family, ip: Ip, port: Port) -> SocketAddr {
    let v4 = match ip {
        Ip::V4 | Ip::V6 => Ipv4Addr::LOCALHOST,
        Ip::OtherV4 => OTHER,
        Ip::Any => Ipv4Addr::UNSPECIFIED,
    };
    let ip: IpAddr = match (family, ip) {
        (Family::V4, _) => v4.into(),
        (_, Ip::V6) => Ipv6Addr::LOCALHOST.into(),
        (_, Ip::Any) => Ipv6Addr::UNSPECIFIED.into(),
        _ => v4.to_ipv6_mapped().into(),
    };
    SocketAddr::new(ip, port.number())
}

pub fn source(family: Family, to: Source) -> SocketAddr {
    let ip: IpAddr = match (family, to) {
        (Family::V4, Source::Loopback) => Ipv4Addr::LOCALHOST.into(),
        (Family::V4, Source::OtherV4) => OTHER.into(),
        (_, Source::Loopback) => Ipv6Addr::LOCALHOST.into(),
        (_, Source::OtherV4) => OTHER.to_ipv6_mapped().into(),
    };
    SocketAddr::new(ip, 0)
}

pub fn listening(port: Port, v6: bool) -> SocketAddr {
    let ip: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    SocketAddr::new(ip, port.number())
}

/// What listens at the beginning of each sequence.
pub fn opening() -> Vec<Op> {
    let mut ops = Vec::new();
    let services = [Role::S0, Role::S1, Role::S2].into_iter().zip([0, 1, 2]);
    let servers = std::iter::once((Role::Outside, Port::Server));
    for (by, port) in servers.chain(services.map(|(by, service)| (by, Port::Service(service)))) {
        for v6 in [false, true] {
            // The third service listens on IPv4 alone.
            if !(port == Port::Service(2) && v6) {
                ops.push(Op::Listen { by, slot: ops.len() as u8, port, v6 });
            }
        }
    }
    assert_eq!(ops.len(), usize::from(LISTENERS));
    ops
}

const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
