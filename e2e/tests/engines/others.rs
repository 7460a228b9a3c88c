//! connect() and getpeername() where somebody else's programs are on the same hooks.

use std::net::{SocketAddr, SocketAddrV4};

use carnet_abi::{EVENT_CONNECT, EVENT_END, HOW_FAILED, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::sockets::{connect, connect_on, listen, stream};
use socket2::{SockAddr, SockRef};

use crate::foreign::{Place, REFUSED, Seen, beside};
use crate::walk::assert_arrives;

#[test]
fn programs_that_look_on_change_nothing() {
    for place in Place::ALL {
        for destination in ["127.0.0.1:0", "[::1]:0"] {
            let server = listen(destination);
            let destination = server.local_addr().unwrap();
            let programs = ["pass_connect4", "pass_connect6", "pass_peername4", "pass_peername6"];
            let (foreign, party) = beside(place, &programs);
            let client = party.sandbox.in_app(|| connect(destination)).expect("connect");
            let hops = party.walk(destination, party.sandbox.app_cgroup().id());
            party.assert_idle();
            assert_eq!(client.peer_addr().unwrap(), destination, "{place:?}");
            assert_arrives(client, hops, &server);
            // Below the governed cgroup it sees the application alone.
            let connects = if place == Place::Child { 1 } else { 3 };
            assert_eq!(foreign.seen(Seen::Connects), connects, "{place:?}");
            assert!(foreign.seen(Seen::Peers) > 0, "{place:?}");
        }
    }
}

/// Carnet's programs see the translated address: to them, that is where the application goes.
#[test]
fn an_address_that_was_translated_before_is_the_destination() {
    // The balancer's answers to getpeername() are for sockets that lead to the real address. Where it is at the services
    // too, theirs do.
    for (place, programs) in
        [(Place::Before, &["vip_connect4"][..]), (Place::Child, &["vip_connect4", "vip_peername4"][..])]
    {
        let server = listen("127.0.0.1:0");
        let real = server.local_addr().unwrap();
        let (foreign, mut party) = beside(place, programs);
        foreign.translate(VIP, v4(real));
        let client = party.sandbox.in_app(|| connect(VIP.into())).expect("connect");
        let hops = party.walk(real, party.sandbox.app_cgroup().id());
        party.assert_idle();
        assert_eq!(foreign.seen(Seen::Translated), 1, "{place:?}");
        // The balancer's own answer is replaced by Carnet's, which comes after it.
        assert_eq!(client.peer_addr().unwrap(), real, "{place:?}");
        assert_arrives(client, hops, &server);
        assert!(party.decisions().iter().all(|decision| decision.2 == real), "{place:?}");
    }
}

/// The translating program sees the address of Carnet's listener, which it does not know. The last service dials what the
/// application asked for, and that is translated.
#[test]
fn an_address_is_translated_after_the_last_hop() {
    for place in [Place::After, Place::Ancestor] {
        let server = listen("127.0.0.1:0");
        let (foreign, mut party) = beside(place, &["vip_connect4", "vip_peername4"]);
        foreign.translate(VIP, v4(server.local_addr().unwrap()));
        let client = party.sandbox.in_app(|| connect(VIP.into())).expect("connect");
        let hops = party.walk(VIP.into(), party.sandbox.app_cgroup().id());
        party.assert_idle();
        assert_eq!((foreign.seen(Seen::Unknown), foreign.seen(Seen::Translated)), (2, 1), "{place:?}");
        assert_eq!(client.peer_addr().unwrap(), VIP.into(), "{place:?}");
        assert_arrives(client, hops, &server);
        assert!(party.decisions().iter().all(|decision| decision.2 == VIP.into()), "{place:?}");
    }
}

#[test]
fn what_was_refused_before_is_not_decided() {
    for place in [Place::Before, Place::Child] {
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap();
        let (foreign, mut party) = beside(place, &["refuse_connect4"]);
        let refused = party.sandbox.in_app(|| connect(destination));
        assert_eq!(refused.unwrap_err(), REFUSED, "{place:?}");
        assert_eq!(foreign.seen(Seen::Connects), 1);
        assert_eq!(party.sandbox.events(), [], "{place:?}: there is no flow");
        party.assert_idle();
        assert_eq!(party.sandbox.engine.open_handovers().unwrap(), 0);
        assert_eq!(party.sandbox.engine.open_flights().unwrap(), 0);
    }
}

/// Carnet has decided, and then connect() is refused: with the errno of who refused it, and nothing stays of the flow. The
/// same socket can be used when the other program has gone.
#[test]
fn what_is_refused_after_leaves_nothing() {
    for place in [Place::After, Place::Ancestor] {
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap();
        let (foreign, mut party) = beside(place, &["refuse_connect4"]);
        let socket = party.sandbox.in_app(|| stream(destination));
        let to = SockAddr::from(destination);
        let refused = party.sandbox.in_app(|| SockRef::from(&socket).connect(&to));
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(REFUSED), "{place:?}");
        party.assert_idle();
        assert_eq!(party.sandbox.engine.open_handovers().unwrap(), 0);
        assert_eq!(party.sandbox.engine.open_flights().unwrap(), 0);

        drop(foreign);
        let client = party.sandbox.in_app(|| connect_on(socket, &to)).expect("connect");
        let hops = party.walk(destination, party.sandbox.app_cgroup().id());
        assert_arrives(client, hops, &server);
        let events = party.sandbox.events_until(|event| event.kind == EVENT_END && event.verdict == VERDICT_PASS);
        let told: Vec<_> = events.iter().map(|event| (event.kind, event.verdict, event.base)).collect();
        assert_eq!(
            told[..3],
            [
                (EVENT_CONNECT, VERDICT_REDIRECT, 0),
                (EVENT_END, VERDICT_REDIRECT, 0),
                (EVENT_CONNECT, VERDICT_REDIRECT, 0)
            ],
            "{place:?}"
        );
        assert_eq!((events[1].how, events[1].cookie), (HOW_FAILED, events[0].cookie));
    }
}

/// Nobody is there: in a network of its own it would be the address of a service.
const VIP: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(198, 51, 100, 7), 4711);

fn v4(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(address) = address else { panic!("{address} is IPv4") };
    address
}
