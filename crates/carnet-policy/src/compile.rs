//! The model flattened for the kernel program: providers by rank, filters in the order of the decision, and trees that
//! find the filters of a connection.
//!
//! `layout` goes through the dimensions of a connection. For each, `conditions` gathers what the filters ask, `ranges`
//! cuts the dimension where an answer changes, `classes` numbers the sets of filters, and `tree` makes it searchable.

mod bytes;
mod classes;
mod conditions;
mod layout;
mod progress;
mod question;
mod ranges;
mod tree;

use std::cmp::Reverse;

use carnet_abi as abi;

pub use self::bytes::Bytes;
pub use self::progress::Progress;

use self::layout::{Layout, Rule};
use crate::matching::Effect;
use crate::{
    Action, Error, FilterRef, HostAction, OnDead, Owner, Policy, Protocol, Provider, Reach, Service, SockName,
};

/// A policy as the kernel program evaluates it, and the way back to the model.
///
/// Filter ids count from 1 in the order of the decision. A context's key is made of the generation and its filter's id,
/// so images of [`Image::GENERATIONS`] consecutive generations never share one: contexts of a new image can be written
/// before it is in force, and those of the old one removed after, with flows being decided meanwhile.
#[derive(Clone, Debug)]
pub struct Image {
    /// The head, from which the kernel program finds all else.
    pub policy: Box<abi::Policy>,
    /// In the order of the decision.
    pub rules: Vec<abi::Rule>,
    /// Sets of rules. At least the two that are always there.
    pub classes: Vec<abi::Class>,
    /// Of all trees of 32-bit ranges.
    pub nodes32: Vec<abi::Node32>,
    /// Of all trees of 128-bit ranges.
    pub nodes128: Vec<abi::Node128>,
    /// Executables, cgroups and network namespaces that conditions name, and their classes; the slot is 0.
    pub values: Vec<(abi::ValueKey, u16)>,
    /// Keys, never 0, and values of the context map.
    pub contexts: Vec<(u32, abi::Context)>,
    /// For each provider of `policy`, its position in [`Policy::providers`].
    pub providers: Vec<usize>,
    /// For each rule, its filter; the filter with id `n` is at `n - 1`.
    pub filters: Vec<FilterRef>,
}

/// A filter of the host or of a provider.
struct Flat<'p> {
    filter: FilterRef,
    /// Index by rank; [`abi::NONE`]: the host's.
    provider: u32,
    rule: Rule<'p>,
    context: &'p [u8],
}

impl Policy {
    /// Checks the policy and flattens it. Generations are counted up by the engine; see [`Image`] for what depends on
    /// them.
    pub fn compile(&self, generation: u64) -> Result<Image, Error> {
        self.compile_with(generation, &mut |_| {})
    }

    /// As [`Policy::compile`], with a report every few milliseconds.
    pub fn compile_with(&self, generation: u64, progress: &mut dyn FnMut(Progress)) -> Result<Image, Error> {
        self.validate()?;

        let providers = by_key(&self.providers, |provider| provider.rank);
        let flat = self.flatten(&providers);
        let (filters, rules): (Vec<FilterRef>, Vec<Rule<'_>>) =
            flat.iter().map(|flat| (flat.filter, Rule { ..flat.rule })).unzip();
        let policy = Box::new(self.head(generation, &providers, &flat));
        let layout = Layout::new(policy, &rules, &providers, progress).map_err(|mistake| Error::new(vec![mistake]))?;

        let mut image = Image {
            policy: layout.policy,
            rules: Vec::with_capacity(flat.len()),
            classes: layout.classes.into_vec(),
            nodes32: layout.nodes32,
            nodes128: layout.nodes128,
            values: layout.values,
            contexts: Vec::new(),
            providers,
            filters,
        };
        for (flat, id) in flat.iter().zip(1..) {
            let context = image.push_context(id, flat.context);
            let action = action(flat.rule.effect);
            image.rules.push(abi::Rule { provider: flat.provider, action, filter: id, context });
        }
        Ok(image)
    }

    /// All filters in the order of the decision.
    fn flatten(&self, order: &[usize]) -> Vec<Flat<'_>> {
        let mut flat = Vec::new();
        for filter in by_key(&self.filters, |filter| Reverse(filter.weight)) {
            let model = &self.filters[filter];
            let rule = Rule { matches: &model.matches, effect: model.action.into() };
            flat.push(Flat { filter: FilterRef::Host(filter), provider: abi::NONE, rule, context: &[] });
        }
        for (&provider, index) in order.iter().zip(0..) {
            let filters = &self.providers[provider].filters;
            for filter in by_key(filters, |filter| Reverse(filter.weight)) {
                let model = &filters[filter];
                let rule = Rule { matches: &model.matches, effect: (&model.action).into() };
                let context = match &model.action {
                    Action::Redirect { context } => &context[..],
                    Action::Skip | Action::Block => &[],
                };
                flat.push(Flat { filter: FilterRef::Provider { provider, filter }, provider: index, rule, context });
            }
        }
        flat
    }

    /// All of the head that does not depend on trees and classes.
    fn head(&self, generation: u64, order: &[usize], flat: &[Flat<'_>]) -> abi::Policy {
        let blocks_udp =
            |flat: &Flat<'_>| flat.rule.effect.blocks() && flat.rule.matches.protocol != Some(Protocol::Tcp);
        let judges_udp = self.default == HostAction::Block || flat.iter().any(blocks_udp);
        let mut head = abi::Policy {
            generation,
            default_action: action(self.default.into()),
            providers: order.len() as u32,
            rules: flat.len() as u32,
            host_rules: self.filters.len() as u32,
            flags: flags(&[
                (self.block_quic, abi::POLICY_BLOCK_QUIC),
                (self.strict, abi::POLICY_STRICT),
                (judges_udp, abi::POLICY_JUDGES_UDP),
            ]),
            ..Default::default()
        };
        let mut next_rule = head.host_rules;
        for (slot, &provider) in head.provider.iter_mut().zip(order) {
            let provider = &self.providers[provider];
            let end_rule = next_rule + provider.filters.len() as u32;
            *slot = abi::Provider { first_rule: next_rule, end_rule, ..compile_provider(provider) };
            next_rule = end_rule;
        }
        head
    }
}

impl Image {
    /// How many consecutive generations have context keys of their own.
    pub const GENERATIONS: u64 = 1 << (32 - FILTER_BITS);

    /// The filter with this id, or `None` where the image has none (0 is "no filter" in hops and events).
    pub fn filter(&self, id: u32) -> Option<FilterRef> {
        self.filters.get(usize::try_from(id).ok()?.checked_sub(1)?).copied()
    }

    /// Returns the key, or 0 for "none".
    fn push_context(&mut self, filter: u32, bytes: &[u8]) -> u32 {
        if bytes.is_empty() {
            return 0;
        }
        let key = ((self.policy.generation % Self::GENERATIONS) as u32) << FILTER_BITS | filter;
        let mut context = abi::Context { size: bytes.len() as u32, ..Default::default() };
        context.bytes[..bytes.len()].copy_from_slice(bytes);
        self.contexts.push((key, context));
        key
    }
}

fn compile_provider(provider: &Provider) -> abi::Provider {
    let conditions = [
        (provider.service == Service::Unaware, abi::PROVIDER_UNAWARE),
        (provider.on_dead == OnDead::Open, abi::PROVIDER_OPEN),
        (provider.direct, abi::PROVIDER_DIRECT),
        (provider.reach == Reach::Routes, abi::PROVIDER_ROUTES),
        (provider.sockname == SockName::Destination, abi::PROVIDER_SOCKNAME),
    ];
    let mut compiled = abi::Provider {
        handle: provider.handle,
        rank: provider.rank.into(),
        flags: flags(&conditions),
        listeners: provider.listeners.len() as u32,
        owners: provider.owners.len() as u32,
        in_flight_limit: provider.in_flight_limit,
        ..Default::default()
    };
    for (slot, &listener) in compiled.listener.iter_mut().zip(&provider.listeners) {
        *slot = listener.into();
    }
    for (slot, owner) in compiled.owner.iter_mut().zip(&provider.owners) {
        *slot = match *owner {
            Owner::Cgroup { id, level } => {
                abi::Owner { kind: abi::OWNER_CGROUP, cgroup_id: id, cgroup_level: level, ..Default::default() }
            }
            Owner::Uid(uid) => abi::Owner { kind: abi::OWNER_UID, uid, ..Default::default() },
        };
    }
    compiled
}

/// The bits whose condition holds.
fn flags(conditions: &[(bool, u32)]) -> u32 {
    conditions.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag)
}

fn action(effect: Effect) -> u32 {
    match effect {
        Effect::Permit => abi::ACTION_PERMIT,
        Effect::Refuse | Effect::Block => abi::ACTION_BLOCK,
        Effect::Redirect => abi::ACTION_REDIRECT,
        Effect::Skip => abi::ACTION_SKIP,
    }
}

/// Positions of `items` by rising key, equal ones in the order given.
pub(crate) fn by_key<T, K: Ord>(items: &[T], key: impl Fn(&T) -> K) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..items.len()).collect();
    positions.sort_by_key(|&position| key(&items[position]));
    positions
}

/// Filter ids are 1..=[`abi::MAX_RULES`].
const FILTER_BITS: u32 = 13;
const _: () = assert!(abi::MAX_RULES < 1 << FILTER_BITS);
