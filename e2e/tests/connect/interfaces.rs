//! Destinations on another host, own addresses that are not loopback, sockets bound to an interface.

use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::Redirect;
use carnet_abi::{REASON_DEVICE, REASON_RULE, REASON_RUNAWAY, VERDICT_PASS, VERDICT_REFUSE};
use carnet_e2e::sockets::{accept, assert_joined, connect, connect_on, is_idle, listen, mapped, stream};
use carnet_e2e::{Sandbox, netns, raw};
use carnet_policy::{HostAction, Match, OnDead, Service};
use nix::net::if_::if_nametoindex;
use socket2::{SockRef, Socket};

use super::{Kind, assert_redirected};

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
        sandbox.host_filter(Match::default(), HostAction::Permit);
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

/// With a service that is passed by when it is dead, one that cannot be reached is passed by, too.
#[test]
fn a_binding_that_the_caller_may_not_undo_passes_an_open_service_by() {
    netns::with_neighbour(servers, |servers| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Service::Aware);
        sandbox.policy.providers[0].on_dead = OnDead::Open;
        sandbox.apply();
        for family in [0, 1] {
            let destination = servers[family].local_addr().unwrap();
            let (client, decision) = sandbox.decided(|| {
                let socket = bound(destination);
                raw::as_nobody(|| connect_on(socket, &destination.into()))
            });
            assert_eq!(decision.verdict, VERDICT_PASS);
            assert_eq!(decision.record.origin.ifindex, if_nametoindex("carnet0").unwrap());
            let mut client = client.expect("connect");
            assert_bound(&client, "carnet0");
            assert_joined(&mut client, &mut accept(&servers[family]));
        }
        assert!(service.listeners.iter().all(is_idle));
    });
}

/// A redirect undoes the binding. Where the next connect() is not redirected, the socket is bound again.
#[test]
fn a_socket_is_bound_again_where_it_is_not_redirected() {
    netns::with_neighbour(servers, |servers| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Service::Aware);
        for family in [0, 1] {
            let destination = servers[family].local_addr().unwrap();
            sandbox.policy.filters.clear();
            sandbox.apply();
            let client = sandbox.in_app(|| connect_on(bound(destination), &destination.into())).expect("connect");
            accept(&service.listeners[family]);
            assert_unbound(&client);

            // Redirected again, its record still has the interface.
            raw::disconnect(&client).expect("AF_UNSPEC");
            let client = sandbox.in_app(|| connect_on(client.into(), &destination.into())).expect("connect");
            let again = accept(&service.listeners[family]);
            let interface = if_nametoindex("carnet0").unwrap();
            assert_eq!(Redirect::of(&again).flow().unwrap().origin().bound_interface, Some(interface));

            raw::disconnect(&client).expect("AF_UNSPEC");
            sandbox.host_filter(Match::default(), HostAction::Permit);
            let (client, decision) = sandbox.decided(|| connect_on(client.into(), &destination.into()));
            let mut client = client.expect("connect");
            assert_eq!((decision.verdict, decision.record.origin.ifindex), (VERDICT_PASS, interface));
            assert_bound(&client, "carnet0");
            assert_joined(&mut client, &mut accept(&servers[family]));

            // And back: it is unbound once more.
            raw::disconnect(&client).expect("AF_UNSPEC");
            sandbox.policy.filters.clear();
            sandbox.apply();
            let mut client = sandbox.in_app(|| connect_on(client.into(), &destination.into())).expect("connect");
            assert_redirected(&service.listeners[family], &mut client, destination);
            assert_unbound(&client);
        }
        assert!(servers.iter().all(is_idle));
    });
}

/// A refusal may come when the binding was undone already. The program may try with the same socket somewhere else.
#[test]
fn a_socket_is_bound_again_after_a_refusal() {
    netns::with_neighbour(servers, |servers| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Service::Aware);
        sandbox.policy.providers[0].in_flight_limit = 1;
        sandbox.apply();
        let destination = servers[0].local_addr().unwrap();
        let (_client, _accepted) = sandbox.arrive(&service, destination);
        let (socket, decision) = sandbox.decided(|| {
            let socket = bound(destination);
            let refused = socket.connect(&destination.into()).expect_err("one is the most");
            assert_eq!(refused.raw_os_error(), Some(libc::ELOOP));
            socket
        });
        let interface = if_nametoindex("carnet0").unwrap();
        assert_eq!((decision.reason, decision.record.origin.ifindex), (REASON_RUNAWAY, interface));
        assert_eq!(socket.device().unwrap().as_deref(), Some(&b"carnet0"[..]), "as it was before");
        sandbox.host_filter(Match::default(), HostAction::Permit);
        let (client, decision) = sandbox.decided(|| connect_on(socket, &destination.into()));
        assert_eq!((decision.verdict, decision.record.origin.ifindex), (VERDICT_PASS, interface));
        let mut client = client.expect("connect");
        assert_bound(&client, "carnet0");
        assert_joined(&mut client, &mut accept(&servers[0]));
    });
}

/// Two neighbours have one address, and the interface tells them apart. The application has chosen one, the service that
/// dials for it has not: its connection is bound to the application's interface.
#[test]
fn the_last_hop_goes_by_the_applications_interface() {
    let near = || listen("10.99.0.2:7000");
    netns::with_twin_neighbours(near, |[left, right]| {
        let mut sandbox = Sandbox::new();
        let services = [sandbox.service(Service::Aware), sandbox.service(Service::Aware)];
        let destination = left.local_addr().unwrap();
        for (device, server, other) in [("carnet0", &left, &right), ("carnet2", &right, &left)] {
            let mut client =
                sandbox.in_app(|| connect_on(bound_to(device, destination), &destination.into())).expect("connect");
            let first = assert_redirected(&services[0].listeners[0], &mut client, destination);
            let onward = sandbox.in_service(0, || carnet::dial(&first)).expect("dial");
            let second = accept(&services[1].listeners[0]);
            assert_unbound(&onward);
            let mut last = sandbox.in_service(1, || carnet::dial(&second)).expect("dial");
            assert_bound(&last, device);
            assert_joined(&mut last, &mut accept(server));
            assert!(is_idle(other));

            // Without the record, as without the engine, the service's connection goes by the first route.
            let own = sandbox.in_service(1, || connect(destination)).expect("connect");
            assert_unbound(&own);
            accept(&left);
            // With another destination than the application's, the choice of interface is the service's, too.
            let elsewhere = listen("10.99.0.1:0");
            let socket = sandbox.in_service(1, || stream(destination));
            sandbox.in_service(1, || Redirect::of(&second).records().unwrap().apply_to(&socket)).expect("SET");
            let to = elsewhere.local_addr().unwrap();
            let changed = sandbox.in_service(1, || connect_on(socket, &to.into())).expect("connect");
            assert_unbound(&changed);
            accept(&elsewhere);
        }
    });
}

/// A service without privileges may bind its socket once, as every process may; a socket that it has bound stays so.
#[test]
fn a_service_without_privilege_and_one_that_binds_itself() {
    let near = || listen("10.99.0.2:7000");
    netns::with_twin_neighbours(near, |[left, right]| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Service::Aware);
        let destination = left.local_addr().unwrap();
        let client = sandbox.in_app(|| connect_on(bound_to("carnet2", destination), &destination.into()));
        let _client = client.expect("connect");
        let first = accept(&service.listeners[0]);
        let mut last = sandbox.in_service(0, || raw::as_nobody(|| carnet::dial(&first))).expect("dial");
        assert_bound(&last, "carnet2");
        assert_joined(&mut last, &mut accept(&right));

        let mut own = sandbox.in_service(0, || {
            let socket = bound_to("carnet0", destination);
            Redirect::of(&first).records().unwrap().apply_to(&socket).expect("SET");
            connect_on(socket, &destination.into()).expect("connect")
        });
        assert_bound(&own, "carnet0");
        assert_joined(&mut own, &mut accept(&left));
    });
}

fn assert_bound(socket: &TcpStream, device: &str) {
    assert_eq!(SockRef::from(socket).device().unwrap().as_deref(), Some(device.as_bytes()));
}

fn assert_unbound(socket: &TcpStream) {
    assert_eq!(SockRef::from(socket).device().unwrap(), None);
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
