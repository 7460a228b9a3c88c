//! Generated policies of up to 16 providers, and services that behave in any way.

use std::net::SocketAddr;

use carnet_abi::MAX_HOPS;
use carnet_policy::{
    Action, Decision, Filter, HostAction, Match, OnDead, Policy, Providers, Question, Reason, Verdict, decide, testing,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::walk::{Behaviour, Carries, Dials, End, Guard, Walk, World};
use crate::world::{DESTINATIONS, blank};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn registered_services(flow in flow(&REGISTERED)) {
        let (walk, end) = flow.follow();
        let trail = || format!("ended {end:?} after {:#?}", walk.steps);
        prop_assert!(walk.steps.len() <= flow.policies[0].providers.len(), "{}", trail());
        prop_assert!(walk.steps.is_sorted_by(|a, b| a.rank < b.rank), "no provider twice: {}", trail());
        prop_assert_ne!(end, End::Refused(Reason::TooDeep), "there are no more providers than hops: {}", trail());
    }

    #[test]
    fn services_with_processes_outside(flow in flow(&ALL), in_flight_limit in 1..=2_u32) {
        let flow = flow.limited(in_flight_limit);
        let (walk, end) = flow.follow();
        // A provider is reached by redirect of either destination, and by its first listener.
        let most = 3 * flow.policies[0].providers.len() * in_flight_limit as usize;
        prop_assert!(most < Walk::ENDLESS, "the bound must be one that a loop passes");
        prop_assert!(walk.steps.len() <= most, "ended {:?} after {:#?}", end, walk.steps);
    }

    #[test]
    fn policies_that_change_under_the_flow(flow in flow(&REGISTERED), ranks in vec(rank_order(), 0..6)) {
        let flow = flow.reranked(&ranks);
        let (walk, end) = flow.follow();
        let trail = || format!("ended {end:?} after {:#?}", walk.steps);
        for policy in walk.steps.chunk_by(|a, b| a.generation == b.generation) {
            prop_assert!(policy.is_sorted_by(|a, b| a.rank < b.rank), "{}", trail());
        }
        for step in &walk.steps {
            prop_assert!(Some(step.rank) > step.floor, "{}", trail());
        }
        if walk.steps.iter().all(|step| step.behaviour.carries == Carries::Record) {
            prop_assert!(walk.steps.len() <= MAX_HOPS, "{}", trail());
        }
        prop_assert_ne!(end, End::Loop, "{}", trail());
    }

    #[test]
    fn aware_services_have_the_flow_once_each_in_rank_order(flow in dense_policy().prop_flat_map(aware_flow)) {
        let (walk, end) = flow.follow();
        let visited: Vec<usize> = walk.steps.iter().map(|step| step.provider).collect();
        let policy = &flow.policies[0];
        let mut by_rank: Vec<usize> = (0..policy.providers.len()).collect();
        by_rank.sort_by_key(|&provider| policy.providers[provider].rank);
        let dead = |provider: usize| flow.dead.contains(provider);
        let closed = |provider: usize| dead(provider) && policy.providers[provider].on_dead == OnDead::Closed;
        let refused_at = by_rank.iter().position(|&provider| closed(provider));
        let before = &by_rank[..refused_at.unwrap_or(by_rank.len())];
        let expected: Vec<usize> = before.iter().copied().filter(|&provider| !dead(provider)).collect();
        prop_assert_eq!(visited, expected);
        let reason = if refused_at.is_some() { End::Refused(Reason::Dead) } else { End::Passed(Reason::Default) };
        prop_assert_eq!(end, reason);
    }
}

/// At every connection the other of two providers is put above the flow. The record ends it.
#[test]
fn a_flow_that_ranks_rise_before_ends_when_its_record_is_full() {
    let policy = |generation: u16| {
        let mut policy = blank(2, 0);
        let above = usize::from(generation % 2);
        policy.providers[above].rank = 1 + generation;
        policy.providers[1 - above].rank = 0;
        policy
    };
    let flow = Flow {
        policies: std::iter::once(1).chain(1..40).map(policy).collect(),
        behaviours: vec![Behaviour { dials: Dials::Destination, carries: Carries::Record }; 2],
        dead: Providers::NONE,
        start: None,
        destinations: DESTINATIONS,
    };
    let (walk, end) = flow.follow();
    assert_eq!(end, End::Refused(Reason::TooDeep), "after {:#?}", walk.steps);
    assert_eq!(walk.steps.len(), MAX_HOPS);
}

/// One flow and all it meets.
#[derive(Clone, Debug)]
struct Flow {
    /// The first when it starts, the next at each connection, the last until it ends.
    policies: Vec<Policy>,
    /// Of each provider's service.
    behaviours: Vec<Behaviour>,
    dead: Providers,
    /// A provider's listener; `None`: the first destination.
    start: Option<usize>,
    destinations: [SocketAddr; 2],
}

/// A flow while it is followed.
struct Course<'f> {
    flow: &'f Flow,
    generation: usize,
    connections: usize,
}

impl Flow {
    fn follow(&self) -> (Walk, End) {
        let start =
            self.start.map_or(self.destinations[0], |provider| self.policies[0].providers[provider].listeners[0]);
        let mut walk = Walk::default();
        let mut course = Course { flow: self, generation: 0, connections: 0 };
        let end = walk.follow(&mut course, start, self.destinations, Guard::Full);
        (walk, end)
    }

    fn limited(mut self, in_flight_limit: u32) -> Self {
        for provider in self.policies.iter_mut().flat_map(|policy| &mut policy.providers) {
            provider.in_flight_limit = in_flight_limit;
        }
        self
    }

    fn reranked(mut self, ranks: &[Vec<u16>]) -> Self {
        for ranks in ranks {
            let mut policy = self.policies[0].clone();
            for (provider, &rank) in policy.providers.iter_mut().zip(ranks) {
                provider.rank = rank;
            }
            self.policies.push(policy);
        }
        self
    }
}

impl World for Course<'_> {
    fn policy(&self) -> &Policy {
        &self.flow.policies[self.generation]
    }

    fn decide(&mut self, question: Question) -> Decision {
        let decision = decide(self.policy(), &Question { dead: self.flow.dead, ..question });
        assert!(decision.verdict != Verdict::Redirect || !self.is_dead(decision.provider.expect("redirected to one")));
        decision
    }

    fn is_dead(&mut self, provider: usize) -> bool {
        self.flow.dead.contains(provider)
    }

    fn behaviour(&mut self, provider: usize) -> Behaviour {
        self.flow.behaviours[provider]
    }

    fn tick(&mut self) -> usize {
        self.generation = self.connections.min(self.flow.policies.len() - 1);
        self.connections += 1;
        self.generation
    }
}

fn flow(carries: &'static [Carries]) -> impl Strategy<Value = Flow> {
    prop_oneof![testing::small_policy(), dense_policy()].prop_flat_map(move |policy| {
        let providers = policy.providers.len();
        let upstream = if providers == 0 {
            Just(Dials::Destination).boxed()
        } else {
            (0..providers).prop_map(Dials::Listener).boxed()
        };
        let dials = prop_oneof![3 => Just(Dials::Destination), 1 => Just(Dials::Other), 1 => upstream];
        let behaviour = (dials, select(carries)).prop_map(|(dials, carries)| Behaviour { dials, carries });
        let start = if providers == 0 { Just(None).boxed() } else { prop::option::weighted(0.2, 0..providers).boxed() };
        let dead = dead(2);
        (vec(behaviour, providers), dead, start, testing::remote(&policy), testing::remote(&policy), Just(policy))
            .prop_map(|(behaviours, dead, start, first, second, policy)| Flow {
                policies: vec![policy],
                behaviours,
                dead,
                start,
                destinations: [first, second],
            })
    })
}

fn aware_flow(policy: Policy) -> impl Strategy<Value = Flow> {
    let aware = Behaviour { dials: Dials::Destination, carries: Carries::Record };
    dead(1).prop_map(move |dead| Flow {
        behaviours: vec![aware; policy.providers.len()],
        policies: vec![policy.clone()],
        dead,
        start: None,
        destinations: DESTINATIONS,
    })
}

/// `none` times of `none` + 1 nobody.
fn dead(none: u32) -> impl Strategy<Value = Providers> {
    let any = any::<u16>().prop_map(|bits| (0..MAX_HOPS).filter(|at| bits >> at & 1 == 1).collect());
    prop_oneof![none => Just(Providers::NONE), 1 => any]
}

/// Every provider redirects everything, so that flows are as long as can be.
fn dense_policy() -> impl Strategy<Value = Policy> {
    testing::small_policy().prop_map(|mut policy| {
        policy.default = HostAction::Permit;
        policy.filters.clear();
        for provider in &mut policy.providers {
            let action = Action::Redirect { context: Vec::new() };
            provider.filters = vec![Filter { name: "all".into(), weight: 1, matches: Match::default(), action }];
        }
        policy
    })
}

/// A rank for each of 16 providers, all different.
fn rank_order() -> impl Strategy<Value = Vec<u16>> {
    (0..50_u16, Just((0..MAX_HOPS as u16).collect::<Vec<_>>()).prop_shuffle())
        .prop_map(|(lowest, places)| places.into_iter().map(|place| lowest + 3 * place).collect())
}

const REGISTERED: [Carries; 3] = [Carries::Record, Carries::Nothing, Carries::NothingInACrowd];
const ALL: [Carries; 4] = [Carries::Record, Carries::Nothing, Carries::NothingInACrowd, Carries::Outside];
