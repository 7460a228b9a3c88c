//! Proptest strategies: valid policies up to the largest sizes, and questions that their filters are likely to match.
//! For comparing another evaluator of the decision with [`decide`](crate::decide). And such an evaluator: [`evaluate`]
//! reads an image as the kernel program does.

mod conditions;
mod evaluate;
mod plain;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use carnet_abi::{CONTEXT_MAX, MAX_HOPS, MAX_LISTENERS, MAX_OWNERS, MAX_PROVIDERS, MAX_RULES};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

pub use self::evaluate::evaluate;
pub use self::plain::{Random, plain_provider};

use self::conditions::{Noise, Shared, anywhere, identity, known, matches, noise, shared};
use crate::matching::Effect;
use crate::{
    Action, Carried, Filter, HostAction, HostFilter, Match, OnDead, Owner, Policy, Protocol, Provider, Providers,
    Question, Reach, Service, SockName,
};

/// Valid policies of any size, the largest now and then.
pub fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![60 => small_policy(), 1 => largest_policy()]
}

/// Valid policies: none to [`MAX_HOPS`] providers, not in rank order, and a few filters each with few weights,
/// overlapping conditions and shared lists.
pub fn small_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        3 => sized_policy(0..=4, 0..=4, 0..=2),
        1 => sized_policy(0..=MAX_HOPS, 0..=4, 0..=2),
    ]
}

/// Valid policies with [`MAX_PROVIDERS`] providers and [`MAX_RULES`] filters.
pub fn largest_policy() -> impl Strategy<Value = Policy> {
    sized_policy(MAX_PROVIDERS..=MAX_PROVIDERS, MAX_FILTERS..=MAX_FILTERS, MAX_HOST_FILTERS..=MAX_HOST_FILTERS)
}

/// Questions to `policy`: destinations at and around the edges of its filters and on its listeners, by those whom its
/// filters name and by others, floors around its ranks, any dialer, any dead providers. UDP only where the policy
/// judges it.
pub fn question(policy: &Policy) -> impl Strategy<Value = Question> + use<> {
    let providers = policy.providers.len();
    let somebody = move || if providers == 0 { Just(None).boxed() } else { (0..providers).prop_map(Some).boxed() };
    let dead = prop_oneof![
        3 => Just(Providers::NONE),
        3 => any::<[u64; 4]>().prop_map(move |bits| (0..providers).filter(|at| bits[at / 64] >> (at % 64) & 1 == 1).collect()),
        1 => Just((0..providers).collect()),
    ];
    let listener = match listeners(policy) {
        listeners if listeners.is_empty() => Just(None).boxed(),
        listeners => prop_oneof![4 => Just(None), 1 => select(listeners).prop_map(Some)].boxed(),
    };
    let udp = prop::bool::weighted(if judges_udp(policy) { 0.25 } else { 0.0 });
    (aim(policy), listener, prop::option::weighted(0.6, carried(policy)), somebody(), 0..4_u8, dead, udp).prop_flat_map(
        |((remote, identity, via), listener, record, somebody, who_dials, dead, udp)| {
            let dialer = match who_dials {
                0 => somebody,
                1 => via.or(somebody),
                _ => via.filter(|_| who_dials == 2),
            };
            known(identity).prop_map(move |who| {
                let question = Question { who, record, dialer, dead, ..Question::to(remote) };
                match listener {
                    _ if udp => Question { protocol: Protocol::Udp, ..question },
                    Some((remote, at)) => Question { remote, listener: Some(at), ..question },
                    None => question,
                }
            })
        },
    )
}

/// Destinations at and around the edges of the policy's filters.
pub fn remote(policy: &Policy) -> impl Strategy<Value = SocketAddr> + use<> {
    aim(policy).prop_map(|(remote, ..)| remote)
}

/// A destination, somebody, and a provider, mostly such as one of the policy's filters asks for.
fn aim(policy: &Policy) -> impl Strategy<Value = (SocketAddr, crate::Identity, Option<usize>)> + use<> {
    let anything = (anywhere(), identity()).prop_map(|(remote, identity)| (remote, identity, None));
    let provider_filters = policy.providers.iter().flat_map(|provider| &provider.filters);
    let matches: Vec<Match> = (policy.filters.iter().map(|filter| filter.matches.clone()))
        .chain(provider_filters.map(|filter| filter.matches.clone()))
        .collect();
    if matches.is_empty() {
        return anything.boxed();
    }
    let near =
        |(matches, noise): (Match, Noise)| (noise.remote(&matches), noise.identity(&matches), noise.dialer(&matches));
    prop_oneof![8 => (select(matches), noise()).prop_map(near), 1 => anything].boxed()
}

fn sized_policy(
    providers: RangeInclusive<usize>,
    provider_filters: RangeInclusive<usize>,
    host_filters: RangeInclusive<usize>,
) -> impl Strategy<Value = Policy> {
    let rank = prop_oneof![3 => 0..64_u16, 1 => Just(0), 1 => Just(u16::MAX), 2 => any::<u16>()];
    let ranks = vec(rank, providers).prop_map(distinct);
    (ranks, shared()).prop_flat_map(move |(ranks, shared)| {
        let provider = |index: usize| provider(index, &ranks, &shared, provider_filters.clone());
        let providers: Vec<_> = (0..ranks.len()).map(provider).collect();
        let filters = vec(host_filter(&shared, ranks.len()), host_filters.clone());
        (host_action(), providers, filters).prop_map(|(default, mut providers, filters)| {
            // Handles are in no order of their own.
            let count = providers.len() as u32;
            for (index, provider) in providers.iter_mut().enumerate() {
                provider.handle = count - index as u32 + 40;
            }
            Policy { default, providers, filters, ..Policy::default() }
        })
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

fn provider(
    index: usize,
    ranks: &[u16],
    shared: &Shared,
    filters: RangeInclusive<usize>,
) -> impl Strategy<Value = Provider> + use<> {
    let rank = ranks[index];
    let before = (0..ranks.len()).filter(|&other| ranks[other] < rank).take(8).collect();
    (
        prop_oneof![Just(Service::Aware), Just(Service::Unaware)],
        prop_oneof![Just(OnDead::Closed), Just(OnDead::Open)],
        any::<bool>(),
        1..=MAX_OWNERS,
        1..=MAX_LISTENERS,
        prop_oneof![Just(0_u32), 1..100_u32],
        vec(filter(shared, before), filters),
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

/// Of a provider that comes after those at `before`.
fn filter(shared: &Shared, before: Vec<usize>) -> impl Strategy<Value = Filter> + use<> {
    let context = prop_oneof![
        40 => Just(Vec::new()),
        20 => vec(any::<u8>(), 1..20),
        1 => any::<u8>().prop_map(|byte| std::vec![byte; CONTEXT_MAX]),
    ];
    let action = prop_oneof![
        6 => context.prop_map(|context| Action::Redirect { context }),
        2 => Just(Action::Skip),
        1 => Just(Action::Block),
    ];
    (weight(), matches(shared, before, false), action, prop::bool::weighted(0.2)).prop_map(
        |(weight, matches, action, udp)| {
            let matches = for_udp(matches, (&action).into(), udp);
            Filter { name: format!("weight {weight}"), weight, matches, action }
        },
    )
}

/// Host filters come first: wide ones would leave the providers nothing to decide.
fn host_filter(shared: &Shared, providers: usize) -> impl Strategy<Value = HostFilter> + use<> {
    let via = (0..providers).take(8).collect();
    (weight(), matches(shared, via, true), host_action(), prop::bool::weighted(0.2)).prop_map(
        |(weight, matches, action, udp)| {
            let matches = for_udp(matches, action.into(), udp);
            HostFilter { name: format!("weight {weight}"), weight, matches, action }
        },
    )
}

fn for_udp(matches: Match, effect: Effect, udp: bool) -> Match {
    if udp && effect.is_for_udp() { Match { protocol: Some(Protocol::Udp), ..matches } } else { matches }
}

fn host_action() -> impl Strategy<Value = HostAction> {
    prop_oneof![3 => Just(HostAction::Permit), 1 => Just(HostAction::Block)]
}

/// Few values, so that ties are common.
fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..4_u32, 1 => Just(u32::MAX)]
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

fn listeners(policy: &Policy) -> Vec<(SocketAddr, usize)> {
    let providers = policy.providers.iter().enumerate();
    providers.flat_map(|(at, provider)| provider.listeners.iter().map(move |&listener| (listener, at))).collect()
}

fn judges_udp(policy: &Policy) -> bool {
    let of_host = policy.filters.iter().map(|filter| (&filter.matches, Effect::from(filter.action)));
    let filters = policy.providers.iter().flat_map(|provider| &provider.filters);
    let mut all = of_host.chain(filters.map(|filter| (&filter.matches, Effect::from(&filter.action))));
    policy.default == HostAction::Block
        || all.any(|(matches, effect)| effect.blocks() && matches.protocol != Some(Protocol::Tcp))
}

/// Filters of each provider and of the host in the largest policy, which is full.
const MAX_FILTERS: usize = (MAX_RULES - 1) / MAX_PROVIDERS;
const MAX_HOST_FILTERS: usize = MAX_RULES - MAX_PROVIDERS * MAX_FILTERS;
