//! Services in one chain of which one is on the host and one in the container, and where each hop leaves from.

use std::net::TcpListener;

use carnet_abi::{
    EVENT_CONNECT, REASON_DEAD, REASON_ELSEWHERE, REASON_LATELY, VERDICT_PASS, VERDICT_REDIRECT, VERDICT_REFUSE,
};
use carnet_e2e::Sandbox;
use carnet_e2e::actor::{Call, Family};
use carnet_e2e::netns::{Namespace, cookie, with_neighbour};
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen};
use carnet_policy::Service as Kind;

use crate::container::{Container, NETWORK, ROOTLESS};
use crate::{application, at, decided, flow_of, listen_in, sandbox};

/// Two services, an application, and a service of the first or second place beside it.
struct Pod {
    application: Container,
    sidecar: Container,
    /// The sidecar's.
    inside: TcpListener,
    /// Of the service on the host, in the container.
    from_the_host: TcpListener,
    /// The same on the host.
    on_the_host: TcpListener,
    /// Last, so that it goes last.
    sandbox: Sandbox,
}

impl Pod {
    fn new(namespaces: &[&str], place_of_the_sidecar: usize) -> Self {
        let mut sandbox = sandbox();
        let mut services = [(); 2].map(|()| sandbox.service(Kind::Aware));
        let application = application(&sandbox, "application", namespaces);
        let cgroup = sandbox.service_cgroup(place_of_the_sidecar).child("sidecar").unwrap();
        let sidecar = Container::beside(&application, cgroup, &["env"]);
        let inside = sidecar.listen(at(&services[place_of_the_sidecar].listeners[0]));
        let host = &mut services[1 - place_of_the_sidecar];
        let from_the_host = listen_in(&sandbox, host, &application.namespace).swap_remove(0);
        let on_the_host = host.listeners.swap_remove(0);
        Self { application, sidecar, inside, from_the_host, on_the_host, sandbox }
    }
}

/// The container's service has it first; the one on the host is next, by its listener in the container, and the last hop
/// leaves from the host. The container has no way out of its own.
#[test]
fn the_containers_service_first_and_then_the_hosts() {
    with_neighbour(
        || listen("10.99.0.2:0"),
        |server| {
            for namespaces in [NETWORK, ROOTLESS] {
                let pod = Pod::new(namespaces, 0);
                let mut client = pod.application.dial(at(&server)).expect("connect");
                let mut at_first = accept(&pod.inside);
                let mut onward = pod.sidecar.dial_on(&at_first, at(&server)).expect("connect");
                let mut at_second = accept(&pod.from_the_host);
                let (before, after) = (flow_of(&at_first), flow_of(&at_second));
                pod.application.assert_is(after.origin(), &client);
                assert_eq!((after.id(), after.origin(), after.depth()), (before.id(), before.origin(), 2));
                assert_eq!(cookie(&onward), cookie(&client));
                let mut last = pod.sandbox.in_service(1, || carnet::dial(&at_second)).expect("dial");
                assert_ne!(cookie(&last), cookie(&client));
                assert_joined(&mut client, &mut at_first);
                assert_joined(&mut onward, &mut at_second);
                assert_joined(&mut last, &mut accept(&server));
                assert!(is_idle(&pod.on_the_host));
            }
        },
    );
}

/// The other way round the service on the host has to go on in the container: there the next one listens. On the host it
/// does not, and on-dead decides.
#[test]
fn the_hosts_service_first_and_then_the_containers() {
    for namespaces in [NETWORK, ROOTLESS] {
        let mut pod = Pod::new(namespaces, 1);
        let server = pod.application.namespace.within(|| listen("127.0.0.1:0"));
        let mut client = pod.application.dial(at(&server)).expect("connect");
        let mut at_first = accept(&pod.from_the_host);
        assert_joined(&mut client, &mut at_first);

        pod.sandbox.events();
        let refused = pod.sandbox.in_service(0, || carnet::dial(&at_first)).expect_err("there is nobody on the host");
        assert_eq!(refused.os_error(), Some(libc::ECONNREFUSED));
        let decisions = pod.sandbox.events();
        let decision = decisions.iter().find(|event| event.base == 1).unwrap();
        assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_REFUSE, REASON_DEAD, 2));

        let in_the_container = || pod.application.namespace.within(|| carnet::dial(&at_first));
        let mut onward = pod.sandbox.in_service(0, in_the_container).expect("dial");
        let mut at_second = accept(&pod.inside);
        pod.application.assert_is(flow_of(&at_second).origin(), &client);
        assert_joined(&mut onward, &mut at_second);
        let mut last = pod.sidecar.dial_on(&at_second, at(&server)).expect("connect");
        assert_eq!([cookie(&onward), cookie(&last)], [cookie(&client); 2]);
        assert_joined(&mut last, &mut accept(&server));
    }
}

/// 127.0.0.1 is another machine in each namespace. On the host it would be the host's, which the container could never reach:
/// a flow to the container's own loopback has to be dialled in the container, or not to be redirected.
#[test]
fn the_containers_loopback_cannot_be_dialled_on_the_host() {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    let container = application(&sandbox, "container", ROOTLESS);
    let listeners = listen_in(&sandbox, &service, &container.namespace);
    let on_the_host = listen("127.0.0.1:0");
    let to = at(&on_the_host);
    let inside = container.namespace.within(|| listen(&to.to_string()));

    let _client = container.dial(to).expect("connect");
    let accepted = accept(&listeners[0]);
    sandbox.events();
    let refused = sandbox.in_service(0, || carnet::dial(&accepted)).expect_err("it is the host's there");
    assert_eq!(refused.os_error(), Some(libc::ENETUNREACH));
    let decision = sandbox.events_until(|event| event.kind == EVENT_CONNECT && event.base == 1).pop().unwrap();
    assert_eq!(
        (decision.verdict, decision.reason, decision.error),
        (VERDICT_REFUSE, REASON_ELSEWHERE, libc::ENETUNREACH)
    );
    assert!(is_idle(&on_the_host) && is_idle(&inside));
    // Its own connection to that address is its own business.
    let mut own = sandbox.in_service(0, || connect(to)).expect("connect");
    assert_joined(&mut own, &mut accept(&on_the_host));
    let in_the_container = || container.namespace.within(|| carnet::dial(&accepted));
    let mut onward = sandbox.in_service(0, in_the_container).expect("dial");
    assert_joined(&mut onward, &mut accept(&inside));

    // No filter of the service's matches.
    sandbox.policy.providers[0].filters.clear();
    sandbox.apply();
    let (client, decision) = decided(&mut sandbox, &container, to);
    assert_eq!(decision.verdict, VERDICT_PASS);
    assert_joined(&mut client.expect("connect"), &mut accept(&inside));
    assert!(is_idle(&on_the_host) && is_idle(&listeners[0]));
}

/// A container's root may bind a socket to an interface, of which the number is in the record. On the host it is another
/// interface's, and the last hop is not bound to that.
#[test]
fn an_interface_of_the_containers_is_none_of_the_hosts() {
    with_neighbour(
        || listen("10.99.0.2:0"),
        |server| {
            for namespaces in [NETWORK, ROOTLESS] {
                let mut sandbox = sandbox();
                let service = sandbox.service(Kind::Aware);
                let container = application(&sandbox, "container", namespaces);
                let listeners = listen_in(&sandbox, &service, &container.namespace);
                let socket = container.socket(Family::V4);
                let bind = Call::Set(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo\0".to_vec());
                assert_eq!(container.call(&bind, &socket).error, 0);
                let _client = container.connect(socket, at(&server)).expect("connect");
                let accepted = accept(&listeners[0]);
                assert_eq!(flow_of(&accepted).origin().bound_interface, Some(1));
                let mut last = sandbox.in_service(0, || carnet::dial(&accepted)).expect("dial");
                assert_joined(&mut last, &mut accept(&server));
            }
        },
    );
}

/// Where a destination has refused a flow's last hop, connect() says so for a while: to who is in the application's
/// namespace, wherever that hop left from.
#[test]
fn what_a_destination_has_refused_is_remembered_for_the_applications_namespace() {
    with_neighbour(Namespace::own, |_neighbour| {
        let mut sandbox = sandbox();
        let service = sandbox.service(Kind::Aware);
        let container = application(&sandbox, "container", ROOTLESS);
        let listeners = listen_in(&sandbox, &service, &container.namespace);
        let closed = ([10, 99, 0, 2], 9).into();
        let _client = container.dial(closed).expect("connect");
        let accepted = accept(&listeners[0]);
        let refused = sandbox.in_service(0, || carnet::dial(&accepted)).expect_err("nobody is there");
        assert_eq!(refused.os_error(), Some(libc::ECONNREFUSED));

        let (result, decision) = decided(&mut sandbox, &container, closed);
        assert_eq!((result.unwrap_err(), decision.reason), (libc::ECONNREFUSED, REASON_LATELY));
        let (result, decision) = sandbox.decided(|| connect(closed));
        result.expect("connect");
        assert_eq!((decision.verdict, decision.handle), (VERDICT_REDIRECT, 1));
    });
}
