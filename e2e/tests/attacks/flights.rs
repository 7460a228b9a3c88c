//! Places in the table of flights.

use std::net::SocketAddr;

use carnet::Redirect;
use carnet_e2e::Sandbox;
use carnet_e2e::sockets::{accept, connect, listen};
use carnet_policy::Service as Kind;

/// Places in the table of flights are looked for in a window of eight. Who could choose destinations that share one would
/// leave no place for somebody else's.
#[test]
fn destinations_cannot_be_chosen_to_take_anothers_place() {
    let mut sandbox = Sandbox::new();
    let (unaware, after) = (sandbox.service(Kind::Unaware), sandbox.service(Kind::Aware));
    let server = listen("127.0.0.1:0");
    let to = server.local_addr().unwrap();
    let place = unseeded(to);
    let others =
        (1..=u16::MAX).flat_map(|port| (1..=250).map(move |host| SocketAddr::from(([127, 0, 77, host], port))));
    let chosen: Vec<_> = others.filter(|&other| unseeded(other) == place).take(8).collect();
    assert_eq!(chosen.len(), 8);
    let _theirs = chosen.iter().map(|&other| sandbox.arrive(&unaware, other)).collect::<Vec<_>>();
    let (_client, accepted) = sandbox.arrive(&unaware, to);
    let _onward = sandbox.in_service(unaware.index, || connect(to)).unwrap();
    let flow = Redirect::of(&accept(&after.listeners[0])).flow().unwrap();
    assert!(flow.origin().inferred, "the flow's origin is lost");
    assert_eq!(flow.id(), Redirect::of(&accepted).flow().unwrap().id());
}

/// The place without the secret: `flight_home()` in the kernel program, for the first provider.
fn unseeded(to: SocketAddr) -> u32 {
    let SocketAddr::V4(v4) = to else { panic!("{to} is not IPv4") };
    let words = [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(v4.ip().octets())];
    let mut hash = 0x9e37_79b1_u32;
    for word in words {
        hash = (hash ^ word).wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 15;
    }
    hash = (hash ^ u32::from(to.port())).wrapping_mul(0xc2b2_ae35);
    (hash ^ hash >> 16) & 4095
}
