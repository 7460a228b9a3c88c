//! Explicit proxies: a listener that applications may dial.

use std::net::{SocketAddr, TcpStream};

use carnet::{Redirect, State};
use carnet_abi::{
    EVENT_CONNECT, Event, REASON_DEAD, REASON_OWN_LISTENER, REASON_RULE, REASON_STRANGER, REASON_TERMINAL,
    VERDICT_DIRECT, VERDICT_PASS, VERDICT_REDIRECT, VERDICT_REFUSE,
};
use carnet_e2e::sockets::{accept, assert_joined, connect, connect_on, is_idle, listen, stream};
use carnet_e2e::{Sandbox, Service};
use carnet_policy::Service as Awareness;

use super::assert_refused;

#[test]
fn an_application_dials_it_and_it_gets_the_record() {
    let (mut sandbox, services) = two_direct();
    for family in [0, 1] {
        let proxy = services[0].listeners[family].local_addr().unwrap();
        let (client, decision) = sandbox.decided(|| connect(proxy));
        assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_DIRECT, REASON_RULE, 1));
        assert_eq!(decision.filter, 0, "no filter sent it there");
        let client = client.expect("connect");
        let accepted = accept(&services[0].listeners[family]);
        let redirect = Redirect::of(&accepted);
        let flow = redirect.flow().expect("flow");
        assert_eq!((flow.destination(), flow.origin().destination), (proxy, proxy));
        assert_eq!(flow.origin().source, Some(client.local_addr().unwrap()));
        assert_eq!(flow.chain().iter().map(|hop| (hop.handle, hop.filter)).collect::<Vec<_>>(), [(1, None)]);
        assert_eq!(redirect.context().expect("a record"), None);
        assert_eq!(sandbox.in_service(0, || redirect.state()).unwrap(), State::RedirectedBySelf);
        assert_eq!(client.peer_addr().unwrap(), proxy);
    }
}

#[test]
fn with_the_record_it_goes_on_and_without_it_ends() {
    let (mut sandbox, services) = two_direct();
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let proxy = services[0].listeners[0].local_addr().unwrap();
    let _client = sandbox.in_app(|| connect(proxy)).expect("connect");
    let accepted = accept(&services[0].listeners[0]);

    let records = Redirect::of(&accepted).records().expect("records");
    let (onward, decision) = as_service(&mut sandbox, 0, || {
        let socket = stream(destination);
        records.apply_to(&socket).expect("the owner's own");
        connect_on(socket, &destination.into())
    });
    assert_eq!((decision.verdict, decision.handle, decision.base), (VERDICT_REDIRECT, 2, 1));
    let second = accept(&services[1].listeners[0]);
    let flow = Redirect::of(&second).flow().expect("flow");
    assert_eq!((flow.destination(), flow.origin().destination), (destination, proxy));
    assert_eq!(flow.depth(), 2);
    drop(onward);

    // What it dials by itself is not redirected, or a forgetful proxy's flows would go round.
    let (onward, decision) = as_service(&mut sandbox, 0, || connect(destination));
    assert_eq!((decision.verdict, decision.reason), (VERDICT_PASS, REASON_TERMINAL));
    assert_joined(&mut onward.expect("connect"), &mut accept(&server));
    assert!(services.iter().flat_map(|service| &service.listeners).all(is_idle));
}

#[test]
fn services_dial_each_other_upwards_only() {
    let (mut sandbox, services) = two_direct();
    let [low, high] = [0, 1].map(|at: usize| services[at].listeners[0].local_addr().unwrap());

    let (result, decision) = as_service(&mut sandbox, 1, || connect(low));
    assert_eq!(result.expect_err("downwards"), libc::ELOOP);
    assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_REFUSE, REASON_OWN_LISTENER, 1));

    let (result, decision) = as_service(&mut sandbox, 0, || connect(low));
    assert_eq!(result.expect_err("itself"), libc::ELOOP);
    assert_eq!((decision.verdict, decision.reason), (VERDICT_REFUSE, REASON_OWN_LISTENER));

    let (result, decision) = as_service(&mut sandbox, 0, || connect(high));
    assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_DIRECT, REASON_RULE, 2));
    result.expect("upwards");
    let accepted = accept(&services[1].listeners[0]);
    assert_eq!(Redirect::of(&accepted).flow().expect("flow").depth(), 1, "no record, so a flow of the service's own");

    // With a record of the higher one, the lower one's listener is out of reach for everybody.
    let _client = sandbox.in_app(|| connect(high)).expect("connect");
    let accepted = accept(&services[1].listeners[0]);
    let records = Redirect::of(&accepted).records().expect("records");
    let (result, decision) = as_service(&mut sandbox, 1, || {
        let socket = stream(low);
        records.apply_to(&socket).expect("the owner's own");
        connect_on(socket, &low.into())
    });
    assert_eq!(result.expect_err("downwards"), libc::ELOOP);
    assert_eq!(decision.reason, REASON_OWN_LISTENER);
    assert!(services.iter().flat_map(|service| &service.listeners).all(is_idle));
}

#[test]
fn one_that_is_gone_is_seen() {
    let (mut sandbox, mut services) = two_direct();
    let proxy = services[0].listeners[0].local_addr().unwrap();
    services.remove(0);
    let event = assert_refused(&mut sandbox, proxy, libc::ECONNREFUSED, REASON_DEAD);
    assert_eq!((event.handle, event.record.depth), (1, 0));
    assert_eq!(sandbox.engine.open_handovers().unwrap(), 0);
    assert_eq!(sandbox.engine.open_flights().unwrap(), 0);
}

#[test]
fn a_stranger_in_its_place_gets_nothing() {
    let (mut sandbox, mut services) = two_direct();
    let proxy = services[0].listeners[0].local_addr().unwrap();
    services.remove(0);
    let everywhere = SocketAddr::from(([0, 0, 0, 0], proxy.port()));
    for maker in ["the application", "another service", "nobody of ours"] {
        let take = || listen(&proxy.to_string());
        let stranger = match maker {
            "the application" => sandbox.in_app(take),
            "another service" => sandbox.in_service(1, take),
            _ => take(),
        };
        for dialled in [proxy, everywhere] {
            let event = assert_refused(&mut sandbox, dialled, libc::ECONNREFUSED, REASON_STRANGER);
            assert_eq!((event.handle, event.record.depth), (1, 0), "{maker}");
        }
        assert!(is_idle(&stranger), "{maker}");
    }
    let revived = sandbox.in_service(0, || listen(&proxy.to_string()));
    for dialled in [proxy, everywhere] {
        let _client = sandbox.in_app(|| connect(dialled)).expect("the owner is back");
        assert_eq!(Redirect::of(&accept(&revived)).flow().expect("flow").destination(), proxy, "{dialled}");
    }
}

fn two_direct() -> (Sandbox, Vec<Service>) {
    let mut sandbox = Sandbox::new();
    let services = vec![sandbox.service(Awareness::Aware), sandbox.service(Awareness::Aware)];
    for provider in &mut sandbox.policy.providers {
        provider.direct = true;
    }
    sandbox.apply();
    (sandbox, services)
}

type Connected = Result<TcpStream, i32>;

/// One connection of a service's, and the decision on it.
fn as_service(sandbox: &mut Sandbox, index: usize, act: impl FnOnce() -> Connected) -> (Connected, Event) {
    sandbox.events();
    let result = sandbox.in_service(index, act);
    let event = sandbox.events().into_iter().find(|event| event.kind == EVENT_CONNECT).expect("a decision");
    (result, event)
}
