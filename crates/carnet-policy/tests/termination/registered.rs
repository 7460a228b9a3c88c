//! Services whose connections are known as theirs: no flow takes more hops than there are providers.

use std::collections::BTreeSet;

use carnet_policy::{Reason, Service};

use crate::kinds::{Kind, registered_kinds};
use crate::rules::Rules;
use crate::walk::{Behaviour, Carries, Dials, End};
use crate::world::{DESTINATIONS, Setup};

#[test]
fn one_service() {
    every_flow_ends(1);
}

#[test]
fn two_services() {
    every_flow_ends(2);
}

#[test]
fn three_services() {
    every_flow_ends(3);
}

#[test]
fn four_services() {
    every_flow_ends(4);
}

#[test]
fn every_end_is_met() {
    let mut ends = BTreeSet::new();
    Setup::new(3, registered_kinds(3)).every_flow(|_, _, _, end| {
        ends.insert(format!("{end:?}"));
    });
    let expected = [
        "Passed(Default)",
        "Passed(Terminal)",
        "Refused(Dead)",
        "Refused(NotDirect)",
        "Refused(OwnListener)",
        "Unanswered",
    ];
    assert_eq!(Vec::from_iter(ends), expected);
}

/// Services dead or alive, wanting the flow or not: those that want it have it.
#[test]
fn aware_services_have_the_flow_once_each_in_rank_order() {
    let behaviour = Behaviour { dials: Dials::Destination, carries: Carries::Record };
    for providers in 1..=4 {
        let mut longest = 0;
        let setup = Setup::new(providers, vec![Kind { declared: Service::Aware, behaviour }]);
        setup.every_flow(|world, start, walk, end| {
            if !DESTINATIONS.contains(&start) {
                return;
            }
            let visited: Vec<usize> = walk.steps.iter().map(|step| step.provider).collect();
            let (wanting, refused) = world.wanting(start);
            assert_eq!(visited, wanting);
            assert_eq!(end, if refused { End::Refused(Reason::Dead) } else { End::Passed(Reason::Default) });
            longest = longest.max(visited.len());
        });
        assert_eq!(longest, providers);
    }
}

/// Each dials the other's listener with the record: the lower one would have the flow again.
#[test]
fn without_the_rule_that_direct_goes_upwards_flows_loop() {
    for rules in [Rules::DirectFromAnywhere, Rules::NoneOnDirect] {
        assert_ne!(Setup { rules, ..Setup::new(2, registered_kinds(2)) }.loops(), 0, "{rules:?}");
    }
}

/// That an explicit proxy is terminal where it forgets is for its users; ranks end its flows without it.
#[test]
fn without_the_rule_that_forgetful_proxies_are_terminal_flows_still_end() {
    for providers in 1..=3 {
        let setup = Setup { rules: Rules::NothingTerminal, ..Setup::new(providers, registered_kinds(providers)) };
        setup.every_flow(|_, _, walk, end| {
            assert_ne!(end, End::Passed(Reason::Terminal));
            assert!(walk.steps.len() <= providers);
        });
    }
}

/// Services that forget would have their own connections.
#[test]
fn without_owners_flows_loop() {
    assert_ne!(Setup { rules: Rules::NoOwners, ..Setup::new(1, registered_kinds(1)) }.loops(), 0);
}

/// Choosing everything beforehand finds the same flows, many times over.
#[test]
fn choosing_late_misses_nothing() {
    let trails = |chosen_early| {
        let mut trails = BTreeSet::new();
        let setup = Setup { chosen_early, ..Setup::new(2, registered_kinds(2)) };
        let flows = setup.every_flow(|_, start, walk, end| {
            let steps: Vec<_> = walk.steps.iter().map(|step| (step.provider, step.floor, step.behaviour)).collect();
            trails.insert(format!("{start} {steps:?} {end:?}"));
        });
        (flows, trails)
    };
    let (late_flows, late) = trails(false);
    let (early_flows, early) = trails(true);
    assert_eq!(late, early);
    assert!(early_flows > 100 * late_flows, "{early_flows} flows with early choices, {late_flows} with late ones");
}

fn every_flow_ends(providers: usize) {
    let mut longest = 0;
    let flows = Setup::new(providers, registered_kinds(providers)).every_flow(|_, start, walk, end| {
        let trail = || format!("from {start}, ended {end:?} after {:#?}", walk.steps);
        assert!(walk.steps.len() <= providers, "{}", trail());
        assert!(walk.steps.is_sorted_by(|a, b| a.rank < b.rank), "no provider twice: {}", trail());
        longest = longest.max(walk.steps.len());
    });
    println!("{flows} flows");
    assert_eq!(longest, providers, "the longest flow meets every provider");
}
