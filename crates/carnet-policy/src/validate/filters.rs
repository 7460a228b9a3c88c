//! Mistakes in filters. A list that many filters share is looked at once, and its mistakes are the first one's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use carnet_abi::CONTEXT_MAX;

use crate::matching::Effect;
use crate::{Action, Condition, FilterName, Line, Match, Mistake, Policy, Protocol, Provider};

pub fn check(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    let mut check = Check { policy, mistakes, seen: HashSet::new(), lines: HashMap::new() };
    for filter in &policy.filters {
        let name = || FilterName { provider: None, filter: filter.name.clone() };
        check.matches(&filter.matches, filter.action.into(), None, &name);
    }
    for provider in &policy.providers {
        for filter in &provider.filters {
            let name = || FilterName { provider: Some(provider.name.clone()), filter: filter.name.clone() };
            check.matches(&filter.matches, (&filter.action).into(), Some(provider), &name);
            if let Action::Redirect { context } = &filter.action
                && context.len() > CONTEXT_MAX
            {
                check.mistakes.push(Mistake::ContextTooLong { filter: name(), size: context.len() });
            }
        }
    }
}

struct Check<'p, 'm> {
    policy: &'p Policy,
    mistakes: &'m mut Vec<Mistake>,
    /// Lists looked at.
    seen: HashSet<(usize, usize)>,
    /// Of each cgroup.
    lines: HashMap<u64, &'p Line>,
}

impl<'p> Check<'p, '_> {
    fn matches(
        &mut self,
        matches: &'p Match,
        effect: Effect,
        provider: Option<&Provider>,
        name: &dyn Fn() -> FilterName,
    ) {
        for &prefix in self.new_values(&matches.remote) {
            if prefix.length > prefix.longest() {
                self.mistakes.push(Mistake::PrefixTooLong { filter: name(), prefix });
            }
        }
        for ports in self.new_values(&matches.ports).filter(|ports| ports.is_empty()) {
            self.mistakes.push(Mistake::NoPorts { filter: name(), ports: ports.clone() });
        }
        for uids in self.new_values(&matches.uids).filter(|uids| uids.is_empty()) {
            self.mistakes.push(Mistake::NoUids { filter: name(), uids: uids.clone() });
        }
        for gids in self.new_values(&matches.gids).filter(|gids| gids.is_empty()) {
            self.mistakes.push(Mistake::NoGids { filter: name(), gids: gids.clone() });
        }
        for line in self.new_values(&matches.cgroups) {
            self.cgroup(line, name);
        }
        self.via(&matches.via, provider, name);
        if matches.protocol == Some(Protocol::Udp) && !effect.is_for_udp() {
            self.mistakes.push(Mistake::NoUdp { filter: name() });
        }
    }

    fn cgroup(&mut self, line: &'p Line, name: &dyn Fn() -> FilterName) {
        let Line(ids) = line;
        if let Some(&[_, id]) = ids.array_windows().rfind(|[above, id]| *above == 0 && *id != 0) {
            self.mistakes.push(Mistake::BrokenLine { filter: name(), id });
            return;
        }
        let Some(id) = line.id() else { return };
        if *self.lines.entry(id).or_insert(line) != line {
            self.mistakes.push(Mistake::MovedCgroup { filter: name(), id });
        }
    }

    fn via(&mut self, via: &'p Condition<usize>, provider: Option<&Provider>, name: &dyn Fn() -> FilterName) {
        let only = via.only.iter().flatten().flat_map(|list| list.iter().map(|&at| (at, true)));
        let except = via.except.iter().flat_map(|list| list.iter().map(|&at| (at, false)));
        for (at, is_asked_for) in only.chain(except) {
            let Some(named) = self.policy.providers.get(at) else {
                self.mistakes.push(Mistake::UnknownVia { filter: name(), provider: at });
                continue;
            };
            if is_asked_for && provider.is_some_and(|provider| named.rank >= provider.rank) {
                self.mistakes.push(Mistake::LateVia { filter: name(), via: named.name.clone() });
            }
        }
    }

    /// The values of lists not looked at yet.
    fn new_values<T>(&mut self, condition: &'p Condition<T>) -> impl Iterator<Item = &'p T> + use<'p, T> {
        let lists = condition.only.iter().flatten().chain(&condition.except);
        let is_new = |list: &&Arc<[T]>| self.seen.insert((list.as_ptr().addr(), list.len()));
        let new: Vec<&'p Arc<[T]>> = lists.filter(is_new).collect();
        new.into_iter().flat_map(|list| list.iter())
    }
}
