//! Conditions of filters, and connections that they are likely to hold for: few values, so that matches are common.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use carnet_abi::LINE;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::{Condition, Executable, Identity, Line, Match, Prefix, Protocol, Who};

/// Lists that several filters of a policy have, as named sets are.
#[derive(Clone, Debug)]
pub struct Shared {
    prefixes: Vec<Arc<[Prefix]>>,
    ports: Vec<Arc<[RangeInclusive<u16>]>>,
    uids: Vec<Arc<[RangeInclusive<u32>]>>,
    lines: Vec<Arc<[Line]>>,
}

/// What makes a connection of a match: numbers that choose among what the match says.
#[derive(Clone, Debug)]
pub struct Noise {
    base: IpAddr,
    address: (u128, bool),
    port: (u8, u16),
    choice: usize,
    /// Whether to do as the match says, for each of the identity's conditions.
    obeys: [bool; 5],
    else_by: Identity,
}

pub fn shared() -> impl Strategy<Value = Shared> {
    (lists(prefix(0)), lists(ports()), lists(ids(&UIDS)), lists(select(lines())))
        .prop_map(|(prefixes, ports, uids, lines)| Shared { prefixes, ports, uids, lines })
}

/// `via` are the providers it may name; `shortest` is the least length of a prefix. Of a `narrow` one something is always
/// asked of the destination.
pub fn matches(shared: &Shared, via: Vec<usize>, narrow: bool) -> impl Strategy<Value = Match> + use<> {
    let protocol = prop_oneof![8 => Just(None), 1 => Just(Some(Protocol::Tcp))];
    let any = if narrow { 0 } else { 6 };
    let remote = condition(any, prefix(if narrow { 8 } else { 0 }), shared.prefixes.clone());
    let ports = condition(6, ports(), shared.ports.clone());
    let uids = condition(RARE, ids(&UIDS), shared.uids.clone());
    let gids = condition(RARE, ids(&GIDS), Vec::new());
    let exes = condition(RARE, select(&EXES[..]), Vec::new());
    let cgroups = condition(RARE, select(lines()), shared.lines.clone());
    let netns = condition(RARE, select(&NETNS[..]), Vec::new());
    let via = if via.is_empty() { Just(Condition::ANY).boxed() } else { condition(RARE, select(via), Vec::new()) };
    (protocol, remote, ports, (uids, gids, exes, cgroups, netns), via).prop_map(
        |(protocol, remote, ports, (uids, gids, exes, cgroups, netns), via)| Match {
            protocol,
            remote,
            ports,
            uids,
            gids,
            exes,
            cgroups,
            netns,
            via,
        },
    )
}

pub fn noise() -> impl Strategy<Value = Noise> {
    let obeys = [(); 5].map(|()| prop::bool::weighted(0.8));
    (select(&BASES[..]), address_noise(), (0..6_u8, any::<u16>()), any::<usize>(), obeys, identity())
        .prop_map(|(base, address, port, choice, obeys, else_by)| Noise { base, address, port, choice, obeys, else_by })
}

pub fn identity() -> impl Strategy<Value = Identity> {
    (select(&UIDS[..]), select(&GIDS[..]), select(&EXES[..]), select(lines()), select(&NETNS[..]))
        .prop_map(|(uid, gid, exe, cgroup, netns)| Identity { uid, gid, exe, cgroup, netns })
}

/// `identity` in any of the ways it can be known.
pub fn known(identity: Identity) -> impl Strategy<Value = Who> {
    self::identity().prop_flat_map(move |other| {
        prop_oneof![
            6 => Just(Who::Known(identity)),
            1 => Just(Who::Strayed { origin: identity, own: other }),
            1 => Just(Who::Strayed { origin: other, own: identity }),
            2 => Just(Who::Ambiguous { origin: identity, own: None }),
            1 => Just(Who::Ambiguous { origin: identity, own: Some(other) }),
            1 => Just(Who::Ambiguous { origin: other, own: Some(identity) }),
        ]
    })
}

/// A destination and port out of nowhere.
pub fn anywhere() -> impl Strategy<Value = SocketAddr> {
    (select(&BASES[..]), select(&PORTS[..])).prop_map(|(ip, port)| socket_addr(ip, port))
}

impl Noise {
    /// A destination at or around an edge of what `matches` says.
    pub fn remote(&self, matches: &Match) -> SocketAddr {
        let ip = self.one_of(&matches.remote).map_or(self.base, |&prefix| address_near(prefix, self.address));
        let all = 0..=u16::MAX;
        let ports = self.one_of(&matches.ports).unwrap_or(&all);
        socket_addr(ip, port_near(ports, self.port))
    }

    /// Somebody of whom `matches` says something.
    pub fn identity(&self, matches: &Match) -> Identity {
        let Identity { uid, gid, exe, cgroup, netns } = self.else_by;
        let edge = |ids: &RangeInclusive<u32>| if self.choice.is_multiple_of(2) { *ids.start() } else { *ids.end() };
        Identity {
            uid: self.obeying(0, &matches.uids).map_or(uid, edge),
            gid: self.obeying(1, &matches.gids).map_or(gid, edge),
            exe: self.obeying(2, &matches.exes).copied().unwrap_or(exe),
            cgroup: self.obeying(3, &matches.cgroups).copied().unwrap_or(cgroup),
            netns: self.obeying(4, &matches.netns).copied().unwrap_or(netns),
        }
    }

    /// A provider that `matches` names.
    pub fn dialer(&self, matches: &Match) -> Option<usize> {
        self.one_of(&matches.via).copied()
    }

    fn obeying<'m, T>(&self, part: usize, condition: &'m Condition<T>) -> Option<&'m T> {
        self.obeys[part].then(|| self.one_of(condition)).flatten()
    }

    /// One that the condition names, in whichever list.
    fn one_of<'m, T>(&self, condition: &'m Condition<T>) -> Option<&'m T> {
        let lists: Vec<&[T]> = condition.only.iter().flatten().chain(&condition.except).map(|list| &list[..]).collect();
        let count = lists.iter().map(|list| list.len()).sum::<usize>();
        lists.into_iter().flatten().nth(self.choice.checked_rem(count)?)
    }
}

fn lists<T: Clone + Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<Arc<[T]>>> {
    vec(vec(value, 0..6).prop_map(Arc::from), 1..4)
}

/// `any`: how often, of `any` + 10 times, it holds for everything.
fn condition<T: Clone + Debug + 'static>(
    any: u32,
    value: impl Strategy<Value = T> + 'static,
    shared: Vec<Arc<[T]>>,
) -> BoxedStrategy<Condition<T>> {
    let own = vec(value, 1..4).prop_map(Arc::from);
    let list = if shared.is_empty() { own.boxed() } else { prop_oneof![2 => own, 1 => select(shared)].boxed() };
    let only = prop_oneof![30 => vec(list.clone(), 1..3), 1 => Just(Vec::new())].prop_map(Some);
    let except = vec(list, 1..3);
    let some = prop_oneof![
        6 => only.clone().prop_map(|only| Condition { only, except: Vec::new() }),
        2 => except.clone().prop_map(|except| Condition { only: None, except }),
        2 => (only, except).prop_map(|(only, except)| Condition { only, except }),
    ];
    match any {
        0 => some.boxed(),
        any => prop_oneof![any => Just(Condition::ANY), 10 => some].boxed(),
    }
}

fn prefix(shortest: u8) -> impl Strategy<Value = Prefix> + Clone {
    select(&BASES[..]).prop_flat_map(move |address| {
        let longest = Prefix::from(address).longest();
        let length = prop_oneof![
            1 => Just(longest),
            1 => Just(longest - 1),
            1 => Just(shortest),
            1 => select(&MAPPED_LENGTHS[..]).prop_map(move |length| length.clamp(shortest, longest)),
            3 => shortest..=longest,
        ];
        length.prop_map(move |length| Prefix { address, length })
    })
}

fn ports() -> impl Strategy<Value = RangeInclusive<u16>> + Clone {
    prop_oneof![
        1 => Just(0..=u16::MAX),
        3 => select(&PORTS[..]).prop_map(|port| port..=port),
        3 => (select(&PORTS[..]), select(&PORTS[..])).prop_map(|(a, b)| a.min(b)..=a.max(b)),
    ]
}

fn ids(of: &'static [u32]) -> impl Strategy<Value = RangeInclusive<u32>> + Clone {
    prop_oneof![
        3 => select(of).prop_map(|id| id..=id),
        1 => (select(of), select(of)).prop_map(|(a, b)| a.min(b)..=a.max(b)),
    ]
}

/// How an address differs from a prefix's: bits to turn after the prefix, and whether its last bit is turned too, so
/// that the address is just outside.
fn address_noise() -> impl Strategy<Value = (u128, bool)> {
    (prop_oneof![Just(0), Just(u128::MAX), any::<u128>()], prop::bool::weighted(0.2))
}

fn address_near(prefix: Prefix, (noise, outside): (u128, bool)) -> IpAddr {
    let longest = u32::from(prefix.longest());
    let length = u32::from(prefix.length);
    let after = if length == longest { 0 } else { noise & (u128::MAX >> (128 - (longest - length))) };
    let last = if outside && length > 0 { 1 << (longest - length) } else { 0 };
    match prefix.address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ (after ^ last) as u32).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ after ^ last).into(),
    }
}

/// An edge of a range, just outside of it, or anything.
fn port_near(ports: &RangeInclusive<u16>, (choice, any): (u8, u16)) -> u16 {
    match choice {
        0 | 1 => *ports.start(),
        2 => *ports.end(),
        3 => ports.start().wrapping_sub(1),
        4 => ports.end().wrapping_add(1),
        _ => any,
    }
}

/// In the form an application's address has: IPv4 where it is an IPv4-mapped one.
fn socket_addr(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// A small tree of cgroups: the root, three below each other, a sibling, and as deep as a line goes.
fn lines() -> Vec<Line> {
    let deepest: [u64; LINE] = std::array::from_fn(|level| 20 + level as u64);
    [&[][..], &[10], &[10, 11], &[10, 11, 12], &[10, 13], &[20], &deepest[..LINE - 1], &deepest[..]]
        .map(|ids| Line(std::array::from_fn(|level| ids.get(level).copied().unwrap_or(0))))
        .into()
}

/// How often, to 10, a condition on who connects, and on whose connection it is, holds for all.
const RARE: u32 = 90;

/// Prefixes and destinations are made from these: neighbours, both families, mapped, the last of all.
const BASES: [IpAddr; 11] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, 0)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 255)),
    IpAddr::V4(Ipv4Addr::BROADCAST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0001)),
    IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
];

/// Around the length of `::ffff:0:0/96`.
const MAPPED_LENGTHS: [u8; 4] = [80, 95, 96, 97];
const PORTS: [u16; 8] = [0, 1, 80, 443, 8000, 8015, 65534, 65535];
const UIDS: [u32; 5] = [0, 1, 1000, 1001, u32::MAX];
const GIDS: [u32; 4] = [0, 100, 1000, u32::MAX];
const EXES: [Executable; 5] = [
    Executable { dev: 0, ino: 0 },
    Executable { dev: 8 << 20 | 1, ino: 77 },
    Executable { dev: 8 << 20 | 1, ino: 78 },
    Executable { dev: 8 << 20 | 2, ino: 77 },
    Executable { dev: u32::MAX, ino: u64::MAX },
];
const NETNS: [u64; 3] = [1, 2, u64::MAX];
