//! The model flattened for the kernel program: providers by rank, filters in the order of the decision.

use std::cmp::Reverse;
use std::net::IpAddr;

use carnet_abi as abi;

use crate::{
    Action, Decision, Error, FilterRef, HostAction, HostFilter, Match, OnDead, Owner, Policy, Provider, Question,
    Reach, Service, SockName,
};

/// A policy as the kernel program evaluates it, and the way back to the model.
///
/// Filter ids count from 1 in the order of the decision. A context's key is made of the generation and its filter's id,
/// so images of [`Image::GENERATIONS`] consecutive generations never share one: contexts of a new image can be written
/// before it is in force, and those of the old one removed after, with flows being decided meanwhile.
#[derive(Clone, Debug)]
pub struct Image {
    /// What the kernel program reads.
    pub policy: Box<abi::Policy>,
    /// Keys, never 0, and values of the context map.
    pub contexts: Vec<(u32, abi::Context)>,
    /// For each provider of `policy`, its position in [`Policy::providers`].
    pub providers: Vec<usize>,
    /// For each rule of `policy`, its filter; the filter with id `n` is at `n - 1`.
    pub filters: Vec<FilterRef>,
}

impl Policy {
    /// Checks the policy and flattens it. Generations are counted up by the engine; see [`Image`] for what depends on
    /// them.
    pub fn compile(&self, generation: u64) -> Result<Image, Error> {
        self.validate()?;

        let mut image = Image {
            policy: Box::new(abi::Policy {
                generation,
                default_action: host_action(self.default),
                flags: flags(&[(self.block_quic, abi::POLICY_BLOCK_QUIC), (self.strict, abi::POLICY_STRICT)]),
                ..Default::default()
            }),
            contexts: Vec::new(),
            providers: by_key(&self.providers, |provider| provider.rank),
            filters: Vec::new(),
        };
        for filter in by_key(&self.filters, |filter| Reverse(filter.weight)) {
            let HostFilter { matches, action, .. } = &self.filters[filter];
            image.push_rule(FilterRef::Host(filter), matches, abi::NONE, host_action(*action), &[]);
        }
        for (index, provider) in image.providers.clone().into_iter().enumerate() {
            let model = &self.providers[provider];
            image.policy.provider[index] = compile_provider(model);
            for filter in by_key(&model.filters, |filter| Reverse(filter.weight)) {
                let (action, context) = match &model.filters[filter].action {
                    Action::Redirect { context } => (abi::ACTION_REDIRECT, &context[..]),
                    Action::Skip => (abi::ACTION_SKIP, &[][..]),
                    Action::Block => (abi::ACTION_BLOCK, &[][..]),
                };
                let matches = &model.filters[filter].matches;
                image.push_rule(FilterRef::Provider { provider, filter }, matches, index as u32, action, context);
            }
        }
        image.policy.providers = image.providers.len() as u32;
        image.policy.rules = image.filters.len() as u32;
        Ok(image)
    }
}

impl Image {
    /// How many consecutive generations have context keys of their own.
    pub const GENERATIONS: u64 = 1 << (32 - FILTER_BITS);

    /// The filter with this id, or `None` where the image has none (0 is "no filter" in hops and events).
    pub fn filter(&self, id: u32) -> Option<FilterRef> {
        self.filters.get(usize::try_from(id).ok()?.checked_sub(1)?).copied()
    }

    /// The question as the kernel program is asked it, with no answer yet.
    pub fn question(&self, question: &Question, slot: u32) -> abi::Question {
        let dead = (0..self.providers.len()).filter(|&index| question.dead >> self.providers[index] & 1 == 1);
        abi::Question {
            remote: question.remote.into(),
            slot,
            floor: question.record.map_or(-1, |record| i32::from(record.floor)),
            dialer: self.provider_index(question.dialer),
            listener: self.provider_index(question.listener),
            has_record: question.record.is_some().into(),
            depth: question.record.map_or(0, |record| record.depth),
            dead: dead.fold(0, |bits, index| bits | 1 << index),
            verdict: 0,
            reason: 0,
            provider: abi::NONE,
            rule: abi::NONE,
            pad: 0,
        }
    }

    /// `question` with `decision` filled in as the kernel program would answer it.
    pub fn answer(&self, question: abi::Question, decision: &Decision) -> abi::Question {
        abi::Question {
            verdict: decision.verdict as u32,
            reason: decision.reason as u32,
            provider: self.provider_index(decision.provider),
            rule: index_in(&self.filters, decision.filter),
            ..question
        }
    }

    fn provider_index(&self, position: Option<usize>) -> u32 {
        index_in(&self.providers, position)
    }

    fn push_rule(&mut self, filter: FilterRef, matches: &Match, provider: u32, action: u32, context: &[u8]) {
        let (prefix, prefix_len) = mapped_prefix(matches);
        self.filters.push(filter);
        let id = self.filters.len() as u32;
        self.policy.rule[self.filters.len() - 1] = abi::Rule {
            prefix,
            prefix_len,
            port_min: *matches.ports.start(),
            port_max: *matches.ports.end(),
            provider,
            action,
            filter: id,
            context: self.push_context(id, context),
        };
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

/// The prefix in the v4-mapped form, bits after its length cleared.
fn mapped_prefix(matches: &Match) -> ([u8; 16], u32) {
    let Some(prefix) = matches.remote else { return ([0; 16], 0) };
    let (mut octets, length) = match prefix.address {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), usize::from(prefix.length) + 96),
        IpAddr::V6(v6) => (v6.octets(), usize::from(prefix.length)),
    };
    for (index, octet) in octets.iter_mut().enumerate() {
        let bits = length.saturating_sub(index * 8).min(8);
        *octet &= !(0xff_u32 >> bits) as u8;
    }
    (octets, length as u32)
}

fn host_action(action: HostAction) -> u32 {
    match action {
        HostAction::Permit => abi::ACTION_PERMIT,
        HostAction::Block => abi::ACTION_BLOCK,
    }
}

/// Positions of `items` by rising key, equal ones in the order given.
fn by_key<T, K: Ord>(items: &[T], key: impl Fn(&T) -> K) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..items.len()).collect();
    positions.sort_by_key(|&position| key(&items[position]));
    positions
}

fn index_in<T: PartialEq>(items: &[T], item: Option<T>) -> u32 {
    item.and_then(|item| items.iter().position(|other| *other == item)).map_or(abi::NONE, |index| index as u32)
}

/// Filter ids are 1..=[`abi::MAX_RULES`].
const FILTER_BITS: u32 = 9;
const _: () = assert!(abi::MAX_RULES < 1 << FILTER_BITS);
