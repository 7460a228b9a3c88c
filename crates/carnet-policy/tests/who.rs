//! Conditions on who connects, on the protocol and on the way there.

use std::net::{IpAddr, SocketAddr};

use carnet_policy::testing::plain_provider;
use carnet_policy::{
    Action, Condition, Executable, Filter, HostAction, HostFilter, Identity, Line, Match, Policy, Prefix, Protocol,
    Provider, Question, Verdict, Who, decide, testing,
};

#[test]
fn every_condition_on_who_connects_holds_for_the_origin() {
    let me = Identity {
        uid: 1000,
        gid: 100,
        exe: Executable { dev: 8 << 20, ino: 7 },
        cgroup: line(&[10, 11, 12]),
        netns: 5,
    };
    let any = Match::default;
    for (matches, holds) in [
        (Match { uids: Condition::only([0..=999, 1000..=1000]), ..any() }, true),
        (Match { uids: Condition::only([0..=999]), ..any() }, false),
        (
            Match { uids: Condition { except: vec![[1000..=1000].into()], ..Condition::only([0..=2000]) }, ..any() },
            false,
        ),
        (Match { gids: Condition::only([100..=100]), ..any() }, true),
        (Match { gids: Condition::except([100..=100]), ..any() }, false),
        (Match { exes: Condition::only([Executable { dev: 8 << 20, ino: 7 }]), ..any() }, true),
        (Match { exes: Condition::only([Executable { dev: 9 << 20, ino: 7 }]), ..any() }, false),
        (Match { cgroups: Condition::only([line(&[10])]), ..any() }, true),
        (Match { cgroups: Condition::only([line(&[10, 11, 12])]), ..any() }, true),
        (Match { cgroups: Condition::only([line(&[])]), ..any() }, true),
        (Match { cgroups: Condition::only([line(&[10, 11, 12, 13])]), ..any() }, false),
        (Match { cgroups: Condition::only([line(&[10, 14])]), ..any() }, false),
        (Match { cgroups: Condition::except([line(&[10, 11])]), ..any() }, false),
        (Match { netns: Condition::only([4, 5]), ..any() }, true),
        (Match { netns: Condition::only([4]), ..any() }, false),
        (Match { uids: Condition { only: Some(vec![[].into()]), except: Vec::new() }, ..any() }, false),
        (Match { uids: Condition::only([1000..=1000]), netns: Condition::only([4]), ..any() }, false),
    ] {
        let policy = host(HostAction::Block, matches);
        let question = Question { who: Who::Known(me), ..web() };
        let expected = if holds { Verdict::Refuse } else { Verdict::Pass };
        assert_eq!(verdict(&policy, question), expected, "{:?}", policy.filters[0].matches);
    }
}

/// A cgroup that no filter names has what the nearest one above it has.
#[test]
fn a_cgroup_has_the_conditions_of_those_above_it() {
    let cgroups = Condition { except: vec![[line(&[1, 2])].into()], ..Condition::only([line(&[1]), line(&[1, 2, 3])]) };
    let policy = host(HostAction::Block, Match { cgroups, ..Match::default() });
    for (ids, refused) in [
        (&[][..], false),
        (&[1], true),
        (&[1, 9], true),
        (&[1, 9, 8, 7, 6, 5, 4, 30, 31, 32, 33], true),
        (&[1, 2], false),
        (&[1, 2, 9], false),
        (&[1, 2, 3], false),
        (&[7], false),
    ] {
        let who = Who::Known(Identity { cgroup: line(ids), ..Identity::default() });
        assert_eq!(verdict(&policy, Question { who, ..web() }) == Verdict::Refuse, refused, "{ids:?}");
    }
}

/// Else a service could pass its own connections off as those of a program that may do more.
#[test]
fn nothing_is_let_through_by_an_identity_that_is_not_certain() {
    let origin = Identity { uid: 42, ..Identity::default() };
    let uncertain = [
        Who::Strayed { origin, own: origin },
        Who::Ambiguous { origin, own: None },
        Who::Ambiguous { origin, own: Some(origin) },
    ];
    let apt = || Match { uids: Condition::only([42..=42]), ..Match::default() };

    let mut permits = host(HostAction::Permit, apt());
    permits.default = HostAction::Block;
    assert_eq!(verdict(&permits, Question { who: Who::Known(origin), ..web() }), Verdict::Pass);
    for who in uncertain {
        assert_eq!(verdict(&permits, Question { who, ..web() }), Verdict::Refuse, "{who:?}");
    }

    let mut skips = provider(vec![filter(2, apt(), Action::Skip), filter(1, Match::default(), redirect())]);
    assert_eq!(verdict(&skips, Question { who: Who::Known(origin), ..web() }), Verdict::Pass);
    for who in uncertain {
        assert_eq!(verdict(&skips, Question { who, ..web() }), Verdict::Redirect, "{who:?}");
    }

    skips.providers[0].filters[0].matches = Match::default().on_ports(80..=80);
    for who in uncertain {
        assert_eq!(verdict(&skips, Question { who, ..web() }), Verdict::Pass, "who connects is not asked: {who:?}");
    }
}

#[test]
fn a_service_that_strays_is_held_to_what_holds_for_the_origin_and_for_itself() {
    let [origin, own, other] = [1, 2, 3].map(|uid| Identity { uid, gid: 10 * uid, ..Identity::default() });
    let who = Who::Strayed { origin, own };
    for uid in [1, 2, 3] {
        let matches = Match { uids: Condition::only([uid..=uid]), ..Match::default() };
        let refused = if uid == other.uid { Verdict::Pass } else { Verdict::Refuse };
        assert_eq!(verdict(&host(HostAction::Block, matches.clone()), Question { who, ..web() }), refused);
        let redirected = if uid == other.uid { Verdict::Pass } else { Verdict::Redirect };
        let policy = provider(vec![filter(1, matches, redirect())]);
        assert_eq!(verdict(&policy, Question { who, ..web() }), redirected);
    }
    // Half of it of one and half of the other is nobody.
    let mixed = Match { uids: Condition::only([1..=1]), gids: Condition::only([20..=20]), ..Match::default() };
    assert_eq!(verdict(&host(HostAction::Block, mixed), Question { who, ..web() }), Verdict::Pass);
}

#[test]
fn an_ambiguous_origin_may_be_anybody_for_a_provider_and_is_the_service_for_the_host() {
    let own = Identity { uid: 2, ..Identity::default() };
    let question = Question { who: Who::Ambiguous { origin: own, own: None }, ..web() };
    let of = |uid: u32| Match { uids: Condition::only([uid..=uid]), ..Match::default() };
    assert_eq!(verdict(&host(HostAction::Block, of(2)), question), Verdict::Refuse);
    assert_eq!(verdict(&host(HostAction::Block, of(1)), question), Verdict::Pass);
    assert_eq!(verdict(&provider(vec![filter(1, of(1), redirect())]), question), Verdict::Redirect);
    assert_eq!(verdict(&provider(vec![filter(1, of(1), Action::Block)]), question), Verdict::Refuse);
    let elsewhere = Match { uids: Condition::only([1..=1]), ..Match::default() }.on_ports(443..=443);
    let policy = provider(vec![filter(1, elsewhere, redirect())]);
    assert_eq!(verdict(&policy, question), Verdict::Pass, "its other conditions count");
}

/// A service is held to what holds for itself also where it goes elsewhere with the record of one of several.
#[test]
fn an_ambiguous_origin_that_strays_is_held_to_what_holds_for_the_service_that_dials() {
    let [origin, own] = [2, 3].map(|uid| Identity { uid, ..Identity::default() });
    let question = Question { who: Who::Ambiguous { origin, own: Some(own) }, ..web() };
    let of = |uid: u32| Match { uids: Condition::only([uid..=uid]), ..Match::default() };
    for (uid, by_host) in [(2, Verdict::Refuse), (3, Verdict::Refuse), (4, Verdict::Pass)] {
        assert_eq!(verdict(&host(HostAction::Block, of(uid)), question), by_host, "{uid}");
        assert_eq!(verdict(&provider(vec![filter(1, of(uid), redirect())]), question), Verdict::Redirect, "{uid}");
    }
}

#[test]
fn udp_is_permitted_and_blocked_but_neither_redirected_nor_skipped() {
    let udp = Question { protocol: Protocol::Udp, ..web() };
    let only = |protocol| Match { protocol: Some(protocol), ..Match::default() };
    let policy =
        |first: Action| provider(vec![filter(2, Match::default(), first), filter(1, Match::default(), Action::Block)]);
    for first in [redirect(), Action::Skip] {
        assert_eq!(verdict(&policy(first), udp), Verdict::Refuse);
    }
    assert_eq!(verdict(&host(HostAction::Block, only(Protocol::Udp)), udp), Verdict::Refuse);
    assert_eq!(verdict(&host(HostAction::Block, only(Protocol::Udp)), web()), Verdict::Pass);
    let mut permits = host(HostAction::Permit, only(Protocol::Udp));
    permits.default = HostAction::Block;
    assert_eq!(verdict(&permits, udp), Verdict::Pass);
    assert_eq!(verdict(&permits, web()), Verdict::Refuse);
}

#[test]
fn the_kernel_judges_udp_only_where_something_may_block_it() {
    let judges = |policy: Policy| {
        let image = policy.compile(1).expect("a sound policy");
        image.policy.flags & carnet_abi::POLICY_JUDGES_UDP != 0
    };
    let tcp = Match { protocol: Some(Protocol::Tcp), ..Match::default() };
    assert!(!judges(Policy::default()));
    assert!(judges(Policy { default: HostAction::Block, ..Policy::default() }));
    assert!(judges(host(HostAction::Block, Match::default())));
    assert!(!judges(host(HostAction::Block, tcp.clone())));
    assert!(!judges(host(HostAction::Permit, Match::default())));
    assert!(judges(provider(vec![filter(1, Match::default(), Action::Block)])));
    assert!(!judges(provider(vec![filter(1, tcp, Action::Block), filter(2, Match::default(), redirect())])));
}

#[test]
fn via_is_the_service_whose_connection_it_is() {
    let via = |only: Condition<usize>| Match { via: only, ..Match::default() };
    for (matches, by_nobody, by_it) in [
        (via(Condition::only([0])), Verdict::Pass, Verdict::Refuse),
        (via(Condition::except([0])), Verdict::Refuse, Verdict::Pass),
    ] {
        let mut policy = provider(Vec::new());
        policy.filters = host(HostAction::Block, matches).filters;
        assert_eq!(verdict(&policy, web()), by_nobody);
        assert_eq!(verdict(&policy, Question { dialer: Some(0), ..web() }), by_it);
    }
}

#[test]
fn ipv4_and_its_mapped_form_are_one_in_conditions_too() {
    for (prefix, v4, v6) in [
        (("0.0.0.0", 0), true, false),
        (("::", 0), true, true),
        (("::ffff:0:0", 96), true, false),
        (("::ffff:192.0.2.0", 120), true, false),
        (("::ffff:198.51.100.0", 120), false, false),
        (("::", 95), false, false),
        (("2001:db8::", 32), false, true),
    ] {
        let (address, length) = prefix;
        let prefix = Prefix { address: address.parse::<IpAddr>().expect("an address"), length };
        for (condition, inverted) in [(Condition::only([prefix]), false), (Condition::except([prefix]), true)] {
            let policy = host(HostAction::Block, Match { remote: condition, ..Match::default() });
            for (remote, covered) in [("192.0.2.7:80", v4), ("[::ffff:192.0.2.7]:80", v4), ("[2001:db8::1]:80", v6)] {
                let refused = verdict(&policy, Question::to(addr(remote))) == Verdict::Refuse;
                assert_eq!(refused, covered != inverted, "{prefix} for {remote}, inverted {inverted}");
            }
        }
    }
}

/// As the model says, and the image.
fn verdict(policy: &Policy, question: Question) -> Verdict {
    let decision = decide(policy, &question);
    let image = policy.compile(1).expect("a sound policy");
    let asked = image.question(&question, 0);
    if question.protocol == Protocol::Tcp || image.policy.flags & carnet_abi::POLICY_JUDGES_UDP != 0 {
        assert_eq!(testing::evaluate(&image, &asked).question, image.answer(asked, &decision).question, "{question:?}");
    }
    decision.verdict
}

fn host(action: HostAction, matches: Match) -> Policy {
    let filter = HostFilter { name: "one".into(), weight: 1, matches, action };
    Policy { filters: vec![filter], ..Policy::default() }
}

fn provider(filters: Vec<Filter>) -> Policy {
    let provider = Provider { filters, ..plain_provider(0) };
    Policy { providers: vec![provider], ..Policy::default() }
}

fn filter(weight: u32, matches: Match, action: Action) -> Filter {
    Filter { name: "one".into(), weight, matches, action }
}

fn redirect() -> Action {
    Action::Redirect { context: Vec::new() }
}

fn web() -> Question {
    Question::to(addr("192.0.2.7:80"))
}

fn line(ids: &[u64]) -> Line {
    Line(std::array::from_fn(|level| ids.get(level).copied().unwrap_or(0)))
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
