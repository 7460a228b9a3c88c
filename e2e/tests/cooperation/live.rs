//! Policies that change under live flows. A flow keeps the floor that it has had: whatever the new order is, it goes up and
//! arrives.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;
use std::{io, thread};

use carnet_abi::{COUNT_EVENTS_LOST, EVENT_CONNECT, VERDICT_PASS, VERDICT_REDIRECT, flow_id};
use carnet_e2e::sockets::until;
use carnet_e2e::{Running, Sandbox};
use carnet_policy::Service as Kind;

use crate::orders::orders;
use crate::walk::{Scene, assert_once};

const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");
const RELAY: &str = env!("CARGO_BIN_EXE_carnet-e2e-relay");

/// Every kind of service in every place, and every new order, put in force when the first service, or the second one, has
/// accepted the flow and has not gone on yet.
#[test]
fn the_order_changes_between_accept_and_connect() {
    let mut scene = Scene::new(3);
    for kinds in 0..8 {
        for ranks in [[10, 20, 30], [10, 30, 20], [20, 10, 30], [20, 30, 10], [30, 10, 20], [30, 20, 10]] {
            for hops_before in [0, 1] {
                order(&mut scene, kinds, [10, 20, 30]);
                let mut flow = scene.begin();
                (0..hops_before).for_each(|_| scene.go_on(&mut flow));
                order(&mut scene, kinds, ranks);
                scene.to_the_end(&mut flow);
                drop(flow);
                scene.is_over();
            }
        }
    }
}

/// The record says who has had the flow, wherever that is now.
#[test]
fn a_service_that_is_raised_above_a_live_flow_is_passed_by() {
    let mut scene = Scene::new(2);
    for kinds in 0..4 {
        order(&mut scene, kinds, [10, 20]);
        let mut flow = scene.begin();
        scene.go_on(&mut flow);
        order(&mut scene, kinds, [30, 20]);
        scene.to_the_end(&mut flow);
        assert_eq!(flow.chain, [0, 1]);
        drop(flow);
        scene.is_over();
    }
}

/// A provider that registers has its place at once: flows that are at a lower rank meet it, those above do not, and those
/// that have arrived go on.
#[test]
fn one_that_registers_has_what_is_still_below_it() {
    for (rank, met) in [(5, [0, 1].into()), (15, [0, 2, 1].into()), (25, vec![0, 1, 2])] {
        for kinds in [0, 7] {
            let mut scene = Scene::new(3);
            order(&mut scene, kinds, [10, 20, rank]);
            let newcomer = scene.sandbox.policy.providers.pop().unwrap();
            scene.sandbox.apply();
            let [mut arrived, mut underway] = [(); 2].map(|()| scene.begin());
            scene.to_the_end(&mut arrived);

            scene.sandbox.policy.providers.push(newcomer);
            scene.sandbox.apply();
            arrived.lives();
            scene.to_the_end(&mut underway);
            assert_eq!((&arrived.chain[..], &underway.chain), (&[0, 1][..], &met), "rank {rank}");
            let mut fresh = scene.begin();
            scene.to_the_end(&mut fresh);
            assert_eq!(fresh.chain.len(), 3, "the next flow has all three");
            arrived.lives();
        }
    }
}

/// Connections as fast as they come, while ranks change all the time: every one arrives once,
/// and none meets a service twice.
#[test]
fn the_order_changes_all_the_time_under_load() {
    const FLOWS: usize = 3_000;
    let mut sandbox = Sandbox::new();
    let kinds =
        [("aware", Kind::Aware), ("unaware", Kind::Unaware), ("aware", Kind::Aware), ("unaware", Kind::Unaware)];
    let _relays = kinds.map(|(mode, kind)| sandbox.relay(RELAY, kind, &[mode]));
    let port = echo();
    // One for each of the client's threads: an unaware service's connections for flows to one destination are alike.
    let destinations: Vec<_> = (1..=16).map(|last| format!("127.0.0.{last}:{port}")).collect();
    let mut load = sandbox.app_command(LOAD);
    let mut load = Running::start(load.args(["finish", &FLOWS.to_string()]).args(&destinations));
    let mut chains: BTreeMap<u128, Vec<u32>> = BTreeMap::new();
    let mut changes = 0;
    for order in orders(4).iter().cycle() {
        for (rank, &place) in (1..).zip(order) {
            sandbox.policy.providers[place].rank = rank;
        }
        sandbox.apply();
        changes += 1;
        let ended = load.ended();
        for event in sandbox.events().iter().filter(|event| event.kind == EVENT_CONNECT) {
            assert!([VERDICT_REDIRECT, VERDICT_PASS].contains(&event.verdict), "{event:#?}");
            // 0: it has arrived.
            chains.entry(flow_id(event.record.flow)).or_default().push(event.handle);
        }
        if let Some(ended) = ended {
            assert!(ended.success(), "{ended}");
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((chains.len(), sandbox.engine.counters().unwrap()[COUNT_EVENTS_LOST]), (FLOWS, 0));
    for chain in chains.values() {
        let arrived = chain.iter().position(|&handle| handle == 0);
        assert!(chain.len() > 1 && arrived == Some(chain.len() - 1), "{chain:?}");
        assert_once(chain);
    }
    let skipped = chains.values().filter(|chain| chain.len() < 5).count();
    println!("{changes} orders; {skipped} of {FLOWS} flows were passed by a service that had come to be below them");
    assert!(changes > 20 && skipped > 0, "it has changed under flows: {changes}, {skipped}");
    until("the flows to be over", || (sandbox.engine.open_flights().unwrap() == 0).then_some(()));
}

/// A server on every loopback address, on the port returned, which sends back what comes. It ends with the test.
fn echo() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || io::copy(&mut &client, &mut &client));
        }
    });
    port
}

/// Gives the scene's services these ranks; bit i of `kinds`: service i carries no records.
fn order<const COUNT: usize>(scene: &mut Scene, kinds: u32, ranks: [u16; COUNT]) {
    for (place, (provider, rank)) in scene.sandbox.policy.providers.iter_mut().zip(ranks).enumerate() {
        provider.rank = rank;
        provider.service = if kinds & 1 << place == 0 { Kind::Aware } else { Kind::Unaware };
    }
    scene.sandbox.apply();
}
