//! Every kind of destination without a way, and those with one.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use carnet_abi::{REASON_NO_ROUTE, REASON_RULE, VERDICT_REDIRECT, VERDICT_REFUSE};
use carnet_e2e::netns::{self, ip};
use carnet_e2e::programs::Scratch;
use carnet_e2e::sockets::{listen, stream, until};
use carnet_e2e::{Sandbox, raw};
use carnet_engine::RouteNotice;
use carnet_policy::{Reach, Service};
use libc::{EACCES, EADDRNOTAVAIL, EHOSTUNREACH, EINVAL, ENETUNREACH};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Mirror, errno_of, errno_on, until_both};

const SETUP: &str = "\
route add unreachable 198.18.1.0/24
-6 route add unreachable 2001:db8:1::/48
route add prohibit 198.18.2.0/24
-6 route add prohibit 2001:db8:2::/48
route add blackhole 198.18.3.0/24
-6 route add blackhole 2001:db8:3::/48
route add throw 198.18.4.0/24
-6 route add throw 2001:db8:4::/48
nexthop add id 7 blackhole
route add 198.18.5.0/24 nhid 7
-6 nexthop add id 8 blackhole
-6 route add 2001:db8:5::/48 nhid 8
rule add to 198.18.6.0/24 prohibit
-6 rule add to 2001:db8:6::/48 prohibit
rule add to 198.18.7.0/24 unreachable
-6 rule add to 2001:db8:7::/48 unreachable
rule add to 198.18.8.0/24 blackhole
-6 rule add to 2001:db8:8::/48 blackhole
route add unreachable 198.18.9.0/24 metric 5
route add 198.18.9.0/24 via 10.99.0.2 metric 9
-6 route add unreachable 2001:db8:9::/48 metric 5
-6 route add 2001:db8:9::/48 via fd99::2 metric 2000
route add 198.18.10.0/24 via 10.99.0.2
route add unreachable 198.18.10.128/25
-6 route add 2001:db8:10::/48 via fd99::2
-6 route add unreachable 2001:db8:10:8000::/49
nexthop add id 9 via 10.99.0.2 dev carnet0
route add 198.18.11.0/24 nhid 9
-6 nexthop add id 10 via fd99::2 dev carnet0
-6 route add 2001:db8:11::/48 nhid 10
route add 198.18.12.0/24 via 10.99.0.2 table 77
rule add to 198.18.0.0/16 table 77
-6 route add 2001:db8:12::/48 via fd99::2 table 77
-6 rule add to 2001:db8::/32 table 77
-6 route add unreachable ::ffff:0.0.0.0/96";

const EXPECTED: &[(&str, &str, Result<(), i32>)] = &[
    ("192.0.2.1", "2001:db8:ff::1", Err(ENETUNREACH)),
    ("198.18.1.1", "2001:db8:1::1", Err(EHOSTUNREACH)),
    ("198.18.2.1", "2001:db8:2::1", Err(EACCES)),
    ("198.18.3.1", "2001:db8:3::1", Err(EINVAL)),
    ("198.18.4.1", "2001:db8:4::1", Err(ENETUNREACH)),
    ("198.18.5.1", "2001:db8:5::1", Err(EINVAL)),
    ("198.18.6.1", "2001:db8:6::1", Err(EACCES)),
    ("198.18.7.1", "2001:db8:7::1", Err(ENETUNREACH)),
    ("198.18.8.1", "2001:db8:8::1", Err(EINVAL)),
    ("198.18.9.1", "2001:db8:9::1", Err(EHOSTUNREACH)),
    ("198.18.10.129", "2001:db8:10:8000::1", Err(EHOSTUNREACH)),
    ("198.18.10.1", "2001:db8:10::1", Ok(())),
    ("198.18.11.1", "2001:db8:11::1", Ok(())),
    ("198.18.12.1", "2001:db8:12::1", Ok(())),
    ("10.99.0.2", "fd99::2", Ok(())),
    ("10.99.0.1", "fd99::1", Ok(())),
    ("127.0.0.1", "::1", Ok(())),
];

/// IPv4, IPv4-mapped, IPv6, each with what is expected of it.
fn destinations() -> impl Iterator<Item = (SocketAddr, Result<(), i32>)> {
    EXPECTED.iter().flat_map(|(v4, v6, expected)| {
        [v4.to_string(), format!("::ffff:{v4}"), v6.to_string()]
            .map(|ip| (SocketAddr::new(ip.parse().unwrap(), 9), *expected))
    })
}

#[test]
fn connect_fails_as_it_would_without_carnet() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |_there| {
            SETUP.lines().for_each(ip);
            let mut sandbox = Sandbox::new();
            let service = sandbox.service(Service::Aware);
            let mirror = Mirror::of(&sandbox);
            for (to, expected) in destinations() {
                assert_eq!(errno_of(to), expected, "{to}, without Carnet");
                let handle = service.index as u32 + 1;
                let told = match expected {
                    Ok(()) => (VERDICT_REDIRECT, REASON_RULE, 0, handle),
                    Err(errno) => (VERDICT_REFUSE, REASON_NO_ROUTE, errno, handle),
                };
                until(&format!("{expected:?} of connect() to {to}"), || {
                    let (through, decision) = sandbox.decided(|| errno_of(to));
                    assert!(through.is_ok() || through == expected, "{to}: {through:?}");
                    let is_told = (decision.verdict, decision.reason, decision.error, decision.handle) == told;
                    (through == expected && is_told).then_some(())
                });
            }
            assert!(mirror.end().is_empty());
            // Nothing is known any more.
            assert_eq!(sandbox.in_app(|| errno_of("192.0.2.1:9".parse().unwrap())), Ok(()));
        },
    );
}

#[test]
fn a_service_that_goes_on_by_a_way_of_its_own_is_given_everything() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let _service = sandbox.service(Service::Aware);
        sandbox.policy.providers[0].reach = Reach::Anywhere;
        sandbox.apply();
        let _mirror = Mirror::of(&sandbox);
        for to in ["192.0.2.1:9", "[2001:db8::1]:9"] {
            let to = to.parse().unwrap();
            assert_eq!(errno_of(to), Err(ENETUNREACH));
            assert_eq!(sandbox.in_app(|| errno_of(to)), Ok(()));
        }
    });
}

/// A rule that holds for some sockets only. What they could reach is refused to nobody.
#[test]
fn what_a_mark_leads_to_is_not_refused() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |_there| {
            ip("rule add fwmark 7 table 77");
            ip("route add 198.18.1.0/24 via 10.99.0.2 table 77");
            let mut sandbox = Sandbox::new();
            let _service = sandbox.service(Service::Aware);
            let _mirror = Mirror::of(&sandbox);
            let [marked, other] = ["198.18.1.1:9", "198.18.2.1:9"].map(|to| to.parse().unwrap());
            let socket = || {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
                socket.set_mark(7).unwrap();
                socket
            };
            assert_eq!(errno_on(&socket(), marked), Ok(()), "without Carnet");
            assert_eq!(sandbox.in_app(|| errno_on(&socket(), marked)), Ok(()));
            until_both(&sandbox, other, Err(ENETUNREACH));
        },
    );
}

/// The routes are those of one network namespace. Another one's are not known.
#[test]
fn another_network_namespace_is_not_judged_by_this_ones_routes() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Service::Aware);
        let _mirror = Mirror::of(&sandbox);
        let to = "192.0.2.1:9".parse().unwrap();
        until_both(&sandbox, to, Err(ENETUNREACH));
        let at = service.listeners[0].local_addr().unwrap().to_string();
        let elsewhere = || (listen(&at), File::open("/proc/thread-self/ns/net").unwrap());
        let (_listener, namespace) = sandbox.in_service(0, || netns::alone(elsewhere));
        let there = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            stream(to)
        };
        let socket = sandbox.in_app(|| thread::scope(|scope| scope.spawn(there).join().unwrap()));
        let (through, decision) = sandbox.decided(|| errno_on(&socket, to));
        assert_eq!((through, decision.verdict), (Ok(()), VERDICT_REDIRECT));
    });
}

#[test]
fn a_socket_bound_to_an_interface_has_ways_of_its_own() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |_there| {
            let mut sandbox = Sandbox::new();
            let _service = sandbox.service(Service::Aware);
            let _mirror = Mirror::of(&sandbox);
            let to = "192.0.2.1:9".parse().unwrap();
            let bound = || {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
                socket.bind_device(Some(b"carnet0")).unwrap();
                socket
            };
            assert_eq!(errno_of(to), Err(ENETUNREACH));
            assert_eq!(errno_on(&bound(), to), Ok(()), "the kernel takes everything to be on that link");
            assert_eq!(sandbox.in_app(|| errno_on(&bound(), to)), Ok(()));
        },
    );
}

/// connect() looks for its own address before it looks for a route.
#[test]
fn without_an_ipv6_address_the_errno_is_eaddrnotavail() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let _service = sandbox.service_at(Service::Aware, &["127.0.0.1:0"]);
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let _mirror = Mirror::of(&sandbox);
        ip("-6 route add unreachable 2001:db8:1::/48");
        for to in ["[2001:db8::1]:9", "[2001:db8:1::1]:9"] {
            until_both(&sandbox, to.parse().unwrap(), Err(EADDRNOTAVAIL));
        }
        until_both(&sandbox, "192.0.2.1:9".parse().unwrap(), Err(ENETUNREACH));
    });
}

#[test]
fn a_user_without_privileges_is_told_the_same() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let _service = sandbox.service(Service::Aware);
        let _mirror = Mirror::of(&sandbox);
        ip("route add prohibit 198.18.2.0/24");
        for (to, errno) in [("192.0.2.1:9", ENETUNREACH), ("198.18.2.1:9", EACCES)] {
            let to = to.parse().unwrap();
            until("the mirror to know the route", || {
                let through = sandbox.in_app(|| raw::as_nobody(|| errno_of(to)));
                (through == Err(errno)).then_some(())
            });
        }
    });
}

/// Far more routes than there is room for, and no default route that would cover them.
#[test]
fn more_routes_than_fit_refuse_nothing_that_has_one() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |_there| {
            // Every second /24 from 20.0.0.0 on: nothing of it can be summed up.
            let network = |n: u32| Ipv4Addr::from(0x1400_0000 + (n << 9));
            let lines: String = (0..40_000).map(|n| format!("route add {}/24 via 10.99.0.2\n", network(n))).collect();
            let file = Scratch::new();
            fs::write(file.file("batch"), lines).unwrap();
            ip(&format!("-batch {}", file.file("batch").display()));
            let mut sandbox = Sandbox::new();
            let _service = sandbox.service(Service::Aware);
            let mirror = Mirror::of(&sandbox);
            for n in (0..40_000).step_by(997) {
                let to = SocketAddr::new(network(n).into(), 9);
                assert_eq!(sandbox.in_app(|| errno_of(to)), Ok(()), "{to}");
            }
            // Far from all of them.
            until_both(&sandbox, "192.0.2.1:9".parse().unwrap(), Err(ENETUNREACH));
            let notices = mirror.end();
            assert!(matches!(notices[..], [RouteNotice::Coarse]), "{notices:?}");
        },
    );
}
