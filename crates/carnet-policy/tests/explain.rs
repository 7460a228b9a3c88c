//! Explanations say what the decision says, of every filter, and walks are what flows do.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use carnet_policy::testing::plain_provider;
use carnet_policy::{
    Action, Assumed, Condition, Fate, Filter, FilterRef, HostAction, HostFilter, Identity, Match, Mismatch, OnDead,
    Part, Policy, Prefix, Provider, Providers, Question, Reason, Service, Stop, Verdict, Who, decide, explain, testing,
    walk,
};
use proptest::prelude::*;

#[test]
fn each_filter_that_lost_says_why() {
    let mut policy = policy();
    policy.filters = vec![host_filter("backup", 1, Match::default().to(ip("192.0.2.9")), HostAction::Permit)];
    policy.providers[0].filters = vec![
        filter("light", 1, Match::default(), redirect()),
        filter("web", 2, Match::default().on_ports(80..=80), redirect()),
        filter("tls", 3, Match::default().on_ports(443..=443), Action::Block),
    ];
    policy.providers[1].filters = vec![filter("later", 1, Match::default(), redirect())];
    let of = |provider, filter| FilterRef::Provider { provider, filter };
    let explanation = explain(&policy, &Question::to(addr("192.0.2.7:80")));
    assert_eq!(explanation.decision.verdict, Verdict::Redirect);
    let expected = [
        (FilterRef::Host(0), Fate::Mismatch(Mismatch::Condition(Part::Remote))),
        (of(0, 2), Fate::Mismatch(Mismatch::Condition(Part::Ports))),
        (of(0, 1), Fate::Decides),
        (of(0, 0), Fate::Outweighed(of(0, 1))),
        (of(1, 0), Fate::TooLate(of(0, 1))),
        (of(2, 0), Fate::TooLate(of(0, 1))),
    ];
    assert_eq!(explanation.filters, expected);
}

#[test]
fn the_first_condition_that_does_not_hold_is_told() {
    let me = Identity { uid: 1000, gid: 100, netns: 7, ..Identity::default() };
    for (matches, expected) in [
        (Match { uids: Condition::only([0..=999]), ..Match::default() }, Part::Uid),
        (Match { gids: Condition::except([100..=100]), ..Match::default() }, Part::Gid),
        (Match { netns: Condition::only([8]), gids: Condition::only([0..=99]), ..Match::default() }, Part::Gid),
        (Match { netns: Condition::only([8]), ..Match::default() }, Part::Netns),
        (Match { via: Condition::only([1]), netns: Condition::only([8]), ..Match::default() }, Part::Via),
    ] {
        let mut policy = policy();
        policy.filters = vec![host_filter("one", 1, matches, HostAction::Block)];
        let explanation = explain(&policy, &Question { who: Who::Known(me), ..Question::to(addr("192.0.2.7:80")) });
        assert_eq!(explanation.filters[0].1, Fate::Mismatch(Mismatch::Condition(expected)));
    }
}

#[test]
fn a_filter_that_lets_through_by_identity_says_that_the_origin_is_uncertain() {
    let mut policy = policy();
    let apt = Match { uids: Condition::only([42..=42]), ..Match::default() };
    policy.filters = vec![host_filter("apt", 1, apt, HostAction::Permit)];
    let own = Identity { uid: 42, ..Identity::default() };
    let first = |who| explain(&policy, &Question { who, ..Question::to(addr("192.0.2.7:80")) }).filters[0].1;
    assert_eq!(first(Who::Known(own)), Fate::Decides);
    assert_eq!(first(Who::Ambiguous { origin: own, own: None }), Fate::Mismatch(Mismatch::Uncertain));
    assert_eq!(first(Who::Strayed { origin: own, own }), Fate::Mismatch(Mismatch::Uncertain));
}

#[test]
fn providers_that_are_not_asked_say_so() {
    let mut policy = policy();
    policy.providers[0].direct = true;
    let fates = |question| explain(&policy, &question).filters.into_iter().map(|(_, fate)| fate).collect::<Vec<_>>();
    let to = Question::to(addr("192.0.2.7:80"));
    assert_eq!(fates(Question { dialer: Some(0), ..to }), [Fate::Terminal; 3]);
    let last = fates(Question { dialer: Some(1), ..to });
    assert_eq!(last[..2], [Fate::BelowFloor { floor: 20 }; 2]);
    assert_eq!(last[2], Fate::Decides);
    assert_eq!(fates(Question { listener: Some(0), ..to }), [Fate::Dialled; 3]);
}

#[test]
fn a_walk_passes_every_service_that_wants_the_flow_and_arrives() {
    let mut policy = policy();
    policy.providers[1].service = Service::Unaware;
    let start = Question::to(addr("192.0.2.7:80"));
    let stops: Vec<Stop> = walk(&policy, &start).iter().map(|hop| hop.to).collect();
    let service = |provider, assumed| Stop::Service { provider, assumed };
    let expected = [
        service(0, Assumed::SetsRecord),
        service(1, Assumed::OneIdentity),
        service(2, Assumed::SetsRecord),
        Stop::Destination,
    ];
    assert_eq!(stops, expected);

    policy.providers[1].on_dead = OnDead::Open;
    let dead: Providers = [1].into_iter().collect();
    let hops = walk(&policy, &Question { dead, ..start });
    assert_eq!(hops.len(), 3);
    assert!(hops[1].explanation.filters.contains(&(FilterRef::Provider { provider: 1, filter: 0 }, Fate::DeadAndOpen)));

    policy.providers[1].on_dead = OnDead::Closed;
    let hops = walk(&policy, &Question { dead, ..start });
    assert_eq!((hops.len(), hops[1].to), (2, Stop::Nowhere));
    assert_eq!(hops[1].explanation.decision.reason, Reason::Dead);
}

#[test]
fn nobody_knows_where_an_explicit_proxy_goes() {
    let mut policy = policy();
    policy.providers[2].direct = true;
    let remote = policy.providers[2].listeners[0];
    let hops = walk(&policy, &Question { listener: policy.listener_at(remote), ..Question::to(remote) });
    assert_eq!(hops.iter().map(|hop| hop.to).collect::<Vec<_>>(), [Stop::Proxy { provider: 2 }]);
}

/// A million prefixes that every filter has are gone through once.
#[test]
fn long_lists_that_filters_share_do_not_make_it_slow() {
    let mut policy = policy();
    let prefix = |bits: u32| Prefix { address: IpAddr::from((bits << 8).to_be_bytes()), length: 24 };
    let list: Arc<[Prefix]> = (0..1_000_000).map(prefix).collect();
    let matches = Match { remote: Condition { only: Some(vec![list]), except: Vec::new() }, ..Match::default() };
    policy.providers[2].filters = vec![filter("listed", 1, matches, redirect()); 4000];
    let begin = std::time::Instant::now();
    let hops = walk(&policy, &Question::to(addr("255.0.0.1:80")));
    assert_eq!(hops.len(), 3);
    // Filter by filter it would be 12 billion comparisons.
    assert!(begin.elapsed().as_secs() < 5, "took {:?}", begin.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_explanation_is_of_the_decision(
        (policy, questions) in testing::small_policy().prop_flat_map(|policy| {
            let questions = prop::collection::vec(testing::question(&policy), 16);
            (Just(policy), questions)
        })
    ) {
        for question in questions {
            let explanation = explain(&policy, &question);
            let decision = decide(&policy, &question);
            prop_assert_eq!(explanation.decision, decision);

            let image = policy.compile(1).unwrap();
            let order: Vec<FilterRef> = explanation.filters.iter().map(|(filter, _)| *filter).collect();
            prop_assert_eq!(&order, &image.filters);
            let deciding = explanation.filters.iter().filter(|(_, fate)| *fate == Fate::Decides);
            prop_assert_eq!(Vec::from_iter(deciding.map(|(filter, _)| *filter)), Vec::from_iter(decision.filter));

            // A filter that matched and is named by another as the reason did match.
            let matched: BTreeSet<usize> = (0..order.len())
                .filter(|&at| matches!(explanation.filters[at].1, Fate::Decides | Fate::Skips | Fate::DeadAndOpen))
                .collect();
            for (at, (_, fate)) in explanation.filters.iter().enumerate() {
                if let Fate::Outweighed(by) | Fate::TooLate(by) = fate {
                    let by = order.iter().position(|filter| filter == by).unwrap();
                    prop_assert!(by < at && matched.contains(&by));
                }
            }
        }
    }

    #[test]
    fn taking_a_filter_away_that_lost_changes_nothing(
        (policy, question) in testing::small_policy().prop_flat_map(|policy| {
            let question = testing::question(&policy);
            (Just(policy), question)
        })
    ) {
        for (filter, fate) in explain(&policy, &question).filters {
            if matches!(fate, Fate::Decides | Fate::Skips | Fate::DeadAndOpen) {
                continue;
            }
            let mut without = policy.clone();
            // Replaced instead of removed, so that all others keep their places.
            match filter {
                FilterRef::Host(filter) => without.filters[filter].matches = nothing(),
                FilterRef::Provider { provider, filter } => {
                    without.providers[provider].filters[filter].matches = nothing();
                }
            }
            prop_assert_eq!(decide(&without, &question), decide(&policy, &question), "without {:?}: {:?}", filter, fate);
        }
    }

    #[test]
    fn a_walk_ends(
        (policy, question) in testing::small_policy().prop_flat_map(|policy| {
            let question = testing::question(&policy);
            (Just(policy), question)
        })
    ) {
        let hops = walk(&policy, &question);
        prop_assert!(hops.len() <= policy.providers.len() + 1);
        let (last, before) = hops.split_last().unwrap();
        let is_service = |stop: &Stop| matches!(stop, Stop::Service { .. });
        prop_assert!(before.iter().all(|hop| is_service(&hop.to)) && !is_service(&last.to));
        for hop in &hops {
            prop_assert_eq!(hop.explanation.decision, decide(&policy, &hop.question));
        }
    }
}

fn nothing() -> Match {
    Match { ports: Condition { only: Some(Vec::new()), except: Vec::new() }, ..Match::default() }
}

/// Three providers that redirect everything, of ranks 10, 20 and 30.
fn policy() -> Policy {
    let all = || vec![filter("all", 1, Match::default(), redirect())];
    let provider = |index| Provider { filters: all(), ..plain_provider(index) };
    Policy { providers: (0..3).map(provider).collect(), ..Policy::default() }
}

fn filter(name: &str, weight: u32, matches: Match, action: Action) -> Filter {
    Filter { name: name.into(), weight, matches, action }
}

fn host_filter(name: &str, weight: u32, matches: Match, action: HostAction) -> HostFilter {
    HostFilter { name: name.into(), weight, matches, action }
}

fn redirect() -> Action {
    Action::Redirect { context: Vec::new() }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
