//! Proptest strategies: valid policies up to the largest sizes, and questions that their filters are likely to match.
//! For comparing another evaluator of the decision with [`decide`](crate::decide).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use carnet_abi::{CONTEXT_MAX, MAX_HOPS, MAX_LISTENERS, MAX_OWNERS, MAX_PROVIDERS, MAX_RULES};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::{
    Action, Carried, Filter, HostAction, HostFilter, Match, OnDead, Owner, Policy, Prefix, Provider, Question, Reach,
    Service, SockName,
};

/// Valid policies: none to [`MAX_PROVIDERS`] providers, not in rank order, and up to [`MAX_RULES`] filters with few
/// weights, overlapping prefixes and overlapping port ranges.
pub fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        6 => sized_policy(0..=4, 0..=4, 0..=2),
        2 => sized_policy(0..=MAX_PROVIDERS, 0..=4, 0..=2),
        1 => sized_policy(MAX_PROVIDERS..=MAX_PROVIDERS, MAX_FILTERS..=MAX_FILTERS, MAX_HOST_FILTERS..=MAX_HOST_FILTERS),
    ]
}

/// Questions to `policy`: destinations at and around the edges of its filters and on its listeners, floors around its
/// ranks, any dialer, any dead providers.
pub fn question(policy: &Policy) -> impl Strategy<Value = Question> + use<> {
    let providers = policy.providers.len();
    let somebody = move || if providers == 0 { Just(None).boxed() } else { (0..providers).prop_map(Some).boxed() };
    let destination = remote(policy).prop_map(|remote| (remote, None));
    let destination = match listeners(policy) {
        listeners if listeners.is_empty() => destination.boxed(),
        listeners => prop_oneof![4 => destination, 1 => select(listeners)].boxed(),
    };
    (
        destination,
        prop::option::weighted(0.6, carried(policy)),
        prop_oneof![2 => Just(None).boxed(), 1 => somebody()],
        prop_oneof![3 => Just(0_u32), 3 => any::<u32>(), 1 => Just(u32::MAX)],
    )
        .prop_map(move |((remote, listener), record, dialer, dead)| {
            let dead = dead & ((1 << providers) - 1);
            Question { remote, record, dialer, listener, dead }
        })
}

/// Destinations at and around the edges of the policy's filters.
pub fn remote(policy: &Policy) -> impl Strategy<Value = SocketAddr> + use<> {
    let anywhere = (select(&BASES[..]), select(&PORTS[..])).prop_map(|(ip, port)| socket_addr(ip, port));
    let provider_filters = policy.providers.iter().flat_map(|provider| &provider.filters);
    let matches: Vec<Match> = (policy.filters.iter().map(|filter| filter.matches.clone()))
        .chain(provider_filters.map(|filter| filter.matches.clone()))
        .collect();
    if matches.is_empty() {
        return anywhere.boxed();
    }
    let near = (select(matches), select(&BASES[..]), address_noise(), port_noise()).prop_map(
        |(matches, base, address_noise, port_noise)| {
            let ip = matches.remote.map_or(base, |prefix| address_near(prefix, address_noise));
            socket_addr(ip, port_near(&matches.ports, port_noise))
        },
    );
    prop_oneof![8 => near, 1 => anywhere].boxed()
}

fn sized_policy(
    providers: RangeInclusive<usize>,
    provider_filters: RangeInclusive<usize>,
    host_filters: RangeInclusive<usize>,
) -> impl Strategy<Value = Policy> {
    let rank = prop_oneof![3 => 0..64_u16, 1 => Just(0), 1 => Just(u16::MAX), 2 => any::<u16>()];
    let ranks = vec(rank, providers).prop_map(distinct);
    let providers = ranks.prop_flat_map(move |ranks| {
        Vec::from_iter(
            ranks.into_iter().enumerate().map(|(index, rank)| provider(index, rank, provider_filters.clone())),
        )
    });
    (host_action(), providers, vec(host_filter(), host_filters)).prop_map(|(default, mut providers, filters)| {
        // Handles are in no order of their own.
        let count = providers.len() as u32;
        for (index, provider) in providers.iter_mut().enumerate() {
            provider.handle = count - index as u32 + 40;
        }
        Policy { default, providers, filters, ..Policy::default() }
    })
}

/// Counts repeated ranks up to the next free one.
fn distinct(mut ranks: Vec<u16>) -> Vec<u16> {
    let mut taken = BTreeSet::new();
    for rank in &mut ranks {
        while !taken.insert(*rank) {
            *rank = rank.wrapping_add(1);
        }
    }
    ranks
}

fn provider(index: usize, rank: u16, filters: RangeInclusive<usize>) -> impl Strategy<Value = Provider> {
    (
        prop_oneof![Just(Service::Aware), Just(Service::Unaware)],
        prop_oneof![Just(OnDead::Closed), Just(OnDead::Open)],
        any::<bool>(),
        1..=MAX_OWNERS,
        1..=MAX_LISTENERS,
        prop_oneof![Just(0_u32), 1..100_u32],
        vec(filter(), filters),
    )
        .prop_map(move |(service, on_dead, direct, owners, listeners, in_flight_limit, filters)| Provider {
            name: format!("provider {index}"),
            handle: 0,
            rank,
            service,
            on_dead,
            direct,
            owners: (0..owners).map(|owner| nth_owner(index, owner)).collect(),
            listeners: (0..listeners).map(|listener| nth_listener(index, listener)).collect(),
            in_flight_limit,
            reach: Reach::Routes,
            sockname: SockName::Own,
            filters,
        })
}

fn nth_owner(provider: usize, owner: usize) -> Owner {
    let number = (provider * MAX_OWNERS + owner) as u32;
    if owner.is_multiple_of(2) {
        Owner::Cgroup { id: 1000 + u64::from(number), level: 1 + number % 3 }
    } else {
        Owner::Uid(60_000 + number)
    }
}

fn nth_listener(provider: usize, listener: usize) -> SocketAddr {
    let ip = match listener {
        0 => IpAddr::from([127, 0, 0, 1]),
        1 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        2 => IpAddr::from([10, 0, 0, 1]),
        _ => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    SocketAddr::new(ip, 8000 + provider as u16)
}

fn filter() -> impl Strategy<Value = Filter> {
    let context = prop_oneof![
        4 => Just(Vec::new()),
        2 => vec(any::<u8>(), 1..20),
        1 => any::<u8>().prop_map(|byte| std::vec![byte; CONTEXT_MAX]),
    ];
    let action = prop_oneof![
        6 => context.prop_map(|context| Action::Redirect { context }),
        2 => Just(Action::Skip),
        1 => Just(Action::Block),
    ];
    (weight(), matches(), action).prop_map(|(weight, matches, action)| Filter {
        name: format!("{weight} {matches:?}"),
        weight,
        matches,
        action,
    })
}

fn host_filter() -> impl Strategy<Value = HostFilter> {
    (weight(), narrow_matches(), host_action()).prop_map(|(weight, matches, action)| HostFilter {
        name: format!("{weight} {matches:?}"),
        weight,
        matches,
        action,
    })
}

fn host_action() -> impl Strategy<Value = HostAction> {
    prop_oneof![3 => Just(HostAction::Permit), 1 => Just(HostAction::Block)]
}

/// Few values, so that ties are common.
fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..4_u32, 1 => Just(u32::MAX)]
}

fn matches() -> impl Strategy<Value = Match> {
    (prop::option::of(prefix(0)), ports()).prop_map(|(remote, ports)| Match { remote, ports })
}

/// Host filters come first: wide ones would leave the providers nothing to decide.
fn narrow_matches() -> impl Strategy<Value = Match> {
    (prefix(8), ports()).prop_map(|(remote, ports)| Match { remote: Some(remote), ports })
}

fn prefix(shortest: u8) -> impl Strategy<Value = Prefix> {
    select(&BASES[..]).prop_flat_map(move |address| {
        let longest = Prefix::from(address).longest();
        let length = prop_oneof![
            1 => Just(longest),
            1 => Just(longest - 1),
            1 => Just(shortest),
            3 => shortest..=longest,
        ];
        length.prop_map(move |length| Prefix { address, length })
    })
}

fn ports() -> impl Strategy<Value = RangeInclusive<u16>> {
    prop_oneof![
        2 => Just(0..=u16::MAX),
        2 => select(&PORTS[..]).prop_map(|port| port..=port),
        2 => (select(&PORTS[..]), select(&PORTS[..])).prop_map(|(a, b)| a.min(b)..=a.max(b)),
    ]
}

fn carried(policy: &Policy) -> impl Strategy<Value = Carried> + use<> {
    let ranks: Vec<u16> = policy.providers.iter().map(|provider| provider.rank).collect();
    let near_rank = match ranks.is_empty() {
        true => any::<u16>().boxed(),
        false => {
            (select(ranks), 0..3_u16).prop_map(|(rank, above)| rank.saturating_add(above).saturating_sub(1)).boxed()
        }
    };
    let depth = prop_oneof![3 => 1..=MAX_HOPS as u32, 1 => Just(MAX_HOPS as u32)];
    (prop_oneof![4 => near_rank, 1 => any::<u16>()], depth).prop_map(|(floor, depth)| Carried { floor, depth })
}

fn listeners(policy: &Policy) -> Vec<(SocketAddr, Option<usize>)> {
    let providers = policy.providers.iter().enumerate();
    providers.flat_map(|(at, provider)| provider.listeners.iter().map(move |&listener| (listener, Some(at)))).collect()
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

/// Picks an edge of a range, just outside of it, or anything.
fn port_noise() -> impl Strategy<Value = (u8, u16)> {
    (0..6_u8, any::<u16>())
}

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

/// Prefixes and destinations are made from these: neighbours, both families, mapped.
const BASES: [IpAddr; 9] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, 0)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 255)),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0001)),
];

const PORTS: [u16; 8] = [0, 1, 80, 443, 8000, 8015, 65534, 65535];

/// Filters of each provider and of the host in the largest policy, which is full.
const MAX_FILTERS: usize = (MAX_RULES - 1) / MAX_PROVIDERS;
const MAX_HOST_FILTERS: usize = MAX_RULES - MAX_PROVIDERS * MAX_FILTERS;
