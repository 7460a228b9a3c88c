//! getsockname() where somebody else's programs answer it, too, or another engine's.

use std::net::{Ipv4Addr, SocketAddrV4};

use carnet_e2e::Ground;
use carnet_e2e::sockets::{connect, listen};
use carnet_policy::SockName;

use crate::foreign::{Place, Seen, beside_services};
use crate::nested::on_both;
use crate::walk::assert_arrives;

/// Who runs last has the last word, as at getpeername(). Where that is another program the service goes by its answer.
#[test]
fn the_last_program_has_the_last_word() {
    for place in Place::ALL {
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap();
        let (foreign, mut party) = beside_services(place, &["vip_sockname4"]);
        foreign.translate(OTHER, OTHER);
        party.sandbox.policy.providers[0].sockname = SockName::Destination;
        party.sandbox.apply();
        let client = party.sandbox.in_app(|| connect(destination)).expect("connect");
        let hops = party.walk(destination, party.sandbox.app_cgroup().id());
        let carnet_is_last = matches!(place, Place::Before | Place::Child);
        let answer = if carnet_is_last { destination } else { OTHER.into() };
        assert_eq!(hops[0].0.local_addr().unwrap(), answer, "{place:?}");
        assert!(foreign.seen(Seen::Names) > 0);
        party.assert_idle();
        assert_arrives(client, hops, &server);
    }
}

/// An inner engine's sockets are no other's business, and the other way round.
#[test]
fn each_engine_answers_of_its_own_services_sockets() {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let ground = Ground::new();
    let inside = Ground::inside(&ground.service(0));
    let (mut outer, mut inner) = on_both(ground, inside, true);
    for (party, wants) in [(&mut outer, [false, true]), (&mut inner, [true, false])] {
        for (provider, wants) in party.sandbox.policy.providers.iter_mut().zip(wants) {
            provider.sockname = if wants { SockName::Destination } else { SockName::Own };
        }
        party.sandbox.apply();
    }
    let client = inner.sandbox.in_app(|| connect(destination)).expect("connect");
    let mut hops = inner.walk(destination, inner.sandbox.app_cgroup().id());
    hops.push(outer.hop(1, destination, inner.last_cgroup(), &[2]));
    let answers: Vec<_> = hops.iter().map(|(accepted, _)| accepted.local_addr().unwrap()).collect();
    assert_eq!(answers, [destination, inner.listeners(destination)[1], destination]);
    assert_arrives(client, hops, &server);
}

/// Nobody's, so that it is told from everybody's.
const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 4711);
