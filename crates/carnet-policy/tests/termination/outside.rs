//! Services that hand the flow to a process outside their owner, such as a SOCKS server of another uid. Its connections
//! are like a new application's, so ranks cannot end the flow; the runaway guard (R41) does.

use carnet_policy::{Reason, Service};

use crate::kinds::{Kind, outside_kinds, registered_kinds};
use crate::walk::{Behaviour, Carries, Dials, End, Guard};
use crate::world::{DESTINATIONS, Setup};

#[test]
fn one_service() {
    every_flow_ends(1, 3, outside_kinds(1));
}

#[test]
fn two_services() {
    every_flow_ends(2, 2, outside_kinds(2));
}

#[test]
fn three_services() {
    every_flow_ends(3, 1, outside_kinds(3));
}

#[test]
fn four_services() {
    every_flow_ends(4, 1, outside_kinds(4));
}

#[test]
fn one_service_with_a_process_outside_has_the_flow_as_often_as_its_limit() {
    for in_flight_limit in [1, 2, 7] {
        let behaviour = Behaviour { dials: Dials::Destination, carries: Carries::Outside };
        let kinds = vec![Kind { declared: Service::Aware, behaviour }];
        let mut runaways = 0;
        let setup = Setup { in_flight_limit, ..Setup::new(1, kinds) };
        setup.every_flow(|world, start, walk, end| {
            if DESTINATIONS.contains(&start) && !world.wanting(start).0.is_empty() {
                assert_eq!(end, End::Runaway);
                assert_eq!(walk.steps.len(), in_flight_limit as usize);
                runaways += 1;
            }
        });
        assert_eq!(runaways, 2, "one for each destination");
    }
}

#[test]
fn without_the_guard_flows_loop() {
    assert_ne!(Setup::new(1, outside_kinds(1)).loops(), 0);
}

/// A process outside that dials an explicit proxy's listener is let through every time.
#[test]
fn with_a_guard_that_does_not_count_direct_connections_flows_loop() {
    let setup = Setup { in_flight_limit: 1, guard: Guard::RedirectsOnly, ..Setup::new(1, outside_kinds(1)) };
    assert_ne!(setup.loops(), 0);
}

/// With any registered services among them.
fn every_flow_ends(providers: usize, in_flight_limit: u32, outside: Vec<Kind>) {
    let kinds = [registered_kinds(providers), outside].concat();
    // A provider is reached by redirect of either destination, and by its listener.
    let most = 3 * providers * in_flight_limit as usize;
    let mut runaways = 0;
    let flows = Setup { in_flight_limit, ..Setup::new(providers, kinds) }.every_flow(|_, start, walk, end| {
        let trail = || format!("from {start}, ended {end:?} after {:#?}", walk.steps);
        assert!(walk.steps.len() <= most, "{}", trail());
        assert_ne!(end, End::Refused(Reason::TooDeep), "{}", trail());
        let outside = walk.steps.iter().any(|step| step.behaviour.carries == Carries::Outside);
        assert!(outside || walk.steps.len() <= providers, "{}", trail());
        assert!(outside || end != End::Runaway, "the guard is not met without need: {}", trail());
        runaways += usize::from(end == End::Runaway);
    });
    println!("{flows} flows, {runaways} ended by the guard");
    assert_ne!(runaways, 0);
}
