//! Somebody else listens where the provider's listener would be, in the application's network namespace or in another.

use std::net::SocketAddr;

use carnet::{ErrorKind, Redirect};
use carnet_abi::{REASON_DEAD, REASON_NOT_DIRECT, REASON_STRANGER, VERDICT_PASS, VERDICT_REDIRECT, VERDICT_REFUSE};
use carnet_e2e::Sandbox;
use carnet_e2e::netns::{Namespace, with_neighbour};
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen};
use carnet_engine::cgroup::Cgroup;
use carnet_policy::{Owner, Service as Kind};

use crate::container::{AS_USER, Container, NETWORK, ROOTLESS, UID};
use crate::{ANYWHERE, application, at, decided, flow_of, listen_in, sandbox};

/// Whoever it is: root of the container, a process of the host that was brought into it, the other service.
#[test]
fn one_who_listens_in_the_container_where_the_service_does_on_the_host_gets_nothing() {
    for namespaces in [NETWORK, ROOTLESS] {
        let mut sandbox = sandbox();
        let service = sandbox.service(Kind::Aware);
        let _other = sandbox.service(Kind::Aware);
        let container = application(&sandbox, "container", namespaces);
        let server = container.namespace.within(|| listen("127.0.0.1:0"));
        let taken = at(&service.listeners[0]);
        for maker in ["the container", "the host", "another service"] {
            let listen_there = || container.namespace.within(|| listen(&taken.to_string()));
            let stranger = match maker {
                "the container" => container.listen(taken),
                "the host" => listen_there(),
                _ => sandbox.in_service(1, listen_there),
            };
            assert_refused(&mut sandbox, &container, at(&server), REASON_STRANGER);
            assert!(is_idle(&stranger) && is_idle(&server), "{maker}");
            assert!(Redirect::of(&stranger).records().is_err(), "{maker}");
        }
        let inside = listen_in(&sandbox, &service, &container.namespace);
        let _client = container.dial(at(&server)).expect("its own listener is there");
        flow_of(&accept(&inside[0]));
        assert!(service.listeners.iter().all(is_idle));
    }
}

/// The root of a user namespace is uid 0 to itself alone.
#[test]
fn root_of_a_user_namespace_is_not_root_as_an_owner() {
    let (mut sandbox, taken) = owned_by_uid(0);
    let container = application(&sandbox, "container", ROOTLESS);
    let stranger = container.listen(taken);
    assert_refused(&mut sandbox, &container, ANYWHERE, REASON_STRANGER);
    assert!(is_idle(&stranger));
}

/// An owner that is a uid is that uid in every container: as root of a user namespace that this user has made, and where
/// a process of a container without user namespaces takes it on. So containers want owners that are cgroups.
#[test]
fn an_owner_by_uid_is_that_uid_in_every_container_and_one_by_cgroup_is_not() {
    let (mut sandbox, taken) = owned_by_uid(UID);
    let rootless = application(&sandbox, "rootless", ROOTLESS);
    let beside_it = Container::beside(&rootless, child(&sandbox, "other"), &["env"]);
    let plain = application(&sandbox, "plain", NETWORK);
    let changed = Container::beside(&plain, child(&sandbox, "changed"), AS_USER);
    let listeners = [&rootless, &changed].map(|of_that_uid| of_that_uid.listen(taken));
    let others = [&beside_it, &plain];
    for (listener, other) in listeners.iter().zip(others) {
        let (client, decision) = decided(&mut sandbox, other, ANYWHERE);
        client.expect("connect");
        assert_eq!((decision.verdict, decision.handle, decision.pid), (VERDICT_REDIRECT, 1, other.pid));
        accept(listener);
    }
    // And what that user dials is the service's own: no service of this rank has it.
    for of_that_uid in [&rootless, &changed] {
        let decision = decided(&mut sandbox, of_that_uid, ANYWHERE).1;
        assert_eq!((decision.verdict, decision.dialer, decision.record.depth), (VERDICT_PASS, 1, 0));
    }

    sandbox.policy.providers[0].owners =
        vec![Owner::Cgroup { id: sandbox.service_cgroup(0).id(), level: sandbox.service_cgroup(0).level() }];
    sandbox.apply();
    for container in [&rootless, &changed, &beside_it, &plain] {
        assert_refused(&mut sandbox, container, ANYWHERE, REASON_STRANGER);
    }
    assert!(listeners.iter().all(is_idle));
}

/// There is a way from the container to the host's listener, over the network. It is in another namespace all the same:
/// what came by that way would bring no record, so nobody is sent there.
#[test]
fn a_listener_of_the_host_is_not_the_containers_though_it_can_be_reached() {
    with_neighbour(Namespace::own, |neighbour| {
        let mut sandbox = sandbox();
        let service = sandbox.service_at(Kind::Aware, &["10.99.0.1:0", "[fd99::1]:0"]);
        let cgroup = child(&sandbox, "container");
        let container = neighbour.within(|| Container::start(cgroup, &["env"]));
        for (there, listener) in ["10.99.0.1:0", "[fd99::1]:0"].map(listen).iter().zip(&service.listeners) {
            neighbour.within(|| drop(connect(at(there)).expect("there is a way")));
            accept(there);
            assert_refused(&mut sandbox, &container, at(there), REASON_DEAD);
            assert_refused(&mut sandbox, &container, at(listener), REASON_NOT_DIRECT);
            assert!(is_idle(there) && is_idle(listener));
        }
    });
}

/// Whoever listens at an address of the service's is dialled for what it is, as at any other: where the service's filters
/// want that address, it is the service that has a stranger in its place.
#[test]
fn a_container_reaches_its_own_listener_at_an_address_of_the_service() {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    let container = application(&sandbox, "container", ROOTLESS);
    let to = at(&service.listeners[0]);
    // Nobody listens there: it is the service's address.
    assert_refused(&mut sandbox, &container, to, REASON_NOT_DIRECT);
    let own = container.listen(to);
    assert_refused(&mut sandbox, &container, to, REASON_STRANGER);
    assert!(is_idle(&own));
    sandbox.policy.providers[0].filters.clear();
    sandbox.apply();
    let (client, decision) = decided(&mut sandbox, &container, to);
    assert_eq!((decision.verdict, decision.handle), (VERDICT_PASS, 0));
    assert_joined(&mut client.expect("connect"), &mut accept(&own));
    // Who dials an explicit proxy wants no other.
    sandbox.policy.providers[0].direct = true;
    sandbox.apply();
    assert_refused(&mut sandbox, &container, to, REASON_STRANGER);
    assert!(is_idle(&own) && is_idle(&service.listeners[0]));
}

/// Carnet knows the addresses of its own namespace. By another address of the container's a wildcard listener there is a
/// destination like any other: the service that dials it finds itself, and its own connection brings no record. At
/// loopback addresses alone it would find nobody.
#[test]
fn a_wildcard_listener_in_a_container_is_the_services_by_loopback_addresses_alone() {
    with_neighbour(Namespace::own, |neighbour| {
        for wildcard in ["0.0.0.0:0", "127.0.0.1:0"] {
            let mut sandbox = sandbox();
            let service = sandbox.service_at(Kind::Aware, &[wildcard]);
            let inside = listen_in(&sandbox, &service, &neighbour).swap_remove(0);
            let cgroup = child(&sandbox, "container");
            let container = neighbour.within(|| Container::start(cgroup, &["env"]));
            assert_refused(&mut sandbox, &container, ([127, 0, 0, 1], at(&inside).port()).into(), REASON_NOT_DIRECT);

            let outside = SocketAddr::new([10, 99, 0, 2].into(), at(&inside).port());
            let _client = container.dial(outside).expect("connect");
            let accepted = accept(&inside);
            assert_eq!(flow_of(&accepted).destination(), outside);
            let dialled = sandbox.in_service(0, || carnet::dial(&accepted));
            if at(&inside).ip().is_loopback() {
                assert_eq!(dialled.unwrap_err().os_error(), Some(libc::ECONNREFUSED));
            } else {
                dialled.expect("it has dialled itself");
                let kind = Redirect::of(&accept(&inside)).flow().expect_err("a connection of its own").kind();
                assert_eq!(kind, ErrorKind::ContextLost);
            }
        }
    });
}

fn child(sandbox: &Sandbox, name: &str) -> Cgroup {
    sandbox.app_cgroup().child(name).unwrap()
}

/// A service whose owner is a uid, and where it is to listen: nobody does.
fn owned_by_uid(uid: u32) -> (Sandbox, SocketAddr) {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    sandbox.policy.providers[0].owners = vec![Owner::Uid(uid)];
    sandbox.apply();
    (sandbox, at(&service.listeners[0]))
}

fn assert_refused(sandbox: &mut Sandbox, container: &Container, to: SocketAddr, reason: u32) {
    let (result, decision) = decided(sandbox, container, to);
    assert_eq!(result.unwrap_err(), libc::ECONNREFUSED);
    assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_REFUSE, reason, 1));
}
