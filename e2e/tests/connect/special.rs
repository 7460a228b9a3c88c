//! What is left alone: destinations that mean "everybody" or "on this wire", and everything but TCP.

use std::net::{SocketAddr, UdpSocket};

use carnet_abi::{EVENT_CONNECT, REASON_BLOCKED, REASON_RULE, REASON_SPECIAL, VERDICT_PASS};
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen};
use carnet_e2e::{Sandbox, netns};
use carnet_policy::{HostAction, Match, Service};
use nix::net::if_::if_nametoindex;

#[test]
fn destinations_that_are_never_redirected() {
    netns::with_neighbour(
        // A socket of the neighbour's, without which its namespace would end and the interface with it.
        || listen("10.99.0.2:0"),
        |_neighbour| {
            let mut sandbox = Sandbox::new();
            let service = sandbox.service(Service::Aware);
            let server = listen("[::]:0");
            let port = server.local_addr().unwrap().port();
            let interface = if_nametoindex("carnet0").unwrap();

            for here in
                ["169.254.99.1".to_owned(), "[::ffff:169.254.99.1]".to_owned(), format!("[fe80::99%{interface}]")]
            {
                let destination: SocketAddr = format!("{here}:{port}").parse().unwrap();
                let (client, decision) = sandbox.decided(|| connect(destination));
                assert_eq!((decision.verdict, decision.reason), (VERDICT_PASS, REASON_SPECIAL), "{here}");
                assert_eq!(decision.handle, 0);
                assert_joined(&mut client.expect("connect"), &mut accept(&server));
            }

            for nobody in [
                "255.255.255.255".to_owned(),
                "224.0.0.1".to_owned(),
                "239.255.255.250".to_owned(),
                "[::ffff:224.0.0.1]".to_owned(),
                "[::ffff:255.255.255.255]".to_owned(),
                format!("[ff02::1%{interface}]"),
                "[ff0e::1]".to_owned(),
            ] {
                let destination: SocketAddr = format!("{nobody}:{port}").parse().unwrap();
                let without = connect(destination).expect_err("TCP has no such destination");
                let (result, decision) = sandbox.decided(|| connect(destination));
                assert_eq!(
                    result.expect_err("TCP has no such destination"),
                    without,
                    "{nobody}: the kernel's own answer"
                );
                assert_eq!((decision.verdict, decision.reason), (VERDICT_PASS, REASON_SPECIAL), "{nobody}");
            }
            assert!(service.listeners.iter().all(is_idle));

            // Neighbours of those ranges are redirected.
            for ordinary in ["169.253.255.255", "169.255.0.1", "223.255.255.255", "[fec0::1]", "[fe7f::1]"] {
                let destination: SocketAddr = format!("{ordinary}:{port}").parse().unwrap();
                let client = sandbox.in_app(|| connect(destination)).expect(ordinary);
                assert_eq!(client.peer_addr().unwrap(), destination);
                accept(&service.listeners[usize::from(destination.is_ipv6())]);
            }
        },
    );
}

#[test]
fn udp() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    sandbox.events();
    for (family, here) in ["127.0.0.1:0", "[::1]:0"].into_iter().enumerate() {
        let peer = UdpSocket::bind(here).unwrap();
        let destination = peer.local_addr().unwrap();
        let client = sandbox.in_app(|| {
            let client = UdpSocket::bind(here).unwrap();
            client.connect(destination).expect("connect");
            client
        });
        assert_eq!(client.peer_addr().unwrap(), destination);
        client.send(b"hello").unwrap();
        let mut buffer = [0; 5];
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (5, client.local_addr().unwrap()));
        // Not even to a service's own port.
        let client = sandbox.in_app(|| UdpSocket::bind(here).unwrap());
        client.connect(service.listeners[family].local_addr().unwrap()).expect("connect");
    }
    assert!(sandbox.events().iter().all(|event| event.kind != EVENT_CONNECT));
}

#[test]
fn the_hosts_filters_hold_for_them_too() {
    let mut sandbox = Sandbox::new();
    let server = listen("0.0.0.0:0");
    let destination: SocketAddr = ([0, 0, 0, 0], server.local_addr().unwrap().port()).into();
    sandbox.policy.default = HostAction::Block;
    sandbox.apply();
    let (refused, decision) = sandbox.decided(|| connect(destination));
    assert_eq!((refused.unwrap_err(), decision.reason), (libc::EACCES, REASON_BLOCKED));
    assert!(is_idle(&server));
    sandbox.host_filter(Match::default(), HostAction::Permit);
    let (client, decision) = sandbox.decided(|| connect(destination));
    assert_eq!((decision.verdict, decision.reason), (VERDICT_PASS, REASON_RULE));
    assert_joined(&mut client.expect("connect"), &mut accept(&server));
}
