//! One engine's governed cgroup is inside another's: programs of a child cgroup run before those of its ancestors.

use std::net::SocketAddr;

use carnet_e2e::sockets::{connect, listen};
use carnet_e2e::{Ground, Sandbox};

use crate::walk::{Party, assert_arrives, left_alone};

const DESTINATIONS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

/// The inner engine's services have the application's flow. To the outer engine, which sees their connections, they are
/// the application: its services have the flow of the inner engine's last service.
#[test]
fn the_inner_engine_has_the_flow_first_and_the_outer_one_what_is_dialled_on() {
    for outer_first in [true, false] {
        for destination in DESTINATIONS {
            let ground = Ground::new();
            let inside = Ground::inside(&ground.app);
            let (outer, inner) = on_both(ground, inside, outer_first);
            through_both(outer, inner, destination);
        }
    }
}

/// The same where a service of the outer engine has an engine of its own, so that the socket-option programs of both run
/// at the inner one's services. The inner application is the outer engine's first service, so that its flow goes on with
/// the second one.
#[test]
fn an_engine_inside_a_service() {
    for outer_first in [true, false] {
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap();
        let ground = Ground::new();
        let inside = Ground::inside(&ground.service(0));
        let (mut outer, inner) = on_both(ground, inside, outer_first);

        let client = inner.sandbox.in_app(|| connect(destination)).expect("connect");
        assert_eq!(client.peer_addr().unwrap(), destination);
        let mut hops = inner.walk(destination, inner.sandbox.app_cgroup().id());
        // What the outer engine's first service dials goes to the second one alone.
        hops.push(outer.hop(1, destination, inner.last_cgroup(), &[2]));
        inner.assert_idle();
        outer.assert_idle();
        assert_arrives(client, hops, &server);
        let listeners = inner.listeners(destination);
        assert_eq!(outer.decisions()[..2], [left_alone(listeners[0]), left_alone(listeners[1])]);
    }
}

/// What does not come from the inner engine's cgroup is the outer one's alone.
#[test]
fn beside_the_inner_engine_the_outer_one_has_its_flows_as_ever() {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let ground = Ground::new();
    let inside = Ground::inside(&ground.app);
    let (outer, mut inner) = on_both(ground, inside, true);
    let client = outer.sandbox.in_app(|| connect(destination)).expect("connect");
    let hops = outer.walk(destination, outer.sandbox.app_cgroup().id());
    inner.assert_idle();
    outer.assert_idle();
    assert_arrives(client, hops, &server);
    assert_eq!(inner.decisions(), []);
}

fn through_both(mut outer: Party, mut inner: Party, destination: &str) {
    let server = listen(destination);
    let destination: SocketAddr = server.local_addr().unwrap();
    let client = inner.sandbox.in_app(|| connect(destination)).expect("connect");
    assert_eq!(client.peer_addr().unwrap(), destination, "the application sees what it asked for");

    let mut hops = inner.walk(destination, inner.sandbox.app_cgroup().id());
    hops.extend(outer.walk(destination, inner.last_cgroup()));
    inner.assert_idle();
    outer.assert_idle();
    assert_eq!(client.peer_addr().unwrap(), destination);
    assert_arrives(client, hops, &server);

    // The outer engine has seen every connect(), and has left alone those that lead to the inner one's services.
    let listeners = inner.listeners(destination);
    let decisions = outer.decisions();
    assert_eq!(decisions[..2], [left_alone(listeners[0]), left_alone(listeners[1])], "{decisions:?}");
    assert!(decisions[2..].iter().all(|decision| decision.2 == destination), "{decisions:?}");
    assert_eq!(decisions.len(), 5, "{decisions:?}");
    let decisions = inner.decisions();
    assert!(decisions.iter().all(|decision| decision.2 == destination), "{decisions:?}");
    assert_eq!(decisions.len(), 3, "{decisions:?}");
    for party in [&inner, &outer] {
        assert_eq!(party.sandbox.engine.open_handovers().unwrap(), 0);
    }
}

/// Engines on both, made in either order.
pub fn on_both(outer: Ground, inner: Ground, outer_first: bool) -> (Party, Party) {
    if outer_first {
        let outer = Party::of(Sandbox::on(outer));
        (outer, Party::of(Sandbox::on(inner)))
    } else {
        let inner = Party::of(Sandbox::on(inner));
        (Party::of(Sandbox::on(outer)), inner)
    }
}
