//! Processes that move from namespace to namespace, and sockets that are passed from one to another. A socket stays in
//! the network namespace in which it was made, and that is the one that counts.

use carnet_abi::{EVENT_CONNECT, REASON_DEAD, VERDICT_REFUSE};
use carnet_e2e::actor::Family;
use carnet_e2e::netns::{Namespace, cookie};
use carnet_e2e::sockets::{accept, assert_joined, connect_on, is_idle, listen, stream};
use carnet_policy::Service as Kind;

use crate::container::{NETWORK, ROOTLESS};
use crate::{application, at, flow_of, listen_in, sandbox};

/// An application enters the container, makes a socket, goes back and connects it; and the other way round.
#[test]
fn a_process_that_moves_between_socket_and_connect() {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    let container = application(&sandbox, "container", ROOTLESS);
    let inside = listen_in(&sandbox, &service, &container.namespace);
    let host = Namespace::own();
    let server = listen("127.0.0.1:0");
    let to = at(&server);
    for (made, connected, mine, other) in [
        (&container.namespace, &host, &inside, &service.listeners),
        (&host, &container.namespace, &service.listeners, &inside),
    ] {
        let moving = || {
            made.within(|| {
                let socket = stream(to);
                connected.enter();
                connect_on(socket, &to.into())
            })
        };
        let mut client = sandbox.in_app(moving).expect("connect");
        let mut accepted = accept(&mine[0]);
        let flow = flow_of(&accepted);
        assert_eq!((flow.origin().pid, flow.origin().netns_cookie), (std::process::id(), cookie(&client)));
        assert_joined(&mut client, &mut accepted);
        assert!(is_idle(&other[0]) && is_idle(&server));
    }
}

/// One process makes the socket, another one elsewhere connects it (`SCM_RIGHTS`): the origin is who connects, and the
/// namespace is the socket's.
#[test]
fn a_socket_that_is_passed_into_another_namespace() {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    let maker = application(&sandbox, "maker", ROOTLESS);
    let inside = listen_in(&sandbox, &service, &maker.namespace);
    let server = listen("127.0.0.1:0");
    let host = application(&sandbox, "host", &["env"]);
    let rootless = application(&sandbox, "rootless", ROOTLESS);
    let plain = application(&sandbox, "plain", NETWORK);
    for connector in [&host, &rootless, &plain] {
        for family in [Family::V4, Family::Dual] {
            let to = if family == Family::V4 { at(&server) } else { carnet_e2e::sockets::mapped(at(&server)) };
            let mut client = connector.connect(maker.socket(family), to).expect("connect");
            let mut accepted = accept(&inside[0]);
            connector.assert_is(flow_of(&accepted).origin(), &client);
            assert_joined(&mut client, &mut accepted);
        }
    }
    // The other way round: no listener where the sockets are from.
    for (socket, connector) in [(plain.socket(Family::V4), &maker), (rootless.socket(Family::V4), &maker)] {
        sandbox.events();
        assert_eq!(connector.connect(socket, at(&server)).unwrap_err(), libc::ECONNREFUSED);
        // Ends of the connections before may be told as well.
        let decisions: Vec<_> = sandbox.events().into_iter().filter(|event| event.kind == EVENT_CONNECT).collect();
        let told: Vec<_> = decisions.iter().map(|event| (event.verdict, event.reason, event.pid)).collect();
        assert_eq!(told, [(VERDICT_REFUSE, REASON_DEAD, maker.pid)]);
    }
    assert!(inside.iter().chain(&service.listeners).chain([&server]).all(is_idle));
}
