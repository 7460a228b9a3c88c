//! The reference decision, on the model alone.
//!
//! Written as the rules are said ("the heaviest filter that matches", "the lowest rank above the floor"), not as the
//! kernel program walks them, so that a mistake in one is not repeated in the other.

use std::net::SocketAddr;

use carnet_abi::MAX_HOPS;

use crate::matching::Effect;
use crate::{Action, FilterRef, HostAction, Identity, Match, OnDead, Policy, Protocol, Provider, Providers, Who};

/// One connection, as the decision sees it. Providers are named by their position in [`Policy::providers`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Question {
    /// Where the connection goes.
    pub remote: SocketAddr,
    /// What of IP it is.
    pub protocol: Protocol,
    /// Who makes it.
    pub who: Who,
    /// The record it carries or inherits; `None` for an application's own.
    pub record: Option<Carried>,
    /// The provider whose owner makes the connection.
    pub dialer: Option<usize>,
    /// The provider whose listener `remote` is.
    pub listener: Option<usize>,
    /// Those who have nobody of their own listening.
    pub dead: Providers,
}

/// What the decision needs of a record.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Carried {
    /// Highest rank the flow has had, as it was when the flow had it.
    pub floor: u16,
    /// Hops so far.
    pub depth: u32,
}

/// What happens to a connection, and why.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The provider concerned.
    pub provider: Option<usize>,
    /// The filter that decided.
    pub filter: Option<FilterRef>,
}

/// What happens to a connection. The numbers are those of the kernel program.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u32)]
pub enum Verdict {
    /// To its destination.
    Pass = carnet_abi::VERDICT_PASS,
    /// To the provider's listener.
    Redirect = carnet_abi::VERDICT_REDIRECT,
    /// It was dialled to the provider's listener, may go on, and gets a record.
    Direct = carnet_abi::VERDICT_DIRECT,
    /// `connect()` fails.
    Refuse = carnet_abi::VERDICT_REFUSE,
}

/// Why. The numbers are those of the kernel program, which knows further reasons outside the decision.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[repr(u32)]
pub enum Reason {
    /// A filter said so, or the listener may be dialled.
    Rule = carnet_abi::REASON_RULE,
    /// No filter matched.
    Default = carnet_abi::REASON_DEFAULT,
    /// The provider is dead and closed: `ECONNREFUSED`.
    Dead = carnet_abi::REASON_DEAD,
    /// A filter or the default said block: `EACCES`.
    Blocked = carnet_abi::REASON_BLOCKED,
    /// A service dialled its own listener, or one that is not above its floor: `ELOOP`.
    OwnListener = carnet_abi::REASON_OWN_LISTENER,
    /// The listener may not be dialled directly: `ECONNREFUSED`.
    NotDirect = carnet_abi::REASON_NOT_DIRECT,
    /// An explicit proxy's connection without a record is not redirected.
    Terminal = carnet_abi::REASON_TERMINAL,
    /// The record is full: `ELOOP`.
    TooDeep = carnet_abi::REASON_TOO_DEEP,
}

/// Decides one connection.
///
/// - A provider's listener is dialled only where the provider is [`direct`](Provider::direct), and only upwards: its
///   rank is above the floor. Never by its own owner.
/// - The host's filters; then each provider above the floor by rising rank; then the default. Of one set of filters the
///   heaviest match decides, the first given among equals.
/// - A filter matches where all its conditions hold, those on who connects for the application that the connection is
///   for, at every hop. [`Who`] says what holds where that is not certain.
/// - A direct provider is terminal where it forgets: no provider gets its connections without a record.
///
/// Every redirect goes to a rank above [`Question::floor`], and that is at least the dialer's rank. This is the list
/// model of WFP's redirect states (under one policy a provider that is in the chain never gets the
/// flow again, R60 and R62) made to hold for services that drop the record as well (R61).
pub fn decide(policy: &Policy, question: &Question) -> Decision {
    if let Some((at, listener)) = provider_at(policy, question.listener) {
        return decide_dialled(policy, question, at, listener);
    }
    if let Some(decision) = decide_host(policy, question) {
        return decision;
    }
    if let Some((_, dialer)) = provider_at(policy, question.dialer)
        && dialer.direct
        && question.record.is_none()
    {
        return decide_default(policy, Reason::Terminal);
    }

    let mut floor = question.floor(policy);
    while let Some((at, provider)) = lowest_above(policy, floor) {
        if let Some(decision) = decide_provider(policy, question, at, provider) {
            return decision;
        }
        floor = Some(provider.rank);
    }
    decide_default(policy, Reason::Default)
}

impl Question {
    /// An application's TCP connection, by nobody in particular, with all providers alive.
    pub fn to(remote: SocketAddr) -> Self {
        Self {
            remote,
            protocol: Protocol::Tcp,
            who: Who::Known(Identity::default()),
            record: None,
            dialer: None,
            listener: None,
            dead: Providers::NONE,
        }
    }

    /// Only providers of a higher rank may get the connection. The highest of the ranks the flow has had and the
    /// dialer's own; `None` for an application, below every rank.
    pub fn floor(&self, policy: &Policy) -> Option<u16> {
        let dialer = provider_at(policy, self.dialer).map(|(_, provider)| provider.rank);
        let record = self.record.map(|record| record.floor);
        dialer.max(record)
    }

    pub(crate) fn depth(&self) -> u32 {
        self.record.map_or(0, |record| record.depth)
    }
}

impl Decision {
    /// What the record of the connection says once the provider has it; `None` where no provider gets it.
    pub fn record(&self, policy: &Policy, question: &Question) -> Option<Carried> {
        if !matches!(self.verdict, Verdict::Redirect | Verdict::Direct) {
            return None;
        }
        let (_, provider) = provider_at(policy, self.provider)?;
        let floor = question.floor(policy).map_or(provider.rank, |floor| floor.max(provider.rank));
        Some(Carried { floor, depth: question.depth() + 1 })
    }

    fn new(verdict: Verdict, reason: Reason) -> Self {
        Self { verdict, reason, provider: None, filter: None }
    }

    fn on(self, provider: usize) -> Self {
        Self { provider: Some(provider), ..self }
    }

    fn by(self, filter: FilterRef) -> Self {
        Self { filter: Some(filter), ..self }
    }
}

/// A connection to a provider's own listener.
fn decide_dialled(policy: &Policy, question: &Question, at: usize, listener: &Provider) -> Decision {
    let refuse = |reason| Decision::new(Verdict::Refuse, reason).on(at);
    if question.dialer == Some(at) {
        return refuse(Reason::OwnListener);
    }
    if !listener.direct {
        return refuse(Reason::NotDirect);
    }
    if Some(listener.rank) <= question.floor(policy) {
        return refuse(Reason::OwnListener);
    }
    if question.depth() as usize >= MAX_HOPS {
        return refuse(Reason::TooDeep);
    }
    Decision::new(Verdict::Direct, Reason::Rule).on(at)
}

fn decide_host(policy: &Policy, question: &Question) -> Option<Decision> {
    let filters = policy.filters.iter().map(|filter| (filter.weight, &filter.matches, filter.action.into()));
    let index = heaviest(filters, policy, question)?;
    let decision = match policy.filters[index].action {
        HostAction::Permit => Decision::new(Verdict::Pass, Reason::Rule),
        HostAction::Block => Decision::new(Verdict::Refuse, Reason::Blocked),
    };
    Some(decision.by(FilterRef::Host(index)))
}

/// No filter decides; `reason` is why, where the connection may go on.
fn decide_default(policy: &Policy, reason: Reason) -> Decision {
    match policy.default {
        HostAction::Permit => Decision::new(Verdict::Pass, reason),
        HostAction::Block => Decision::new(Verdict::Refuse, Reason::Blocked),
    }
}

/// `None`: the provider is passed over.
fn decide_provider(policy: &Policy, question: &Question, at: usize, provider: &Provider) -> Option<Decision> {
    let filters = provider.filters.iter().map(|filter| (filter.weight, &filter.matches, (&filter.action).into()));
    let index = heaviest(filters, policy, question)?;
    let decision = match provider.filters[index].action {
        Action::Skip => return None,
        Action::Block => Decision::new(Verdict::Refuse, Reason::Blocked),
        Action::Redirect { .. } if question.dead.contains(at) => match provider.on_dead {
            OnDead::Open => return None,
            OnDead::Closed => Decision::new(Verdict::Refuse, Reason::Dead),
        },
        Action::Redirect { .. } if question.depth() as usize >= MAX_HOPS => {
            Decision::new(Verdict::Refuse, Reason::TooDeep)
        }
        Action::Redirect { .. } => Decision::new(Verdict::Redirect, Reason::Rule),
    };
    Some(decision.on(at).by(FilterRef::Provider { provider: at, filter: index }))
}

pub(crate) fn provider_at(policy: &Policy, at: Option<usize>) -> Option<(usize, &Provider)> {
    let at = at?;
    Some((at, policy.providers.get(at)?))
}

/// The next provider in rank order.
pub(crate) fn lowest_above(policy: &Policy, floor: Option<u16>) -> Option<(usize, &Provider)> {
    let above = policy.providers.iter().enumerate().filter(|(_, provider)| Some(provider.rank) > floor);
    above.min_by_key(|(_, provider)| provider.rank)
}

/// Index of the heaviest filter that matches, the first given among equals.
fn heaviest<'p>(
    filters: impl Iterator<Item = (u32, &'p Match, Effect)>,
    policy: &Policy,
    question: &Question,
) -> Option<usize> {
    let is_match = |&(_, (_, matches, effect)): &(usize, (u32, &Match, Effect))| {
        matches.mismatch(effect, policy, question).is_none()
    };
    let matching = filters.enumerate().filter(is_match);
    // Not `max_by_key`, which takes the last among equals.
    matching.min_by_key(|&(_, (weight, ..))| std::cmp::Reverse(weight)).map(|(index, _)| index)
}
