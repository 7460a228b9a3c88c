//! Listeners and connections that are older than the engine.

use std::net::{SocketAddr, TcpListener};

use carnet::{ErrorKind, Redirect};
use carnet_e2e::Ground;
use carnet_e2e::sockets::{assert_joined, listen};

use super::mptcp::listen_for_mptcp_at;
use super::{Course, Way};

/// Whose a listener is can be seen when a connection comes: nothing has to be there when it is made.
#[test]
fn listeners_that_no_engine_has_seen_made() {
    let mptcp = |at: &str| listen_for_mptcp_at(at.parse::<SocketAddr>().unwrap());
    for make in [listen, mptcp] {
        let ground = Ground::new();
        let listeners =
            [0, 1].map(|index| ground.within(&ground.service(index), || ["127.0.0.1:0", "[::1]:0"].map(make).into()));
        let servers = ["127.0.0.1:0", "[::1]:0"].map(listen);
        let mut course = Course::on(ground, listeners, servers);
        for way in Way::ALL {
            let client = course.sandbox.in_app(|| super::connected(way.socket(), course.destination(way)));
            course.follow(client, way);
        }
    }
}

/// The next engine knows nothing of the connections of the one before. They stay what they are to both ends; a service
/// that asks late is told that there is no record, and one that sets an old record is refused.
#[test]
fn connections_of_an_engine_that_is_gone() {
    let course = Course::new();
    let way = Way::V4;
    let mut client = course.sandbox.in_app(|| super::connected(way.socket(), course.destination(way)));
    let mut old = course.arrive(way, Some(&client), b"").socket;
    let records = Redirect::of(&old).records().unwrap();
    let waiting = course.sandbox.in_app(|| super::connected(way.socket(), course.destination(way)));

    let Course { sandbox, services, servers } = course;
    let listeners: [Vec<TcpListener>; 2] = services.map(|service| service.listeners);
    let mut course = Course::on(sandbox.leave(), listeners, servers);
    assert_joined(&mut client, &mut old);
    let listener = course.services[0].listeners[0].local_addr().unwrap();
    assert_eq!(client.peer_addr().unwrap(), listener, "nobody says otherwise any more");
    let accepted = carnet_e2e::sockets::accept(&course.services[0].listeners[0]);
    for connection in [&old, &accepted] {
        assert_eq!(Redirect::of(connection).flow().unwrap_err().kind(), ErrorKind::NotRedirected);
    }
    let outgoing = course.sandbox.in_service(0, || way.socket());
    let refused = course.sandbox.in_service(0, || records.apply_to(&outgoing)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Stale);
    drop((client, old, waiting, accepted));
    for way in Way::ALL {
        let client = course.sandbox.in_app(|| super::connected(way.socket(), course.destination(way)));
        course.follow(client, way);
    }
}
