//! Why a connection goes where it goes: what becomes of each filter, and what becomes of the flow, hop by hop.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::compile::by_key;
use crate::decide::provider_at;
use crate::matching::Effect;
use crate::{
    Condition, Decision, FilterRef, Match, Mismatch, Policy, Prefix, Provider, Question, Service, Verdict, Who, decide,
};

/// What becomes of a connection, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    /// What happens to the connection. Where no filter decided, none did because of [`Decision::reason`].
    pub decision: Decision,
    /// What became of each filter of the policy, in the order in which they are asked: the host's, then each provider's
    /// by rising rank; within those by falling weight.
    pub filters: Vec<(FilterRef, Fate)>,
}

/// What becomes of a filter when a connection is decided.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Fate {
    /// It decides.
    Decides,
    /// It is its provider's heaviest match, and says to go to the next provider.
    Skips,
    /// It is its provider's heaviest match and redirects, but the provider is dead, and open: the next one is asked.
    DeadAndOpen,
    /// It does not match.
    Mismatch(Mismatch),
    /// It matches, but this one of the same owner matches too and is heavier, or as heavy and given before it.
    Outweighed(FilterRef),
    /// It matches, but this one of the host or of a provider before its own had decided already.
    TooLate(FilterRef),
    /// Its provider has had the flow already, or comes before one that has: its rank is not above the floor.
    BelowFloor {
        /// The highest rank that the flow has had.
        floor: u16,
    },
    /// No provider is asked: an explicit proxy makes the connection and set no record.
    Terminal,
    /// No filter is asked: the connection is to a provider's own listener.
    Dialled,
}

/// One connection of a flow on its way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hop {
    /// The connection.
    pub question: Question,
    /// What becomes of it.
    pub explanation: Explanation,
    /// Where it gets to.
    pub to: Stop,
}

/// Where a connection gets to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Stop {
    /// To where it was going. The flow is complete.
    Destination,
    /// Nowhere: `connect()` fails.
    Nowhere,
    /// To a provider's service, which then goes on to the same destination: the next hop.
    Service {
        /// Position in [`Policy::providers`].
        provider: usize,
        /// What is taken for granted about how it goes on.
        assumed: Assumed,
    },
    /// To an explicit proxy which was dialled. It goes on to where its client tells it to, so nothing more can be said.
    Proxy {
        /// Position in [`Policy::providers`].
        provider: usize,
    },
}

/// What is taken for granted about a service on the way. In each case that its connection is known to be its own, by its
/// [`Owner`](crate::Owner).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Assumed {
    /// It carries the record, so that as much is known of the origin at the next hop as at this one.
    SetsRecord,
    /// It cannot carry records. All flows that it holds to this destination are of one identity, so that its connection
    /// inherits theirs. Otherwise the origin is ambiguous at the next hop: [`Who::Ambiguous`], with an identity of the
    /// service that the policy does not tell.
    OneIdentity,
}

/// Decides a connection as [`decide`] does, and tells what became of each filter.
///
/// Where several things are in a filter's way, the first of these is told: that its provider is not asked at all; that it
/// does not match; that another filter decides.
pub fn explain(policy: &Policy, question: &Question) -> Explanation {
    let policy = &seen_from(policy, question.remote);
    let decision = decide(policy, question);
    let mut filters = Vec::new();
    let mut decided = None;

    let hosts = by_key(&policy.filters, |filter| Reverse(filter.weight)).into_iter().map(|index| {
        let filter = &policy.filters[index];
        (FilterRef::Host(index), &filter.matches, filter.action.into())
    });
    let is_dialled = provider_at(policy, question.listener).is_some();
    let around = is_dialled.then_some(Fate::Dialled);
    append(&mut filters, &mut decided, hosts, around, Around { policy, question, decision: &decision });

    for at in by_key(&policy.providers, |provider| provider.rank) {
        let provider = &policy.providers[at];
        let own = by_key(&provider.filters, |filter| Reverse(filter.weight)).into_iter().map(|index| {
            let filter = &provider.filters[index];
            (FilterRef::Provider { provider: at, filter: index }, &filter.matches, (&filter.action).into())
        });
        let around = if is_dialled { Some(Fate::Dialled) } else { not_asked(policy, question, provider) };
        append(&mut filters, &mut decided, own, around, Around { policy, question, decision: &decision });
    }
    Explanation { decision, filters }
}

/// Follows a flow from its first connection until it is at its destination or is refused, as far as that can be told.
///
/// Takes for granted that those who are not among the dead of `start` are alive at every hop, that services go on to the
/// destination that they are told, and of each what its [`Stop::Service`] says. Where `start` has strayed, what the next
/// services are themselves is not known, and what holds for the origin is all that is judged. At most as many hops as
/// there are providers, and one more.
pub fn walk(policy: &Policy, start: &Question) -> Vec<Hop> {
    let policy = &seen_from(policy, start.remote);
    let mut hops = Vec::new();
    let mut question = *start;
    loop {
        let explanation = explain(policy, &question);
        let record = explanation.decision.record(policy, &question);
        let to = stop(policy, &explanation.decision);
        hops.push(Hop { question, explanation, to });
        let Stop::Service { provider, .. } = to else { return hops };
        question = Question { record, dialer: Some(provider), who: carried_on(question.who), ..question };
    }
}

/// What one owner's filters are asked about.
#[derive(Clone, Copy)]
struct Around<'a> {
    policy: &'a Policy,
    question: &'a Question,
    decision: &'a Decision,
}

/// Appends the fates of one owner's filters, the heaviest first. `fate`: all of them have it. `decided`: by whom.
fn append<'p>(
    fates: &mut Vec<(FilterRef, Fate)>,
    decided: &mut Option<FilterRef>,
    filters: impl Iterator<Item = (FilterRef, &'p Match, Effect)>,
    fate: Option<Fate>,
    Around { policy, question, decision }: Around<'_>,
) {
    let before = *decided;
    let mut heaviest = None;
    for (filter, matches, effect) in filters {
        let fate = fate.unwrap_or_else(|| {
            if let Some(mismatch) = matches.mismatch(effect, policy, question) {
                return Fate::Mismatch(mismatch);
            }
            if let Some(before) = before {
                return Fate::TooLate(before);
            }
            if let Some(heaviest) = heaviest {
                return Fate::Outweighed(heaviest);
            }
            heaviest = Some(filter);
            if decision.filter == Some(filter) {
                *decided = Some(filter);
                return Fate::Decides;
            }
            if effect == Effect::Skip { Fate::Skips } else { Fate::DeadAndOpen }
        });
        fates.push((filter, fate));
    }
}

/// Why a provider is not asked.
fn not_asked(policy: &Policy, question: &Question, provider: &Provider) -> Option<Fate> {
    if question.record.is_none() && provider_at(policy, question.dialer).is_some_and(|(_, dialer)| dialer.direct) {
        return Some(Fate::Terminal);
    }
    let floor = question.floor(policy).filter(|&floor| provider.rank <= floor)?;
    Some(Fate::BelowFloor { floor })
}

fn stop(policy: &Policy, decision: &Decision) -> Stop {
    match (decision.verdict, provider_at(policy, decision.provider)) {
        (Verdict::Pass, _) => Stop::Destination,
        (Verdict::Direct, Some((provider, _))) => Stop::Proxy { provider },
        (Verdict::Redirect, Some((at, provider))) => {
            let assumed = match provider.service {
                Service::Aware => Assumed::SetsRecord,
                Service::Unaware => Assumed::OneIdentity,
            };
            Stop::Service { provider: at, assumed }
        }
        (Verdict::Refuse, _) | (Verdict::Redirect | Verdict::Direct, None) => Stop::Nowhere,
    }
}

/// Of a service that goes on to the destination in the name of `who`. What it is itself the policy does not tell.
fn carried_on(who: Who) -> Who {
    match who {
        Who::Known(_) | Who::Ambiguous { own: None, .. } => who,
        Who::Strayed { origin, .. } | Who::Ambiguous { origin, .. } => Who::Ambiguous { origin, own: Some(origin) },
    }
}

/// A policy that says the same of connections to `remote`, with only such prefixes as cover it. Long lists are gone
/// through once instead of for each filter that has them.
fn seen_from(policy: &Policy, remote: SocketAddr) -> Policy {
    let mut seen = HashMap::new();
    let mut policy = policy.clone();
    policy.filters.iter_mut().for_each(|filter| narrow(&mut filter.matches.remote, remote.ip(), &mut seen));
    for filter in policy.providers.iter_mut().flat_map(|provider| &mut provider.filters) {
        narrow(&mut filter.matches.remote, remote.ip(), &mut seen);
    }
    policy
}

/// `seen` keeps the list it is about, so that its place is not taken by another.
type Seen = HashMap<(*const Prefix, usize), (Arc<[Prefix]>, Arc<[Prefix]>)>;

fn narrow(remote: &mut Condition<Prefix>, ip: IpAddr, seen: &mut Seen) {
    for list in remote.only.iter_mut().flatten().chain(&mut remote.except) {
        let (_, covering) = seen.entry((list.as_ptr(), list.len())).or_insert_with(|| {
            let covering = list.iter().filter(|prefix| prefix.covers(ip)).copied().collect();
            (list.clone(), covering)
        });
        *list = covering.clone();
    }
}
