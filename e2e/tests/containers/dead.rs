//! The provider has no listener in the application's network namespace: on-dead decides.

use carnet_abi::{REASON_DEAD, REASON_DEFAULT, REASON_RULE, VERDICT_PASS, VERDICT_REDIRECT, VERDICT_REFUSE};
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen};
use carnet_policy::{OnDead, Service as Kind};

use crate::container::{NETWORK, ROOTLESS};
use crate::{application, at, decided, flow_of, listen_in, sandbox};

/// The host's listener is alive, and has what comes from the host; another container's is, too.
#[test]
fn closed_refuses() {
    for namespaces in [NETWORK, ROOTLESS] {
        let mut sandbox = sandbox();
        let service = sandbox.service(Kind::Aware);
        let other = application(&sandbox, "other", namespaces);
        let elsewhere = listen_in(&sandbox, &service, &other.namespace);
        let container = application(&sandbox, "container", namespaces);
        let servers = ["127.0.0.1:0", "[::1]:0"].map(|at| container.listen(at.parse().unwrap()));
        for server in &servers {
            let (result, decision) = decided(&mut sandbox, &container, at(server));
            assert_eq!(result.unwrap_err(), libc::ECONNREFUSED);
            assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_REFUSE, REASON_DEAD, 1));
            assert_eq!((decision.pid, decision.record.origin.cgroup_id), (container.pid, container.cgroup.id()));
        }
        assert!(service.listeners.iter().chain(&elsewhere).chain(&servers).all(is_idle));

        let _client = sandbox.in_app(|| connect(at(&servers[0]))).expect("on the host it is there");
        flow_of(&accept(&service.listeners[0]));
        let inside = listen_in(&sandbox, &service, &container.namespace);
        let _client = container.dial(at(&servers[0])).expect("and now in the container too");
        flow_of(&accept(&inside[0]));
    }
}

#[test]
fn open_passes_to_the_next_service_that_listens_there_and_then_to_the_destination() {
    for namespaces in [NETWORK, ROOTLESS] {
        let mut sandbox = sandbox();
        let [first, second] = [(); 2].map(|()| sandbox.service(Kind::Aware));
        for provider in &mut sandbox.policy.providers {
            provider.on_dead = OnDead::Open;
        }
        sandbox.apply();
        let container = application(&sandbox, "container", namespaces);
        let server = container.namespace.within(|| listen("127.0.0.1:0"));

        let inside = listen_in(&sandbox, &second, &container.namespace);
        let (client, decision) = decided(&mut sandbox, &container, at(&server));
        client.expect("connect");
        assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_REDIRECT, REASON_RULE, 2));
        assert_eq!(flow_of(&accept(&inside[0])).depth(), 1);

        drop(inside);
        let (client, decision) = decided(&mut sandbox, &container, at(&server));
        assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_PASS, REASON_DEFAULT, 0));
        assert_joined(&mut client.expect("connect"), &mut accept(&server));
        assert!(first.listeners.iter().chain(&second.listeners).all(is_idle));
    }
}
