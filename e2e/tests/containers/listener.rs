//! The provider's listener in the application's network namespace.

use carnet::Redirect;
use carnet_abi::{EVENT_CONNECT, EVENT_END, VERDICT_PASS, VERDICT_REDIRECT, flow_id};
use carnet_e2e::actor::{Call, Family};
use carnet_e2e::netns::{cookie, with_neighbour};
use carnet_e2e::sockets::{accept, assert_joined, canonical, is_idle, listen, mapped};
use carnet_policy::Service as Kind;

use crate::container::{Container, NETWORK, ROOTLESS};
use crate::{ANYWHERE, application, assert_nothing_left, at, flow_of, listen_in, sandbox};

/// The service is on the host and has opened a listener in the container. What it dials leaves from the host, through
/// the next service, which is on the host alone. The container itself has no way out: it has a loopback interface.
#[test]
fn a_service_on_the_host_that_listens_in_the_container_has_its_flows() {
    let servers = || ["10.99.0.2:0", "[fd99::2]:0"].map(listen);
    with_neighbour(servers, |servers| {
        for namespaces in [NETWORK, ROOTLESS] {
            let mut sandbox = sandbox();
            let [first, second] = [(); 2].map(|()| sandbox.service(Kind::Aware));
            let container = application(&sandbox, "container", namespaces);
            let inside = listen_in(&sandbox, &first, &container.namespace);
            for (family, place) in [(Family::V4, 0), (Family::Dual, 0), (Family::V6, 1)] {
                let destination = at(&servers[place]);
                let asked = if family == Family::Dual { mapped(destination) } else { destination };
                let client = container.socket(family);
                let mut client = container.connect(client, asked).expect("connect");
                let mut accepted = accept(&inside[place]);
                let redirect = Redirect::of(&accepted);
                let flow = redirect.flow().expect("flow");
                container.assert_is(flow.origin(), &client);
                assert_eq!((flow.destination(), flow.origin().destination), (destination, destination));
                assert_eq!(flow.origin().source, Some(canonical(client.local_addr().unwrap())));
                assert_eq!(redirect.original_destination().unwrap(), destination);
                assert_eq!(container.call(&Call::PeerName, &client).name, Some(asked));
                assert_joined(&mut client, &mut accepted);

                let mut onward = sandbox.in_service(0, || carnet::dial(&accepted)).expect("dial");
                let mut at_second = accept(&second.listeners[place]);
                let next = flow_of(&at_second);
                assert_eq!((next.id(), next.origin(), next.depth()), (flow.id(), flow.origin(), 2));
                assert_ne!(cookie(&onward), cookie(&client));
                assert_joined(&mut onward, &mut at_second);
                let mut last = sandbox.in_service(1, || carnet::dial(&at_second)).expect("dial");
                assert_eq!(cookie(&last), cookie(&onward));
                assert_joined(&mut last, &mut accept(&servers[place]));
                drop((client, accepted, onward, at_second, last));

                let listeners = [&first.listeners, &second.listeners, &inside];
                assert!(listeners.into_iter().flatten().chain(&servers).all(is_idle));
                assert_nothing_left(&sandbox);
                let mut events = sandbox.events();
                events.retain(|event| flow_id(event.record.flow) == flow.id());
                let told = |kind| events.iter().filter(move |event| event.kind == kind);
                let verdicts: Vec<_> = told(EVENT_CONNECT).map(|event| event.verdict).collect();
                assert_eq!(verdicts, [VERDICT_REDIRECT, VERDICT_REDIRECT, VERDICT_PASS]);
                assert_eq!(told(EVENT_END).count(), 3);
            }
        }
    });
}

/// A container without a network namespace of its own is, to Carnet, a process of the host.
#[test]
fn a_container_with_the_hosts_network_has_the_hosts_listener() {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    let cgroup = sandbox.app_cgroup().child("container").unwrap();
    let own_network = ROOTLESS.iter().position(|word| *word == "--net").unwrap();
    let container = Container::with(cgroup, &ROOTLESS[..own_network], "true");
    let mut client = container.dial(ANYWHERE).expect("connect");
    let mut accepted = accept(&service.listeners[0]);
    container.assert_is(flow_of(&accepted).origin(), &client);
    assert_joined(&mut client, &mut accepted);
}
