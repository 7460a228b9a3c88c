//! Two engines govern the very same cgroup. Whose programs were attached first has the connection; the other one has what
//! the first one's services dial, where it governs them.

use carnet::Redirect;
use carnet_e2e::sockets::{accept, connect, connect_on, listen, stream};
use carnet_e2e::{Ground, Sandbox, set_records};
use libc::ELOOP;

use crate::walk::{Party, assert_arrives, left_alone};

/// Its services are below the governed cgroup, so that the other engine has their connections.
#[test]
fn the_engine_attached_first_has_the_flow_and_the_second_one_what_its_services_dial() {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let ground = Ground::new();
    let beside = Ground::beside(&ground);
    let first = Party::of(Sandbox::on(ground));
    let mut second = Party::of(Sandbox::on(beside));

    let client = first.sandbox.in_app(|| connect(destination)).expect("connect");
    assert_eq!(client.peer_addr().unwrap(), destination);
    let mut hops = first.walk(destination, first.sandbox.app_cgroup().id());
    hops.extend(second.walk(destination, first.last_cgroup()));
    first.assert_idle();
    second.assert_idle();
    assert_arrives(client, hops, &server);
    let listeners = first.listeners(destination);
    assert_eq!(second.decisions()[..2], [left_alone(listeners[0]), left_alone(listeners[1])]);
}

/// Its services are outside of what the other engine governs, which therefore has nothing. It says so.
#[test]
fn services_that_the_second_engine_does_not_govern_end_the_way() {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let ground = Ground::new();
    let beside = Ground::beside(&ground);
    let first = Party::of(Sandbox::on(beside));
    let mut second = Party::of(Sandbox::on(ground));

    let client = first.sandbox.in_app(|| connect(destination)).expect("connect");
    assert_eq!(client.peer_addr().unwrap(), destination);
    let hops = first.walk(destination, first.sandbox.app_cgroup().id());
    first.assert_idle();
    second.assert_idle();
    assert_arrives(client, hops, &server);
    assert_eq!(second.decisions(), [left_alone(first.listeners(destination)[0])]);
}

/// What must not be set up: both engines govern the services of both. Neither knows of a connection that the other one's
/// service makes whether it has had that flow, so it goes round, until the limit of flows under way ends it.
#[test]
fn services_that_both_engines_govern_go_round_until_the_limit() {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let ground = Ground::new();
    let amid = Ground::amid(&ground);
    let mut first = Party::of(Sandbox::on(ground));
    let second = Party::of(Sandbox::on(amid));
    first.sandbox.policy.providers[0].in_flight_limit = 2;
    first.sandbox.apply();

    let client = first.sandbox.in_app(|| connect(destination)).expect("connect");
    let mut hops = first.walk(destination, first.sandbox.app_cgroup().id());
    hops.push(second.hop(0, destination, first.last_cgroup(), &[1]));
    hops.extend(first.walk(destination, second.sandbox.service_cgroup(0).id()));
    let accepted = accept(&second.services[0].listeners[0]);
    let blob = Redirect::of(&accepted).records().expect("records");
    let refused = second.sandbox.in_service(0, || {
        let socket = stream(destination);
        set_records(&socket, blob.as_bytes()).expect("SET");
        connect_on(socket, &destination.into())
    });
    assert_eq!(refused.unwrap_err(), ELOOP);
    first.assert_idle();
    second.assert_idle();
    drop((client, hops));
}
