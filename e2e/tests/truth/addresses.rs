//! This host's own addresses, by which wildcard listeners can be dialled.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;

use carnet_e2e::Sandbox;
use carnet_e2e::netns::{self, ip};
use carnet_e2e::programs::Scratch;
use carnet_e2e::sockets::{listen, until};
use carnet_engine::RouteNotice;
use libbpf_rs::MapCore;

use crate::Mirror;

/// Those the kernel program knows. IPv4 ones are mapped.
fn known(sandbox: &Sandbox) -> BTreeSet<Ipv6Addr> {
    let map = sandbox.engine.map_handle("carnet_local").unwrap();
    map.keys().map(|key| Ipv6Addr::from(<[u8; 16]>::try_from(key).unwrap())).collect()
}

#[test]
fn addresses_that_come_are_known_and_those_that_go_are_forgotten() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |_there| {
            let sandbox = Sandbox::new();
            let [v4, v6, new]: [Ipv6Addr; 3] =
                ["::ffff:10.99.0.1", "fd99::1", "::ffff:10.99.0.77"].map(|ip| ip.parse().unwrap());
            let before = known(&sandbox);
            assert!(before.contains(&v4) && before.contains(&v6) && !before.contains(&new), "{before:?}");
            assert!(before.iter().all(|ip| !ip.to_canonical().is_loopback()), "{before:?}");
            let mirror = Mirror::of(&sandbox);
            for _ in 0..2 {
                ip("addr add 10.99.0.77/24 dev carnet0");
                until("the new address", || known(&sandbox).contains(&new).then_some(()));
                ip("addr del 10.99.0.77/24 dev carnet0");
                until("the new address to go", || (!known(&sandbox).contains(&new)).then_some(()));
            }
            assert!(known(&sandbox).contains(&v4));
            ip("addr del fd99::1/64 dev carnet0");
            until("an old address to go", || (!known(&sandbox).contains(&v6)).then_some(()));
            assert!(mirror.end().is_empty());
        },
    );
}

#[test]
fn more_addresses_than_fit_are_no_failure() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |_there| {
            let lines = (0..4200).map(|n| format!("addr add 10.100.{}.{}/32 dev carnet0\n", n / 250, n % 250 + 1));
            let file = Scratch::new();
            fs::write(file.file("batch"), lines.collect::<String>()).unwrap();
            ip(&format!("-batch {}", file.file("batch").display()));
            let sandbox = Sandbox::new();
            assert_eq!(known(&sandbox).len(), 4096);
            let notices = Mirror::of(&sandbox).end();
            assert!(matches!(notices[..], [RouteNotice::AddressesLeftOut(104..)]), "{notices:?}");
        },
    );
}
