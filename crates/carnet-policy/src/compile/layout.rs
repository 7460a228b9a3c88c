//! The dimensions of a policy, one after the other: their conditions, ranges, classes and trees.

use std::collections::BTreeMap;
use std::net::IpAddr;

use carnet_abi as abi;

use super::classes::Classes;
use super::conditions::Conditions;
use super::progress::Work;
use super::ranges::{Interval, Ranges, Value, merge, ranges};
use super::tree::push_tree;
use crate::matching::{Effect, Part};
use crate::{Line, Match, Mistake, Prefix, Protocol};

/// A filter at its place in the order of the decision.
pub struct Rule<'p> {
    pub matches: &'p Match,
    pub effect: Effect,
}

/// What the trees and classes of an image are made of.
pub struct Layout {
    pub policy: Box<abi::Policy>,
    pub classes: Classes,
    pub nodes32: Vec<abi::Node32>,
    pub nodes128: Vec<abi::Node128>,
    pub values: Vec<(abi::ValueKey, u16)>,
    rules: usize,
}

impl Layout {
    /// `policy` has its flags already. `order` are the positions of the providers by rank.
    pub fn new(
        policy: Box<abi::Policy>,
        rules: &[Rule<'_>],
        order: &[usize],
        progress: &mut dyn FnMut(super::Progress),
    ) -> Result<Self, Mistake> {
        let classes = Classes::new(rules.len());
        let (nodes32, nodes128, values) = Default::default();
        let mut layout = Self { policy, classes, nodes32, nodes128, values, rules: rules.len() };

        let remote = Conditions::new(rules, |matches| &matches.remote);
        let ports = Conditions::new(rules, |matches| &matches.ports);
        let uids = Conditions::new(rules, |matches| &matches.uids);
        let gids = Conditions::new(rules, |matches| &matches.gids);
        let exes = Conditions::new(rules, |matches| &matches.exes);
        let cgroups = Conditions::new(rules, |matches| &matches.cgroups);
        let netns = Conditions::new(rules, |matches| &matches.netns);
        let via = Conditions::new(rules, |matches| &matches.via);
        let identities = uids.values() + gids.values() + exes.values() + cgroups.values() + netns.values();
        let all = remote.values() + ports.values() + identities + via.values();

        let work = &mut Work::new(all, progress);
        layout.remote(&remote, work)?;
        layout.ports(rules, ports, work)?;
        layout.ids(abi::BY_UID, Part::Uid, &uids, work)?;
        layout.ids(abi::BY_GID, Part::Gid, &gids, work)?;
        layout.values(abi::BY_EXE, Part::Exe, &exes, |exe| vec![Some((exe.dev, exe.ino))], work)?;
        layout.values(abi::BY_CGROUP, Part::Cgroup, &cgroups, line_and_above, work)?;
        layout.values(abi::BY_NETNS, Part::Netns, &netns, |&cookie| vec![Some((0, cookie))], work)?;
        layout.via(&via, order, work)?;

        let asking = |effect: fn(Effect) -> bool| {
            let asks = move |(_, rule): &(usize, &Rule<'_>)| effect(rule.effect) && rule.matches.asks_who();
            rules.iter().enumerate().filter(asks).map(|(index, _)| index)
        };
        layout.policy.lets_through = layout.classes.class_of(asking(Effect::lets_through))?.into();
        layout.policy.stops = layout.classes.class_of(asking(Effect::stops))?.into();
        Ok(layout)
    }

    fn remote(&mut self, conditions: &Conditions<'_, Prefix>, work: &mut Work<'_>) -> Result<(), Mistake> {
        if conditions.is_empty() {
            return Ok(());
        }
        work.begin(Part::Remote, conditions.values());
        let lists = intervals(conditions, v4_interval, work);
        let v4 = self.ranges(conditions, &lists, work)?;
        self.push32(abi::BY_V4, &v4)?;
        drop(lists);
        let lists = intervals(conditions, v6_interval, &mut Work::untold());
        let v6 = self.ranges(conditions, &lists, work)?;
        self.push128(abi::BY_V6, &v6)?;
        work.end();
        Ok(())
    }

    /// What the merged lists of some conditions make.
    fn ranges<T, V: Value>(
        &mut self,
        conditions: &Conditions<'_, T>,
        lists: &[Vec<Interval<V>>],
        work: &mut Work<'_>,
    ) -> Result<Ranges<V>, Mistake> {
        let mut selection = conditions.selection(self.rules);
        ranges(lists, &mut selection, &mut self.classes, &mut |count| work.tick(count))
    }

    /// Protocol and port, and what a filter's effect means for UDP.
    fn ports(
        &mut self,
        rules: &[Rule<'_>],
        mut conditions: Conditions<'_, std::ops::RangeInclusive<u16>>,
        work: &mut Work<'_>,
    ) -> Result<(), Mistake> {
        let is_udp_judged = self.policy.flags & abi::POLICY_JUDGES_UDP != 0;
        let (tcp, udp) = (conditions.extra(), conditions.extra());
        for (index, Rule { matches, effect }) in rules.iter().enumerate() {
            if matches.protocol == Some(Protocol::Udp) {
                conditions.except(index, tcp);
            }
            if matches.protocol == Some(Protocol::Tcp) || is_udp_judged && !effect.is_for_udp() {
                conditions.except(index, udp);
            }
        }
        if conditions.is_empty() {
            return Ok(());
        }
        work.begin(Part::Ports, conditions.values());
        let port = |protocol: Protocol, port: u16| (protocol as u32) << 16 | u32::from(port);
        let both = |ports: &std::ops::RangeInclusive<u16>| {
            [Protocol::Tcp, Protocol::Udp]
                .map(|protocol| (port(protocol, *ports.start()), port(protocol, *ports.end())))
        };
        let mut lists = intervals(&conditions, both, work);
        lists[tcp] = vec![(port(Protocol::Tcp, 0), port(Protocol::Tcp, u16::MAX))];
        lists[udp] = vec![(port(Protocol::Udp, 0), port(Protocol::Udp, u16::MAX))];
        let ranges = self.ranges(&conditions, &lists, work)?;
        self.push32(abi::BY_PORT, &ranges)?;
        work.end();
        Ok(())
    }

    /// Users or groups: a tree where there are ranges, else values.
    fn ids(
        &mut self,
        dimension: usize,
        part: Part,
        conditions: &Conditions<'_, std::ops::RangeInclusive<u32>>,
        work: &mut Work<'_>,
    ) -> Result<(), Mistake> {
        if conditions.lists.iter().flat_map(|list| *list).all(|ids| ids.start() == ids.end()) {
            return self.values(dimension, part, conditions, |ids| vec![Some((0, (*ids.start()).into()))], work);
        }
        work.begin(part, conditions.values());
        let lists = intervals(conditions, |ids| Some((*ids.start(), *ids.end())), work);
        let ranges = self.ranges(conditions, &lists, work)?;
        self.push32(dimension, &ranges)?;
        work.end();
        Ok(())
    }

    /// Values that are looked up one by one: each that a condition names has the class of itself and of what is above it.
    fn values<T>(
        &mut self,
        dimension: usize,
        part: Part,
        conditions: &Conditions<'_, T>,
        up: impl Fn(&T) -> Vec<Place>,
        work: &mut Work<'_>,
    ) -> Result<(), Mistake> {
        if conditions.is_empty() {
            return Ok(());
        }
        work.begin(part, conditions.values());
        let mut named: BTreeMap<Place, (Vec<usize>, &T)> = BTreeMap::new();
        for (list, values) in conditions.lists.iter().enumerate() {
            for value in *values {
                let own = up(value).first().copied().flatten();
                named.entry(own).or_insert((Vec::new(), value)).0.push(list);
            }
            work.tick(values.len());
        }
        let lists_of = |value: &T| {
            let mut lists: Vec<usize> =
                up(value).iter().filter_map(|above| named.get(above)).flat_map(|(lists, _)| lists).copied().collect();
            lists.sort_unstable();
            lists.dedup();
            lists
        };
        let mut selection = conditions.selection(self.rules);
        let mut class_in = |classes: &mut Classes, lists: &[usize]| {
            lists.iter().for_each(|&list| selection.toggle(list));
            let class = selection.class(classes);
            lists.iter().for_each(|&list| selection.toggle(list));
            class
        };
        let for_all = named.get(&None).map_or_else(Vec::new, |(_, value)| lists_of(value));
        self.policy.otherwise[dimension - abi::BY_UID] = class_in(&mut self.classes, &for_all)?;
        for (own, (_, value)) in &named {
            let &Some((hi, lo)) = own else { continue };
            let class = class_in(&mut self.classes, &lists_of(value))?;
            self.values.push((abi::ValueKey { lo, hi, dimension: dimension as u16, slot: 0 }, class));
        }
        if self.values.len() > abi::MAX_VALUES {
            return Err(Mistake::TooManyValues { count: self.values.len() });
        }
        self.policy.dimensions |= 1 << dimension;
        work.end();
        Ok(())
    }

    fn via(&mut self, conditions: &Conditions<'_, usize>, order: &[usize], work: &mut Work<'_>) -> Result<(), Mistake> {
        if conditions.is_empty() {
            self.policy.via.fill(abi::CLASS_EVERYTHING);
            return Ok(());
        }
        work.begin(Part::Via, conditions.values());
        let mut selection = conditions.selection(self.rules);
        let nobodys = selection.class(&mut self.classes)?;
        self.policy.via.fill(nobodys);
        for (index, provider) in order.iter().enumerate() {
            let lists = || (0..conditions.lists.len()).filter(|&list| conditions.lists[list].contains(provider));
            lists().for_each(|list| selection.toggle(list));
            self.policy.via[index] = selection.class(&mut self.classes)?;
            lists().for_each(|list| selection.toggle(list));
        }
        self.policy.dimensions |= 1 << abi::BY_VIA;
        work.end();
        Ok(())
    }

    fn push32(&mut self, dimension: usize, ranges: &[(u32, u16)]) -> Result<(), Mistake> {
        self.policy.tree[dimension] = push_tree(&mut self.nodes32, ranges)?;
        self.policy.dimensions |= 1 << dimension;
        Ok(())
    }

    fn push128(&mut self, dimension: usize, ranges: &[(u128, u16)]) -> Result<(), Mistake> {
        self.policy.tree[dimension] = push_tree(&mut self.nodes128, ranges)?;
        self.policy.dimensions |= 1 << dimension;
        Ok(())
    }
}

/// A value's two parts; `None` is above all values.
type Place = Option<(u32, u64)>;

/// A cgroup's id, those of the cgroups above it, and the root.
fn line_and_above(line: &Line) -> Vec<Place> {
    let ids = line.0.iter().rev().filter(|&&id| id != 0);
    ids.map(|&id| Some((0, id))).chain([None]).collect()
}

/// The values of each list, merged.
fn intervals<T, V: Value, I: IntoIterator<Item = Interval<V>>>(
    conditions: &Conditions<'_, T>,
    of: impl Fn(&T) -> I,
    work: &mut Work<'_>,
) -> Vec<Vec<Interval<V>>> {
    let merged = |list: &&[T]| {
        let mut intervals: Vec<Interval<V>> = list.iter().flat_map(&of).collect();
        merge(&mut intervals);
        work.tick(list.len());
        intervals
    };
    conditions.lists.iter().map(merged).collect()
}

/// The IPv4 addresses of a prefix.
fn v4_interval(prefix: &Prefix) -> Option<Interval<u32>> {
    match prefix.address {
        IpAddr::V4(v4) => {
            let after = u32::MAX.checked_shr(prefix.length.into()).unwrap_or(0);
            Some((v4.to_bits() & !after, v4.to_bits() | after))
        }
        IpAddr::V6(_) => {
            let (first, last) = v6_bits(prefix)?;
            let (first, last) = (first.max(MAPPED.0), last.min(MAPPED.1));
            (first <= last).then_some((first as u32, last as u32))
        }
    }
}

/// The addresses of a prefix that are not IPv4.
fn v6_interval(prefix: &Prefix) -> Option<Interval<u128>> {
    let (first, last) = v6_bits(prefix)?;
    let is_mapped = MAPPED.0 <= first && last <= MAPPED.1;
    (!is_mapped).then_some((first, last))
}

fn v6_bits(prefix: &Prefix) -> Option<Interval<u128>> {
    let IpAddr::V6(v6) = prefix.address else { return None };
    let after = u128::MAX.checked_shr(prefix.length.into()).unwrap_or(0);
    Some((v6.to_bits() & !after, v6.to_bits() | after))
}

/// `::ffff:0:0/96`.
const MAPPED: Interval<u128> = (0xffff << 32, 0xffff << 32 | 0xffff_ffff);
