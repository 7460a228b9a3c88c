//! The reference decision, rule by rule.

use std::net::SocketAddr;

use carnet_policy::testing::plain_provider;
use carnet_policy::{
    Action, Carried, Decision, Filter, FilterRef, HostAction, HostFilter, Match, OnDead, Policy, Provider, Providers,
    Question, Reason, Verdict, decide,
};

#[test]
fn the_lowest_rank_above_the_floor_gets_the_flow() {
    // Positions 0, 1, 2 have ranks 30, 10, 20: the order given means nothing.
    let policy = policy();
    assert_eq!(decide(&policy, &application()), redirect(1));
    assert_eq!(decide(&policy, &carrying(10, 1)), redirect(2));
    assert_eq!(decide(&policy, &carrying(11, 1)), redirect(2));
    assert_eq!(decide(&policy, &carrying(20, 2)), redirect(0));
    assert_eq!(decide(&policy, &carrying(30, 3)), verdict(Verdict::Pass, Reason::Default));
}

#[test]
fn the_floor_is_the_higher_of_the_record_and_the_dialer() {
    let policy = policy();
    assert_eq!(decide(&policy, &Question { dialer: Some(1), ..application() }), redirect(2));
    assert_eq!(decide(&policy, &Question { dialer: Some(2), ..carrying(10, 1) }), redirect(0));
    assert_eq!(decide(&policy, &Question { dialer: Some(1), ..carrying(20, 2) }), redirect(0));
    let forgetful = Question { dialer: Some(0), ..application() };
    assert_eq!(decide(&policy, &forgetful), verdict(Verdict::Pass, Reason::Default));
}

#[test]
fn rank_0_is_above_an_application_and_not_above_itself() {
    let mut policy = policy();
    policy.providers[1].rank = 0;
    assert_eq!(decide(&policy, &application()), redirect(1));
    assert_eq!(decide(&policy, &Question { dialer: Some(1), ..application() }), redirect(2));
    assert_eq!(decide(&policy, &carrying(0, 1)), redirect(2));
}

#[test]
fn the_heaviest_filter_decides_and_the_first_among_equals() {
    let mut policy = policy();
    let filters = [(5, Action::Skip), (7, Action::Block), (7, to_provider()), (6, Action::Skip)];
    policy.providers[1].filters = filters.map(|(weight, action)| filter(weight, action)).into();
    let blocked = verdict(Verdict::Refuse, Reason::Blocked);
    let by = |filter| Some(FilterRef::Provider { provider: 1, filter });
    assert_eq!(decide(&policy, &application()), Decision { provider: Some(1), filter: by(1), ..blocked });

    policy.providers[1].filters.swap(1, 2);
    assert_eq!(decide(&policy, &application()), Decision { filter: by(1), ..redirect(1) });

    policy.providers[1].filters[0].weight = 8;
    assert_eq!(decide(&policy, &application()), redirect(2), "skip goes to the next provider");
}

#[test]
fn a_filter_that_does_not_match_says_nothing() {
    let mut policy = policy();
    policy.providers[1].filters[0].matches = Match::default().on_ports(81..=u16::MAX);
    assert_eq!(decide(&policy, &application()), redirect(2));
    policy.providers[2].filters[0].matches = Match::default().to(addr("192.0.2.8:80").ip());
    assert_eq!(decide(&policy, &application()), redirect(0));
    policy.providers[0].filters.clear();
    assert_eq!(decide(&policy, &application()), verdict(Verdict::Pass, Reason::Default));
}

#[test]
fn the_host_is_asked_first_at_every_hop() {
    let mut policy = policy();
    policy.filters = vec![host_filter(1, HostAction::Block), host_filter(2, HostAction::Permit)];
    for question in [application(), carrying(10, 1)] {
        let permitted = verdict(Verdict::Pass, Reason::Rule);
        assert_eq!(decide(&policy, &question), Decision { filter: Some(FilterRef::Host(1)), ..permitted });
    }
    policy.filters[0].weight = 2;
    let blocked = verdict(Verdict::Refuse, Reason::Blocked);
    assert_eq!(decide(&policy, &application()), Decision { filter: Some(FilterRef::Host(0)), ..blocked });
}

#[test]
fn the_default_blocks_what_nothing_decides() {
    let policy = Policy { default: HostAction::Block, providers: Vec::new(), filters: Vec::new(), ..Policy::default() };
    assert_eq!(decide(&policy, &application()), verdict(Verdict::Refuse, Reason::Blocked));
}

#[test]
fn a_dead_provider_is_closed_or_open() {
    let mut policy = policy();
    let question = Question { dead: dead(&[1]), ..application() };
    let refused = Decision { verdict: Verdict::Refuse, reason: Reason::Dead, ..redirect(1) };
    assert_eq!(decide(&policy, &question), refused);
    policy.providers[1].on_dead = OnDead::Open;
    assert_eq!(decide(&policy, &question), redirect(2));
    assert_eq!(decide(&policy, &Question { dead: dead(&[0, 2]), ..application() }), redirect(1));
    policy.providers[1].filters[0].action = Action::Block;
    assert_eq!(decide(&policy, &question).reason, Reason::Blocked, "a dead provider's block still holds");
}

#[test]
fn a_listener_is_dialled_only_where_allowed_and_only_upwards() {
    let mut policy = policy();
    let to = |listener: usize, question: Question| Question {
        listener: Some(listener),
        remote: addr(&format!("127.0.0.1:{}", 15000 + listener)),
        ..question
    };
    let refused = |reason, at| Decision { provider: Some(at), ..verdict(Verdict::Refuse, reason) };
    let direct = |at| Decision { provider: Some(at), ..verdict(Verdict::Direct, Reason::Rule) };

    assert_eq!(decide(&policy, &to(2, application())), refused(Reason::NotDirect, 2));
    assert_eq!(
        decide(&policy, &to(2, Question { dialer: Some(2), ..application() })),
        refused(Reason::OwnListener, 2),
        "its own owner loops, whether it is direct or not"
    );

    policy.providers[2].direct = true;
    assert_eq!(decide(&policy, &to(2, application())), direct(2));
    assert_eq!(decide(&policy, &to(2, Question { dialer: Some(1), ..application() })), direct(2));
    assert_eq!(decide(&policy, &to(2, Question { dialer: Some(1), ..carrying(10, 1) })), direct(2));
    for downwards in [
        Question { dialer: Some(2), ..application() },
        Question { dialer: Some(0), ..application() },
        Question { dialer: Some(1), ..carrying(20, 2) },
        carrying(30, 3),
    ] {
        assert_eq!(decide(&policy, &to(2, downwards)), refused(Reason::OwnListener, 2), "{downwards:?}");
    }
    assert_eq!(decide(&policy, &to(2, carrying(10, 16))), refused(Reason::TooDeep, 2));
    assert_eq!(decide(&policy, &to(2, carrying(10, 15))), direct(2));
}

#[test]
fn an_explicit_proxy_is_terminal_where_it_forgets() {
    let mut policy = policy();
    policy.providers[1].direct = true;
    let forgetful = Question { dialer: Some(1), ..application() };
    assert_eq!(decide(&policy, &forgetful), verdict(Verdict::Pass, Reason::Terminal));
    assert_eq!(decide(&policy, &Question { dialer: Some(1), ..carrying(10, 1) }), redirect(2));

    policy.default = HostAction::Block;
    assert_eq!(decide(&policy, &forgetful), verdict(Verdict::Refuse, Reason::Blocked), "the default holds for it");
    policy.default = HostAction::Permit;
    policy.filters = vec![host_filter(1, HostAction::Block)];
    let blocked = Decision { filter: Some(FilterRef::Host(0)), ..verdict(Verdict::Refuse, Reason::Blocked) };
    assert_eq!(decide(&policy, &forgetful), blocked, "and so do the host's filters");
}

#[test]
fn a_full_record_is_not_redirected_again() {
    let policy = policy();
    assert_eq!(decide(&policy, &carrying(10, 15)), redirect(2));
    let refused = Decision { verdict: Verdict::Refuse, reason: Reason::TooDeep, ..redirect(2) };
    assert_eq!(decide(&policy, &carrying(10, 16)), refused);
    assert_eq!(decide(&policy, &carrying(30, 16)), verdict(Verdict::Pass, Reason::Default), "no hop, no limit");
}

#[test]
fn the_record_keeps_the_highest_rank() {
    let policy = policy();
    for (question, floor, depth) in [
        (application(), 10, 1),
        (carrying(10, 1), 20, 2),
        (Question { dialer: Some(2), ..application() }, 30, 1),
        (Question { dialer: Some(1), ..carrying(25, 3) }, 30, 4),
    ] {
        assert_eq!(decide(&policy, &question).record(&policy, &question), Some(Carried { floor, depth }));
    }
    let last = carrying(30, 3);
    assert_eq!(decide(&policy, &last).record(&policy, &last), None);
}

#[test]
fn positions_outside_the_policy_are_nobody() {
    let policy = policy();
    let question = Question { dialer: Some(40), listener: Some(3), ..application() };
    assert_eq!(decide(&policy, &question), redirect(1));
}

/// Three providers that redirect everything, of ranks 30, 10 and 20.
fn policy() -> Policy {
    let provider = |(index, rank)| Provider { rank, filters: vec![filter(1, to_provider())], ..plain_provider(index) };
    let policy = Policy { providers: (0..).zip([30, 10, 20]).map(provider).collect(), ..Policy::default() };
    policy.validate().expect("a sound policy");
    policy
}

fn filter(weight: u32, action: Action) -> Filter {
    Filter { name: "all".into(), weight, matches: Match::default(), action }
}

fn host_filter(weight: u32, action: HostAction) -> HostFilter {
    HostFilter { name: "all".into(), weight, matches: Match::default(), action }
}

fn to_provider() -> Action {
    Action::Redirect { context: Vec::new() }
}

/// An application's connection.
fn application() -> Question {
    Question::to(addr("192.0.2.7:80"))
}

fn dead(providers: &[usize]) -> Providers {
    providers.iter().copied().collect()
}

fn carrying(floor: u16, depth: u32) -> Question {
    Question { record: Some(Carried { floor, depth }), ..application() }
}

/// By the provider's first filter.
fn redirect(provider: usize) -> Decision {
    let filter = Some(FilterRef::Provider { provider, filter: 0 });
    Decision { provider: Some(provider), filter, ..verdict(Verdict::Redirect, Reason::Rule) }
}

fn verdict(verdict: Verdict, reason: Reason) -> Decision {
    Decision { verdict, reason, provider: None, filter: None }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
