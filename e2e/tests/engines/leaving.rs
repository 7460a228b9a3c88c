//! Engines that go and come while others have flows.

use std::thread;

use carnet::Redirect;
use carnet_e2e::sockets::{accept, assert_joined, connect, connect_on, is_idle, listen};
use carnet_e2e::{Ground, Sandbox, raw};
use libbpf_rs::MapCore;

use crate::nested::on_both;
use crate::walk::{Party, assert_arrives, left_alone};

/// The outer engine goes while a flow is at the services of both: the inner one's part of it goes on.
#[test]
fn the_outer_engine_goes() {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let ground = Ground::new();
    let inside = Ground::inside(&ground.app);
    let (outer, inner) = on_both(ground, inside, true);
    let mut client = inner.sandbox.in_app(|| connect(destination)).expect("connect");
    let first = &inner.services[0];
    let mut accepted = accept(&first.listeners[0]);
    // Its cgroups stay, for the inner one's are inside.
    let outer = outer.leave();

    assert_joined(&mut client, &mut accepted);
    assert_eq!(Redirect::of(&accepted).flow().expect("flow").destination(), destination);
    let onward = inner.sandbox.in_service(0, || Redirect::of(&accepted).dial()).expect("dial");
    let second = inner.hop(1, destination, inner.sandbox.app_cgroup().id(), &[1, 2]);
    inner.assert_idle();
    outer.assert_idle();
    assert_arrives(client.try_clone().unwrap(), vec![(accepted, onward), second], &server);

    let again = inner.sandbox.in_app(|| connect(destination)).expect("connect");
    let hops = inner.walk(destination, inner.sandbox.app_cgroup().id());
    assert_arrives(again, hops, &server);
}

/// The inner engine goes. A flow at the outer one's services goes on, and new connections of the inner application are
/// the outer one's from the start.
#[test]
fn the_inner_engine_goes() {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let ground = Ground::new();
    let inside = Ground::inside(&ground.app);
    let (mut outer, inner) = on_both(ground, inside, true);
    let client = inner.sandbox.in_app(|| connect(destination)).expect("connect");
    let mut hops = inner.walk(destination, inner.sandbox.app_cgroup().id());
    let (last, listeners) = (inner.last_cgroup(), inner.listeners(destination));
    let inner = inner.leave();
    hops.extend(outer.walk(destination, last));
    outer.assert_idle();
    assert_eq!(outer.decisions().len(), 5);

    // The application now sees its connection as it is: to the inner engine's first service.
    assert_eq!(client.peer_addr().unwrap(), listeners[0]);
    assert_arrives(client, hops, &server);

    let client = inner.ground.within(&inner.ground.app, || connect(destination)).expect("connect");
    let hops = outer.walk(destination, inner.ground.app.id());
    inner.assert_idle();
    assert_arrives(client, hops, &server);
}

/// Engines find the map that they share as long as one of them has it, though the one that made it has gone.
#[test]
fn a_third_engine_shares_the_map_when_the_first_has_gone() {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let ground = Ground::new();
    let inside = Ground::inside(&ground.app);
    let innermost = Ground::inside(&inside.app);
    let (first, mut second) = on_both(ground, inside, true);
    let before = claims(&second);
    assert_eq!(before, claims(&first), "they have one");
    let first = first.leave();
    let third = Party::of(Sandbox::on(innermost));
    assert_eq!(claims(&third), before);

    let client = third.sandbox.in_app(|| connect(destination)).expect("connect");
    let mut hops = third.walk(destination, third.sandbox.app_cgroup().id());
    hops.extend(second.walk(destination, third.last_cgroup()));
    third.assert_idle();
    second.assert_idle();
    first.assert_idle();
    assert_arrives(client, hops, &server);
    let listeners = third.listeners(destination);
    assert_eq!(second.decisions()[..2], [left_alone(listeners[0]), left_alone(listeners[1])]);
}

/// A claim stays on its socket, and is of one connect() alone. Else who keeps such a socket could lead it by every service,
/// once the port is its own.
#[test]
fn a_claim_of_an_engine_that_has_gone_does_not_count() {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let ground = Ground::new();
    let inside = Ground::inside(&ground.app);
    let (mut outer, inner) = on_both(ground, inside, true);
    let claimed = inner.listeners(destination)[0];
    let client = inner.sandbox.in_app(|| connect(destination)).expect("connect");
    assert_eq!(outer.decisions(), [left_alone(claimed)]);
    raw::disconnect(&client).unwrap();
    let inner = inner.leave();
    drop(server);

    // The service is nobody's now, and still listens there. A claim is of the calling thread, so one moment is as good as
    // another here.
    let again = inner.ground.within(&inner.ground.app, || {
        thread::spawn(move || connect_on(client.into(), &claimed.into())).join().unwrap().expect("connect")
    });
    assert_eq!(again.peer_addr().unwrap(), claimed, "as far as the application can tell");
    let decisions = outer.decisions();
    assert!(!decisions.contains(&left_alone(claimed)), "{decisions:?}");
    assert!(!is_idle(&outer.services[0].listeners[0]), "it has come to the outer engine's service");
}

/// The id of the engine's map of claims.
fn claims(party: &Party) -> u32 {
    party.sandbox.engine.map_handle("carnet_claims").unwrap().info().unwrap().info.id
}
