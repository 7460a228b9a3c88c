//! How many services one connection could have.

use std::collections::{BTreeSet, HashSet};
use std::net::Ipv6Addr;

use carnet_abi::MAX_HOPS;

use crate::file::Resolved;
use crate::file::finding::Id;
use crate::file::source::shown;
use crate::file::warnings::Warnings;
use crate::file::warnings::ranges::Budget;
use crate::file::warnings::region::{DIMENSIONS, PORTS, PROTOCOL, REMOTE, Region, Regions, VIA};
use crate::{Action, FilterRef};

/// Says it where a record has no room for so many.
pub fn look(warnings: &mut Warnings, resolved: &Resolved, regions: &Regions, idle: &HashSet<FilterRef>) {
    let mut filters = Vec::new();
    for (provider, entry) in resolved.policy.providers.iter().enumerate() {
        for (filter, entry) in entry.filters.iter().enumerate() {
            let at = FilterRef::Provider { provider, filter };
            if matches!(entry.action, Action::Redirect { .. })
                && !idle.contains(&at)
                && let Some(region) = regions.get(at)
                && !region.is_empty()
            {
                filters.push((provider, region));
            }
        }
    }
    let Some(chain) = longest(&filters) else { return };

    let mut providers: Vec<_> = chain.providers.iter().map(|&at| (&resolved.policy.providers[at], at)).collect();
    providers.sort_by_key(|(provider, _)| provider.rank);
    let Some((_, first_without_room)) = providers.get(MAX_HOPS) else { return };
    let shown: Vec<_> = providers.iter().take(3).map(|(provider, _)| format!("{:?}", shown(&provider.name))).collect();
    let example = chain.example.map_or_else(String::new, |(remote, port)| match (remote, port) {
        (Some(remote), port) => format!(", for instance one to {remote} port {port}"),
        (None, port) => format!(", for instance one to port {port}"),
    });
    let what = format!(
        "{} services could have one connection ({} and so on){example}, and a record has room for {MAX_HOPS}: \
         the next one's redirect is refused",
        providers.len(),
        shown.join(", "),
    );
    let span = warnings.file.providers.get(*first_without_room).map_or(0..0, |entry| entry.name_span());
    warnings.add(
        Id::TooManyServices,
        span,
        what,
        "narrow the filters of some, so that they are not about the same connections",
    );
}

/// Providers that could all have one connection.
struct Chain {
    providers: BTreeSet<usize>,
    /// To where, and to which port; `None` where it was too much to find out.
    example: Option<(Option<std::net::IpAddr>, u16)>,
}

/// The longest, where it is longer than there is room for.
fn longest(filters: &[(usize, &Region)]) -> Option<Chain> {
    let mut search = Search { filters, best: None, point: [0; DIMENSIONS], budget: Budget::new(BUDGET) };
    let all: Vec<usize> = (0..filters.len()).collect();
    search.walk(&all, 0);
    search.best
}

struct Search<'r> {
    filters: &'r [(usize, &'r Region)],
    best: Option<Chain>,
    /// Where the search is, in each dimension before the current.
    point: [u128; DIMENSIONS],
    budget: Budget,
}

impl Search<'_> {
    /// Looks for what more of `candidates` have in common from this dimension on.
    fn walk(&mut self, candidates: &[usize], dimension: usize) {
        let providers = self.providers(candidates);
        if providers.len() <= self.best.as_ref().map_or(MAX_HOPS, |best| best.providers.len()) {
            return;
        }
        if dimension == DIMENSIONS {
            let (remote, port) = (self.point[REMOTE], self.point[PORTS] as u16);
            let remote = (remote != 0).then(|| Ipv6Addr::from_bits(remote).to_canonical());
            self.best = Some(Chain { providers, example: Some((remote, port)) });
            return;
        }
        let ranges = |&at: &usize| &self.filters[at].1.dimensions[dimension];
        // Only TCP is redirected. What a connection comes from is another thing at each hop.
        if dimension == PROTOCOL || dimension == VIA || candidates.iter().all(|at| ranges(at).is_all()) {
            self.point[dimension] = if dimension == PORTS { 443 } else { 0 };
            return self.walk(candidates, dimension + 1);
        }
        let steps = candidates.iter().map(|at| ranges(at).len() as u64).sum::<u64>();
        if !self.budget.spend(steps + candidates.len() as u64) {
            // All of them, which is too many and never too few.
            self.best = Some(Chain { providers, example: None });
            return;
        }
        let mut edges: Vec<(u128, bool, usize)> = Vec::with_capacity(2 * steps as usize);
        for at in candidates {
            for (first, last) in ranges(at).iter() {
                // At one number, what begins there comes before what ends there.
                edges.push((first, false, *at));
                edges.push((last, true, *at));
            }
        }
        edges.sort_unstable();
        let mut active = BTreeSet::new();
        let mut grew = false;
        let mut seen: HashSet<Vec<usize>> = HashSet::new();
        for (number, is_end, at) in edges {
            if !is_end {
                active.insert(at);
                self.point[dimension] = number;
                grew = true;
                continue;
            }
            // What is common to most is where something ends after something has begun.
            if grew && self.budget.spend(active.len() as u64) {
                let common: Vec<usize> = active.iter().copied().collect();
                if self.providers(&common).len() > MAX_HOPS && seen.insert(common.clone()) {
                    self.walk(&common, dimension + 1);
                }
            } else if grew {
                self.best = Some(Chain { providers: self.providers(candidates), example: None });
                return;
            }
            grew = false;
            active.remove(&at);
        }
    }

    fn providers(&self, filters: &[usize]) -> BTreeSet<usize> {
        filters.iter().map(|&at| self.filters[at].0).collect()
    }
}

/// Ranges that are looked at, a second's worth.
const BUDGET: u64 = 20_000_000;
