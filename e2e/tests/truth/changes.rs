//! Routes that come and go.

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use carnet_e2e::Sandbox;
use carnet_e2e::netns::{self, ip};
use carnet_e2e::sockets::{listen, until};
use carnet_policy::Service;
use libc::{EHOSTUNREACH, EINVAL, ENETUNREACH};

use crate::{Mirror, errno_of, until_both};

fn address(text: &str) -> SocketAddr {
    format!("{text}:9").parse().unwrap()
}

/// In a namespace with a neighbour, a service, and a mirror.
fn mirrored(act: impl FnOnce(&Sandbox) + Send) {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |_there| {
            let mut sandbox = Sandbox::new();
            let _service = sandbox.service(Service::Aware);
            let mirror = Mirror::of(&sandbox);
            act(&sandbox);
            assert!(mirror.end().is_empty());
        },
    );
}

#[test]
fn a_route_that_comes_can_be_used_and_one_that_goes_is_noticed() {
    mirrored(|sandbox| {
        let (v4, v6) = (address("192.0.2.1"), address("[2001:db8::1]"));
        for to in [v4, v6] {
            until_both(sandbox, to, Err(ENETUNREACH));
        }
        for _ in 0..3 {
            ip("route add 192.0.2.0/24 via 10.99.0.2");
            ip("-6 route add default via fd99::2");
            for to in [v4, v6] {
                until_both(sandbox, to, Ok(()));
            }
            ip("route change unreachable 192.0.2.0/24");
            until_both(sandbox, v4, Err(EHOSTUNREACH));
            ip("route del unreachable 192.0.2.0/24");
            ip("-6 route del default via fd99::2");
            for to in [v4, v6] {
                until_both(sandbox, to, Err(ENETUNREACH));
            }
        }
    });
}

/// A program may be refused until the notice of its new route has come, and not longer.
#[test]
fn a_new_route_that_is_used_at_once() {
    mirrored(|sandbox| {
        let to = address("192.0.2.1");
        let mut waits = Vec::new();
        for _ in 0..20 {
            ip("route add 192.0.2.0/24 via 10.99.0.2");
            let began = Instant::now();
            until("the new route to be known", || sandbox.in_app(|| errno_of(to)).is_ok().then_some(()));
            waits.push(began.elapsed());
            ip("route del 192.0.2.0/24 via 10.99.0.2");
            until_both(sandbox, to, Err(ENETUNREACH));
        }
        waits.sort();
        println!("refused for {waits:?}");
    });
}

#[test]
fn rules_come_and_go() {
    mirrored(|sandbox| {
        let to = address("192.0.2.1");
        ip("route add default via 10.99.0.2 table 77");
        until_both(sandbox, to, Err(ENETUNREACH));
        ip("rule add pref 100 table 77");
        until_both(sandbox, to, Ok(()));
        ip("rule add pref 99 unreachable");
        until_both(sandbox, to, Err(ENETUNREACH));
        ip("rule del pref 99");
        until_both(sandbox, to, Ok(()));
        ip("rule del pref 100");
        until_both(sandbox, to, Err(ENETUNREACH));
    });
}

/// The kernel drops IPv4 routes with their interface, and gives notice of the interface only.
#[test]
fn an_interface_that_goes_down_takes_its_routes_along() {
    mirrored(|sandbox| {
        let (v4, v6) = (address("10.99.0.2"), address("[fd99::2]"));
        for to in [v4, v6] {
            until_both(sandbox, to, Ok(()));
        }
        ip("link set carnet0 down");
        for to in [v4, v6] {
            until_both(sandbox, to, Err(ENETUNREACH));
        }
        ip("link set carnet0 up");
        until_both(sandbox, v4, Ok(()));
        ip("link del carnet0");
        until_both(sandbox, v4, Err(ENETUNREACH));
    });
}

/// A cable that is out: the routes stay, and are dead where that was asked for.
#[test]
fn a_link_without_carrier_is_as_the_host_wants_it() {
    netns::alone(|| {
        ip("link add left type veth peer name right");
        ip("addr add 10.98.0.1/24 dev left");
        ip("link set left up");
        let mut sandbox = Sandbox::new();
        let _service = sandbox.service(Service::Aware);
        let _mirror = Mirror::of(&sandbox);
        let to = address("10.98.0.2");
        until_both(&sandbox, to, Ok(()));
        for (ignore, expected) in [("1", Err(ENETUNREACH)), ("0", Ok(())), ("1", Err(ENETUNREACH))] {
            fs::write("/proc/sys/net/ipv4/conf/left/ignore_routes_with_linkdown", ignore).unwrap();
            until_both(&sandbox, to, expected);
        }
        ip("link set right up");
        until_both(&sandbox, to, Ok(()));
    });
}

#[test]
fn a_next_hop_that_is_replaced_by_a_blackhole_and_back() {
    mirrored(|sandbox| {
        let to = address("192.0.2.1");
        ip("nexthop add id 7 via 10.99.0.2 dev carnet0");
        ip("route add 192.0.2.0/24 nhid 7");
        for _ in 0..3 {
            until_both(sandbox, to, Ok(()));
            ip("nexthop replace id 7 blackhole");
            until_both(sandbox, to, Err(EINVAL));
            ip("nexthop replace id 7 via 10.99.0.2 dev carnet0");
        }
        until_both(sandbox, to, Ok(()));
    });
}

#[test]
fn a_next_hop_that_goes_takes_its_routes_along() {
    mirrored(|sandbox| {
        let to = address("192.0.2.1");
        ip("nexthop add id 7 via 10.99.0.2 dev carnet0");
        ip("route add 192.0.2.0/24 nhid 7");
        until_both(sandbox, to, Ok(()));
        ip("nexthop del id 7");
        until_both(sandbox, to, Err(ENETUNREACH));
    });
}
