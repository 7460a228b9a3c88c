//! One address by several names.

use std::net::{SocketAddr, TcpListener};

use carnet_abi::{REASON_BLOCKED, REASON_SPECIAL, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::netns::{self, ip};
use carnet_e2e::sockets::{accept, connect, is_idle, listen};
use carnet_e2e::{Sandbox, Service};
use carnet_policy::{HostAction, Match, Prefix, Service as Kind};
use libc::EACCES;
use nix::net::if_::if_nametoindex;

use super::{Stage, assert_refused};

/// A mapped address is the IPv4 one, and a scope means nothing where an address has none.
#[test]
fn mapped_and_with_a_scope_they_are_blocked_all_the_same() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |neighbour| {
            let mut sandbox = Sandbox::new();
            let service = sandbox.service(Kind::Aware);
            let interface = if_nametoindex("carnet0").unwrap();
            block(&mut sandbox, "10.99.0.2", 32);
            block(&mut sandbox, "fd99::2", 128);
            let port = neighbour.local_addr().unwrap().port();
            for address in [
                "10.99.0.2".to_owned(),
                "[::ffff:10.99.0.2]".to_owned(),
                format!("[::ffff:10.99.0.2%{interface}]"),
                "[fd99::2]".to_owned(),
                format!("[fd99::2%{interface}]"),
            ] {
                assert_refused(&mut sandbox, at(&address, port), EACCES, REASON_BLOCKED);
            }
            assert_idle(&service, &neighbour);
        },
    );
}

/// A rule for IPv4 addresses says nothing of IPv6 addresses that a gateway turns into them.
#[test]
fn an_ipv4_address_inside_an_ipv6_one_is_another_address() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Kind::Aware);
    block(&mut sandbox, "203.0.113.9", 32);
    assert_refused(&mut sandbox, at("203.0.113.9", 80), EACCES, REASON_BLOCKED);
    // NAT64, 6to4, and an address that is "compatible".
    for address in ["[64:ff9b::cb00:7109]", "[2002:cb00:7109::1]", "[::203.0.113.9]"] {
        let (_client, decision) = sandbox.decided(|| connect(at(address, 80)));
        assert_eq!(decision.verdict, VERDICT_REDIRECT, "{address}");
    }
    drop(service);
}

/// The neighbours on the wire, among them a cloud's metadata server, are let pass unless the host's filters say otherwise.
#[test]
fn link_local_addresses_are_not_redirected_but_can_be_blocked() {
    netns::with_neighbour(
        || {
            ip("addr add 169.254.99.2/16 dev carnet1");
            ip("addr add fe80::2/64 dev carnet1 nodad");
            listen("[::]:0")
        },
        |neighbour| {
            let mut sandbox = Sandbox::new();
            let service = sandbox.service(Kind::Aware);
            let port = neighbour.local_addr().unwrap().port();
            let interface = if_nametoindex("carnet0").unwrap();
            let both = ["169.254.99.2".to_owned(), format!("[fe80::2%{interface}]")];
            for address in &both {
                let (client, decision) = sandbox.decided(|| connect(at(address, port)));
                assert_eq!((decision.verdict, decision.reason), (VERDICT_PASS, REASON_SPECIAL), "{address}");
                client.expect("connect");
                accept(&neighbour);
            }
            block(&mut sandbox, "169.254.0.0", 16);
            block(&mut sandbox, "fe80::", 10);
            for address in &both {
                assert_refused(&mut sandbox, at(address, port), EACCES, REASON_BLOCKED);
            }
            assert_idle(&service, &neighbour);
        },
    );
}

fn block(sandbox: &mut Sandbox, address: &str, length: u8) {
    let prefix = Prefix { address: address.parse().unwrap(), length };
    sandbox.host_filter(Match::default().to(prefix), HostAction::Block);
}

fn at(address: &str, port: u16) -> SocketAddr {
    format!("{address}:{port}").parse().unwrap()
}

fn assert_idle(service: &Service, server: &TcpListener) {
    assert!(service.listeners.iter().all(is_idle) && is_idle(server));
}

/// The kernel takes them for this host, and so do filters and services.
#[test]
fn an_unspecified_address_is_judged_as_this_host() {
    let mut stage = Stage::new();
    let others = listen("[::1]:0");
    let ports = [&stage.server, &others].map(|server| server.local_addr().unwrap().port());
    let names = [("0.0.0.0", ports[0]), ("[::ffff:0.0.0.0]", ports[0]), ("[::]", ports[1])];
    let names = names.map(|(name, port)| -> SocketAddr { format!("{name}:{port}").parse().unwrap() });
    for to in names {
        let (client, decision) = stage.sandbox.decided(|| connect(to));
        assert_eq!(decision.verdict, VERDICT_REDIRECT, "{to}");
        client.expect("connect");
        accept(&stage.service.listeners[usize::from(to.ip().to_canonical().is_ipv6())]);
    }
    for (address, length) in [("127.0.0.0", 8), ("::1", 128)] {
        let prefix = Prefix { address: address.parse().unwrap(), length };
        stage.sandbox.host_filter(Match::default().to(prefix), HostAction::Block);
    }
    for to in names {
        assert_refused(&mut stage.sandbox, to, EACCES, REASON_BLOCKED);
    }
    stage.assert_nobody_came();
    assert!(is_idle(&others));
}
