//! Filters that do nothing.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::file::Resolved;
use crate::file::finding::Id;
use crate::file::source::shown;
use crate::file::warnings::Warnings;
use crate::file::warnings::ranges::Budget;
use crate::file::warnings::region::{REMOTE, Region, Regions, special};
use crate::matching::Effect;
use crate::{Action, FilterRef, Policy};

/// Returns the filters that decide nothing.
pub fn look(warnings: &mut Warnings, resolved: &Resolved, regions: &Regions) -> HashSet<FilterRef> {
    let policy = &resolved.policy;
    let budget = Budget::new(BUDGET);
    let mut idle = HashSet::new();
    let host = in_order(policy.filters.iter().map(|filter| filter.weight)).into_iter().map(FilterRef::Host);
    let host: Vec<_> = host.collect();
    let mut earlier = Vec::new();
    one_by_one(warnings, resolved, regions, &host, &mut earlier, &budget, &mut idle);
    for (provider, entry) in policy.providers.iter().enumerate() {
        let own = in_order(entry.filters.iter().map(|filter| filter.weight)).into_iter();
        let own: Vec<_> = own.map(|filter| FilterRef::Provider { provider, filter }).collect();
        let hosts = earlier.len();
        one_by_one(warnings, resolved, regions, &own, &mut earlier, &budget, &mut idle);
        earlier.truncate(hosts);

        let redirects = |at: &FilterRef| match at {
            FilterRef::Provider { filter, .. } => matches!(entry.filters[*filter].action, Action::Redirect { .. }),
            FilterRef::Host(_) => false,
        };
        // An explicit proxy needs none.
        if !entry.direct && !own.iter().any(|at| redirects(at) && !idle.contains(at)) {
            let what = format!("no filter redirects to the provider {:?}", shown(&entry.name));
            let action = "add a [[provider.filter]] with action = \"redirect\"";
            let span = warnings.file.providers.get(provider).map_or(0..0, |entry| entry.name_span());
            warnings.add(Id::Unreached, span, what, action);
        }
    }
    idle
}

/// Looks at filters in the order of the decision. `earlier` are those before them, and are added to.
fn one_by_one<'r>(
    warnings: &mut Warnings,
    resolved: &Resolved,
    regions: &'r Regions,
    filters: &[FilterRef],
    earlier: &mut Vec<(FilterRef, &'r Region)>,
    budget: &Budget,
    idle: &mut HashSet<FilterRef>,
) {
    for &at in filters {
        // What is not there yet makes a filter empty for a time: there is a note.
        let Some(region) = regions.get(at).filter(|_| !resolved.waiting.contains(&at)) else { continue };
        if region.is_empty() {
            let what =
                format!("the filter {:?} never matches: its conditions leave nothing", warnings.file.shown_filter(at));
            let action = "look at what its not- conditions take away, and at lists that are empty";
            warnings.add(Id::NeverMatches, warnings.file.filter_span(at), what, action);
            idle.insert(at);
            continue;
        }
        if is_for_nobody(&resolved.policy, at, region, budget) {
            let what = format!(
                "the filter {:?} never matches: no provider gets connections to broadcast, multicast and link-local \
                 addresses",
                warnings.file.shown_filter(at)
            );
            let action = "remove it, or name other destinations";
            warnings.add(Id::NeverMatches, warnings.file.filter_span(at), what, action);
            idle.insert(at);
            continue;
        }
        if let Some((first, _)) = earlier.iter().find(|(_, earlier)| earlier.covers(region, budget)) {
            let of = match (first, at) {
                (FilterRef::Host(_), FilterRef::Provider { .. }) => "the host's filter",
                _ => "the filter",
            };
            let (name, first_name) = (warnings.file.shown_filter(at), warnings.file.shown_filter(*first));
            let what = format!(
                "the filter {name:?} never decides: {of} {first_name:?} comes before it and matches all that it does"
            );
            let span = warnings.file.filter_span(*first);
            let action = "give it more weight than the other, or other conditions, or remove it";
            warnings.add_with(Id::Shadowed, warnings.file.filter_span(at), what, action, (span, "the other is here"));
            idle.insert(at);
            continue;
        }
        if decides_always(&resolved.policy, at) {
            earlier.push((at, region));
        }
    }
}

/// Whether a filter redirects only what no provider gets.
fn is_for_nobody(policy: &Policy, at: FilterRef, region: &Region, budget: &Budget) -> bool {
    let FilterRef::Provider { provider, filter } = at else { return false };
    matches!(policy.providers[provider].filters[filter].action, Action::Redirect { .. })
        && special().covers(&region.dimensions[REMOTE], budget)
}

/// Whether a filter decides every connection that its conditions hold for. One that lets through by who connects does
/// not where that is uncertain.
fn decides_always(policy: &Policy, at: FilterRef) -> bool {
    let (matches, effect) = match at {
        FilterRef::Host(at) => (&policy.filters[at].matches, Effect::from(policy.filters[at].action)),
        FilterRef::Provider { provider, filter } => {
            let filter = &policy.providers[provider].filters[filter];
            (&filter.matches, Effect::from(&filter.action))
        }
    };
    !(effect.lets_through() && matches.asks_who())
}

/// Positions by falling weight, equal ones in the order given.
fn in_order(weights: impl Iterator<Item = u32>) -> Vec<usize> {
    let weights: Vec<u32> = weights.collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&at| Reverse(weights[at]));
    order
}

/// Ranges that are compared, a second's worth. After those, shadowed filters are not found.
const BUDGET: u64 = 20_000_000;
