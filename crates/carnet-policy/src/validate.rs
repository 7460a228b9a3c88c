//! Finds every mistake in a policy at once, so that its author corrects it in one go.

mod filters;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use carnet_abi::{MAX_LISTENERS, MAX_OWNERS, MAX_PROVIDERS, MAX_RULES};

use crate::{Error, Mistake, Owner, Policy, Provider};

impl Policy {
    /// Whether [`Policy::compile`] would accept the policy; else all its mistakes. Three remain for compiling to find:
    /// [`Mistake::TooManyClasses`], [`Mistake::TooManyRanges`] and [`Mistake::TooManyValues`].
    pub fn validate(&self) -> Result<(), Error> {
        let mut mistakes = Vec::new();
        check_sizes(self, &mut mistakes);
        check_names(self, &mut mistakes);
        check_ranks_and_handles(self, &mut mistakes);
        check_listeners(self, &mut mistakes);
        check_owners(self, &mut mistakes);
        filters::check(self, &mut mistakes);
        if mistakes.is_empty() { Ok(()) } else { Err(Error::new(mistakes)) }
    }
}

fn check_sizes(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    let providers = policy.providers.len();
    if providers > MAX_PROVIDERS {
        mistakes.push(Mistake::TooManyProviders { count: providers });
    }
    let filters = policy.filters.len() + policy.providers.iter().map(|provider| provider.filters.len()).sum::<usize>();
    if filters > MAX_RULES {
        mistakes.push(Mistake::TooManyFilters { count: filters });
    }
}

fn check_names(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    for (index, provider) in policy.providers.iter().enumerate() {
        if provider.name.is_empty() {
            mistakes.push(Mistake::NoName { number: index + 1 });
        }
    }
    let named = policy.providers.iter().filter(|provider| !provider.name.is_empty());
    for (name, _, _) in twice(named.map(|provider| (provider.name.clone(), provider))) {
        mistakes.push(Mistake::DuplicateName { name });
    }
}

fn check_ranks_and_handles(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    for (rank, first, second) in twice(policy.providers.iter().map(|provider| (provider.rank, provider))) {
        mistakes.push(Mistake::DuplicateRank { rank, first: first.name.clone(), second: second.name.clone() });
    }
    for provider in policy.providers.iter().filter(|provider| provider.handle == 0) {
        mistakes.push(Mistake::ZeroHandle { provider: provider.name.clone() });
    }
    let handled = policy.providers.iter().filter(|provider| provider.handle != 0);
    for (handle, first, second) in twice(handled.map(|provider| (provider.handle, provider))) {
        mistakes.push(Mistake::DuplicateHandle { handle, first: first.name.clone(), second: second.name.clone() });
    }
}

fn check_listeners(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    for Provider { name, listeners, .. } in &policy.providers {
        if listeners.is_empty() {
            mistakes.push(Mistake::NoListener { provider: name.clone() });
        }
        if listeners.len() > MAX_LISTENERS {
            mistakes.push(Mistake::TooManyListeners { provider: name.clone(), count: listeners.len() });
        }
        for &listener in listeners {
            let provider = name.clone();
            let ip = listener.ip().to_canonical();
            if ip.is_unspecified() {
                mistakes.push(Mistake::WildcardListener { provider, listener });
            } else if ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
                mistakes.push(Mistake::UndialableListener { provider, listener });
            }
            if listener.port() == 0 {
                mistakes.push(Mistake::NoPort { provider: name.clone(), listener });
            }
        }
    }
    let all = policy.providers.iter().flat_map(|provider| {
        provider.listeners.iter().map(move |listener| {
            // An IPv4-mapped address and its IPv4 form are one listener.
            (SocketAddr::new(listener.ip().to_canonical(), listener.port()), provider)
        })
    });
    for (listener, first, second) in twice(all) {
        mistakes.push(Mistake::DuplicateListener { listener, first: first.name.clone(), second: second.name.clone() });
    }
}

fn check_owners(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    for Provider { name, owners, .. } in &policy.providers {
        if owners.is_empty() {
            mistakes.push(Mistake::NoOwner { provider: name.clone() });
        }
        if owners.len() > MAX_OWNERS {
            mistakes.push(Mistake::TooManyOwners { provider: name.clone(), count: owners.len() });
        }
        if owners.iter().any(|owner| matches!(owner, Owner::Cgroup { level: 0, .. })) {
            mistakes.push(Mistake::RootOwner { provider: name.clone() });
        }
    }
    let all = policy.providers.iter().flat_map(|provider| {
        // A cgroup's level follows from its id.
        let identity = |&owner: &Owner| match owner {
            Owner::Cgroup { id, .. } => Owner::Cgroup { id, level: 0 },
            Owner::Uid(_) => owner,
        };
        provider.owners.iter().map(move |owner| (identity(owner), provider))
    });
    for (owner, first, second) in twice(all) {
        mistakes.push(Mistake::DuplicateOwner { owner, first: first.name.clone(), second: second.name.clone() });
    }
}

/// What occurs more than once: the value, where it came first, and where it came again.
fn twice<'p, T: Clone + Eq + Hash>(
    items: impl Iterator<Item = (T, &'p Provider)>,
) -> Vec<(T, &'p Provider, &'p Provider)> {
    let mut seen: HashMap<T, &Provider> = HashMap::new();
    let mut again = Vec::new();
    for (value, provider) in items {
        match seen.get(&value) {
            Some(first) => again.push((value, *first, provider)),
            None => {
                seen.insert(value, provider);
            }
        }
    }
    again
}
