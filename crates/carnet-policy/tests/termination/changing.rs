//! Policies whose ranks and filters change while the flow is on its way.

use carnet_policy::Service;

use crate::kinds::{Kind, registered_kinds};
use crate::walk::{Behaviour, Carries, Dials, End};
use crate::world::Setup;

#[test]
fn one_service_and_four_changes() {
    every_flow_ends(1, 4);
}

#[test]
fn two_services_and_three_changes() {
    every_flow_ends(2, 3);
}

#[test]
fn three_services_and_one_change() {
    every_flow_ends(3, 1);
}

/// What ranks alone do not promise: a provider that a new policy puts above the floor of a live flow has the flow again.
/// It ends all the same, because the floor rises.
#[test]
fn a_provider_moved_above_a_live_flow_has_it_again() {
    let behaviour = Behaviour { dials: Dials::Destination, carries: Carries::Record };
    let setup = Setup { changes: 1, ..Setup::new(3, vec![Kind { declared: Service::Aware, behaviour }]) };
    let mut again = 0;
    setup.every_flow(|_, _, walk, end| {
        assert_ne!(end, End::Loop);
        let providers: Vec<usize> = walk.steps.iter().map(|step| step.provider).collect();
        again += usize::from((1..providers.len()).any(|at| providers[..at].contains(&providers[at])));
    });
    assert_ne!(again, 0);
}

fn every_flow_ends(providers: usize, changes: usize) {
    let mut longest = 0;
    let setup = Setup { changes, ..Setup::new(providers, registered_kinds(providers)) };
    let flows = setup.every_flow(|_, start, walk, end| {
        let trail = || format!("from {start}, ended {end:?} after {:#?}", walk.steps);
        for policy in walk.steps.chunk_by(|a, b| a.generation == b.generation) {
            assert!(policy.len() <= providers, "{}", trail());
            assert!(policy.is_sorted_by(|a, b| a.rank < b.rank), "no provider twice under one policy: {}", trail());
        }
        for step in &walk.steps {
            assert!(Some(step.rank) > step.floor, "a record keeps its floor whatever changes: {}", trail());
        }
        assert_ne!(end, End::Loop, "{}", trail());
        longest = longest.max(walk.steps.len());
    });
    println!("{flows} flows, the longest {longest} hops");
    assert!(longest > providers || providers == 1, "changes must have made flows longer");
}
