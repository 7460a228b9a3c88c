//! What filters are about, in a form in which they can be compared: ranges of numbers in every dimension.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use carnet_abi::LINE;

use crate::file::warnings::ranges::{Budget, Ranges};
use crate::matching::Effect;
use crate::{Condition, FilterRef, Line, Match, Policy, Prefix, Protocol};

/// Of every filter of a policy.
pub struct Regions {
    by_filter: HashMap<FilterRef, Region>,
}

/// What one filter is about: what is in its ranges in every dimension.
#[derive(Clone, Debug)]
pub struct Region {
    pub dimensions: [Rc<Ranges>; DIMENSIONS],
}

/// Remote comes last: it has by far the most ranges.
pub const DIMENSIONS: usize = 9;
pub const PROTOCOL: usize = 0;
pub const VIA: usize = 1;
pub const PORTS: usize = 2;
pub const REMOTE: usize = 8;

impl Regions {
    pub fn of(policy: &Policy) -> Self {
        let mut make = Make { all: Rc::new(Ranges::all()), remote: HashMap::new(), cgroups: Cgroups::of(policy) };
        let host = policy.filters.iter().enumerate();
        let host = host.map(|(at, filter)| (FilterRef::Host(at), &filter.matches, Effect::from(filter.action)));
        let providers = policy.providers.iter().enumerate().flat_map(|(provider, entry)| {
            entry.filters.iter().enumerate().map(move |(filter, entry)| {
                (FilterRef::Provider { provider, filter }, &entry.matches, Effect::from(&entry.action))
            })
        });
        let by_filter = host.chain(providers).map(|(at, matches, effect)| (at, make.region(matches, effect))).collect();
        Self { by_filter }
    }

    pub fn get(&self, filter: FilterRef) -> Option<&Region> {
        self.by_filter.get(&filter)
    }
}

impl Region {
    /// Whether a connection is in it.
    pub fn is_empty(&self) -> bool {
        self.dimensions.iter().any(|ranges| ranges.is_empty())
    }

    /// Whether every connection that is in `other` is in this one.
    pub fn covers(&self, other: &Self, budget: &Budget) -> bool {
        let mut pairs = self.dimensions.iter().zip(&other.dimensions);
        pairs.all(|(own, other)| Rc::ptr_eq(own, other) || own.covers(other, budget))
    }
}

struct Make {
    all: Rc<Ranges>,
    /// By the lists that they are of: sets are shared by many filters.
    remote: HashMap<Lists, Rc<Ranges>>,
    cgroups: Cgroups,
}

impl Make {
    fn region(&mut self, matches: &Match, effect: Effect) -> Region {
        let protocols = |protocol: Protocol| {
            let is_meant = matches.protocol.is_none_or(|own| own == protocol);
            (is_meant && (protocol == Protocol::Tcp || effect.is_for_udp())).then_some(protocol as u128)
        };
        let protocols = [Protocol::Tcp, Protocol::Udp].into_iter().filter_map(protocols);
        let via = |&provider: &usize| (provider as u128, provider as u128);
        let exe = |exe: &crate::Executable| one(u128::from(exe.dev) << 64 | u128::from(exe.ino));
        let cgroups = &self.cgroups;
        Region {
            dimensions: [
                Rc::new(Ranges::of(protocols.map(one).collect())),
                self.ranges(&matches.via, via),
                self.ranges(&matches.ports, |ports| ((*ports.start()).into(), (*ports.end()).into())),
                self.ranges(&matches.uids, |uids| ((*uids.start()).into(), (*uids.end()).into())),
                self.ranges(&matches.gids, |gids| ((*gids.start()).into(), (*gids.end()).into())),
                self.ranges(&matches.exes, exe),
                self.ranges(&matches.cgroups, |line| cgroups.range(line)),
                self.ranges(&matches.netns, |&netns| one(netns.into())),
                self.remote(&matches.remote),
            ],
        }
    }

    fn remote(&mut self, condition: &Condition<Prefix>) -> Rc<Ranges> {
        let key = |lists: &Vec<Arc<[Prefix]>>| lists.iter().map(|list| list.as_ptr().addr()).collect::<Vec<_>>();
        let key = (condition.only.as_ref().map(key), key(&condition.except));
        if let Some(ranges) = self.remote.get(&key) {
            return Rc::clone(ranges);
        }
        let ranges = self.ranges(condition, addresses);
        self.remote.insert(key, Rc::clone(&ranges));
        ranges
    }

    fn ranges<T>(&self, condition: &Condition<T>, range: impl Fn(&T) -> (u128, u128)) -> Rc<Ranges> {
        if condition.is_any() {
            return Rc::clone(&self.all);
        }
        let of = |lists: &[Arc<[T]>]| Ranges::of(lists.iter().flat_map(|list| list.iter().map(&range)).collect());
        let only = condition.only.as_ref().map_or_else(Ranges::all, |lists| of(lists));
        Rc::new(if condition.except.is_empty() { only } else { only.without(&of(&condition.except)) })
    }
}

/// Which lists a condition has, and of which it has the rest.
type Lists = (Option<Vec<usize>>, Vec<usize>);

/// Cgroups that are named, numbered so that what is in one is a range: itself, then all that are named below it.
struct Cgroups {
    /// Its number, and the last one below it.
    numbers: BTreeMap<[u64; LINE], (u128, u128)>,
}

impl Cgroups {
    fn of(policy: &Policy) -> Self {
        let host = policy.filters.iter().map(|filter| &filter.matches.cgroups);
        let providers = policy.providers.iter().flat_map(|provider| &provider.filters);
        let conditions = host.chain(providers.map(|filter| &filter.matches.cgroups));
        let lists = conditions.flat_map(|condition| condition.only.iter().flatten().chain(&condition.except));
        let lines = lists.flat_map(|list| list.iter().map(|Line(ids)| (*ids, (0, 0))));
        let mut numbers: BTreeMap<_, _> = lines.collect();
        // In this order, those below one follow it at once. 0 is for whatever is in none.
        let lines: Vec<_> = numbers.keys().copied().collect();
        let mut open: Vec<[u64; LINE]> = Vec::new();
        for (line, number) in lines.iter().zip(1_u128..) {
            while let Some(above) = open.pop_if(|above| !Line(*line).is_below(&Line(*above))) {
                numbers.entry(above).and_modify(|range| range.1 = number - 1);
            }
            numbers.entry(*line).and_modify(|range| range.0 = number);
            open.push(*line);
        }
        let last = lines.len() as u128;
        for above in open {
            numbers.entry(above).and_modify(|range| range.1 = last);
        }
        Self { numbers }
    }

    fn range(&self, line: &Line) -> (u128, u128) {
        match line.id() {
            // The root: also what is in no other that is named.
            None => (0, u128::MAX),
            Some(_) => self.numbers.get(&line.0).copied().unwrap_or((0, 0)),
        }
    }
}

/// Broadcast, multicast and link-local addresses, to which no provider gets connections.
pub fn special() -> Ranges {
    let v4 = |address: [u8; 4], length| Prefix { address: IpAddr::from(address), length };
    let v6 = |first: u16, length| Prefix { address: IpAddr::from([first, 0, 0, 0, 0, 0, 0, 0]), length };
    let all = [v4([255; 4], 32), v4([224, 0, 0, 0], 4), v4([169, 254, 0, 0], 16), v6(0xff00, 8), v6(0xfe80, 10)];
    Ranges::of(all.iter().map(addresses).collect())
}

/// All of IPv4.
pub fn ipv4() -> Ranges {
    Ranges::of(vec![addresses(&Prefix { address: IpAddr::from([0; 4]), length: 0 })])
}

/// In the IPv4-mapped form.
fn addresses(prefix: &Prefix) -> (u128, u128) {
    let (bits, length) = match prefix.address {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), 96 + u32::from(prefix.length)),
        IpAddr::V6(v6) => (v6.to_bits(), prefix.length.into()),
    };
    let behind = u128::MAX.checked_shr(length).unwrap_or(0);
    (bits & !behind, bits | behind)
}

fn one(number: u128) -> (u128, u128) {
    (number, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_numbered_with_those_below_them() {
        let line = |ids: &[u64]| {
            let mut line = Line::default();
            line.0[..ids.len()].copy_from_slice(ids);
            line
        };
        let named = [line(&[5]), line(&[5, 9]), line(&[5, 9, 2]), line(&[5, 10]), line(&[7])];
        let filter = crate::HostFilter {
            name: String::new(),
            weight: 0,
            matches: Match { cgroups: Condition::only(named), ..Match::default() },
            action: crate::HostAction::Permit,
        };
        let cgroups = Cgroups::of(&Policy { filters: vec![filter], ..Policy::default() });
        assert_eq!(named.map(|line| cgroups.range(&line)), [(1, 4), (2, 3), (3, 3), (4, 4), (5, 5)]);
        assert_eq!(cgroups.range(&Line::default()), (0, u128::MAX));
    }

    #[test]
    fn addresses_are_those_of_the_prefix() {
        let prefix = |address: &str, length| Prefix { address: address.parse().unwrap(), length };
        let mapped = 0xffff_u128 << 32;
        assert_eq!(addresses(&prefix("10.0.0.0", 8)), (mapped | 0x0a00_0000, mapped | 0x0aff_ffff));
        assert_eq!(addresses(&prefix("0.0.0.0", 0)), (mapped, mapped | 0xffff_ffff));
        assert_eq!(addresses(&prefix("::", 0)), (0, u128::MAX));
        assert_eq!(addresses(&prefix("::1", 128)), (1, 1));
    }
}
