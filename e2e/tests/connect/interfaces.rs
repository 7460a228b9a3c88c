//! Destinations on another host, own addresses that are not loopback, sockets bound to an interface.

use std::net::{SocketAddr, TcpListener};

use carnet::Redirect;
use carnet_abi::{REASON_DEVICE, REASON_RULE, VERDICT_PASS, VERDICT_REFUSE};
use carnet_e2e::sockets::{accept, assert_joined, connect, connect_on, is_idle, listen, stream};
use carnet_e2e::{Sandbox, netns, raw};
use carnet_policy::{HostAction, Match, Service};
use nix::net::if_::if_nametoindex;
use socket2::Socket;

use super::{Kind, assert_redirected, mapped};

/// Servers of the neighbour, IPv4 and IPv6.
fn servers() -> [TcpListener; 2] {
    [listen("10.99.0.2:0"), listen("[fd99::2]:0")]
}

#[test]
fn another_host_through_two_services() {
    netns::with_neighbour(servers, |servers| {
        let mut sandbox = Sandbox::new();
        let services = [sandbox.service(Service::Aware), sandbox.service(Service::Aware)];
        let [v4, v6] = [0, 1].map(|family: usize| servers[family].local_addr().unwrap());
        for (destination, family) in [(v4, 0), (v6, 1), (mapped(v4), 0)] {
            let mut client = sandbox.in_app(|| connect(destination)).expect("connect");
            let first = assert_redirected(&services[0].listeners[family], &mut client, destination);
            let _onward = sandbox.in_service(0, || carnet::dial(&first)).expect("dial");
            let second = accept(&services[1].listeners[family]);
            assert_eq!(Redirect::of(&second).flow().unwrap().depth(), 2);
            let mut last = sandbox.in_service(1, || carnet::dial(&second)).expect("dial");
            assert_joined(&mut last, &mut accept(&servers[family]));
            assert!(servers.iter().all(is_idle));
        }
    });
}

#[test]
fn bound_to_an_own_address() {
    netns::with_neighbour(servers, |servers| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Service::Aware);
        for (bind, family) in [("10.99.0.1:0", 0), ("[fd99::1]:0", 1)] {
            let bind: SocketAddr = bind.parse().unwrap();
            let destination = servers[family].local_addr().unwrap();
            let socket = sandbox.in_app(|| stream(destination));
            socket.bind(&bind.into()).unwrap();
            let mut client = connect_on(socket, &destination.into()).expect("connect");
            assert_eq!(client.local_addr().unwrap().ip(), bind.ip());
            assert_redirected(&service.listeners[family], &mut client, destination);
        }
        // An own address as the destination.
        let here = listen("10.99.0.1:0");
        let destination = here.local_addr().unwrap();
        let mut client = sandbox.in_app(|| connect(destination)).expect("connect");
        assert_redirected(&service.listeners[0], &mut client, destination);
        assert!(is_idle(&here));
    });
}

#[test]
fn bound_to_an_interface() {
    netns::with_neighbour(servers, |servers| {
        let mut sandbox = Sandbox::new();
        let services = [sandbox.service(Service::Aware), sandbox.service(Service::Aware)];
        for family in [0, 1] {
            let destination = servers[family].local_addr().unwrap();
            let mut client = sandbox.in_app(|| connect_on(bound(destination), &destination.into())).expect("connect");
            let first = assert_redirected(&services[0].listeners[family], &mut client, destination);
            let interface = Some(if_nametoindex("carnet0").unwrap());
            assert_eq!(Redirect::of(&first).flow().unwrap().origin().bound_interface, interface);
            let _onward = sandbox.in_service(0, || carnet::dial(&first)).expect("dial");
            let second = accept(&services[1].listeners[family]);
            assert_eq!(Redirect::of(&second).flow().unwrap().origin().bound_interface, interface, "at every hop");
        }
    });
}

#[test]
fn a_binding_is_kept_where_nothing_is_redirected() {
    netns::with_neighbour(servers, |servers| {
        let mut sandbox = Sandbox::new();
        let _service = sandbox.service(Service::Aware);
        sandbox.host_filter(Match::ALL, HostAction::Permit);
        let destination = servers[0].local_addr().unwrap();
        let (client, decision) = sandbox.decided(|| connect_on(bound(destination), &destination.into()));
        let client = client.expect("connect");
        assert_eq!((decision.verdict, decision.reason), (VERDICT_PASS, REASON_RULE));
        assert_eq!(decision.record.origin.ifindex, if_nametoindex("carnet0").unwrap());
        assert_eq!(Socket::from(client).device().unwrap().as_deref(), Some(&b"carnet0"[..]));
        accept(&servers[0]);
    });
}

#[test]
fn a_binding_that_the_caller_may_not_undo() {
    netns::with_neighbour(servers, |servers| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Service::Aware);
        let destination = servers[0].local_addr().unwrap();
        // From the one it could not reach the service and would hang; on the other it could not be cut off from it.
        for device in ["carnet0", "lo"] {
            let (result, decision) = sandbox.decided(|| {
                let socket = bound_to(device, destination);
                raw::as_nobody(|| connect_on(socket, &destination.into()))
            });
            assert_eq!(result.expect_err(device), libc::ENETUNREACH);
            assert_eq!((decision.verdict, decision.reason), (VERDICT_REFUSE, REASON_DEVICE));
        }
        assert!(is_idle(&service.listeners[0]) && is_idle(&servers[0]));
    });
}

fn bound(destination: SocketAddr) -> Socket {
    bound_to("carnet0", destination)
}

fn bound_to(device: &str, destination: SocketAddr) -> Socket {
    let kind = if destination.is_ipv4() { Kind::V4 } else { Kind::V6 };
    let socket = kind.socket();
    socket.bind_device(Some(device.as_bytes())).expect("SO_BINDTODEVICE");
    socket
}
