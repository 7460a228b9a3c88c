//! SET: who may put a record on which socket, and when. What is refused must leave the socket as it was.

use std::net::SocketAddr;
use std::time::Duration;

use carnet::{ErrorKind, Redirect};
use carnet_abi::{CARNET_CONTEXT, CARNET_FLOW, CARNET_STATE, SOL_CARNET};
use carnet_e2e::sockets::{connect, stream, until};
use carnet_e2e::{Scene, netns, raw, set_records};
use libc::{EACCES, ECONNREFUSED, EINVAL, EISCONN, ENOBUFS, ENOPROTOOPT, EOPNOTSUPP};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

#[test]
fn only_the_newest_provider_may_set() {
    let scene = Scene::new();
    let first = scene.blob();
    let socket = scene.socket();
    assert_eq!(scene.set(1, &socket, &first), Err(EACCES), "another service, on the first one's socket");
    let own = scene.sandbox.in_service(1, || stream(scene.destination()));
    assert_eq!(scene.set(1, &own, &first), Err(EACCES), "another service, on a socket of its own");
    assert_eq!(
        scene.sandbox.in_app(|| set_records(&socket, &first)),
        Err(EACCES),
        "an application, on a service's socket"
    );
    assert_eq!(set_records(&socket, &first), Err(EACCES), "somebody outside, on a service's socket");
    assert_eq!(scene.set(0, &own, &first), Ok(()), "it is the caller that counts, not whose socket it is");

    // Once it has been through the second service, the flow is that one's.
    assert_eq!(scene.set(0, &socket, &first), Ok(()));
    let (_onward, at_second) = scene.dial(socket);
    let newer = Redirect::of(&at_second).records().unwrap();
    let socket = scene.socket();
    assert_eq!(scene.set(0, &socket, newer.as_bytes()), Err(EACCES));
    scene.assert_goes_on_as_nothing(socket);
    assert_eq!(scene.set(1, &own, newer.as_bytes()), Ok(()));
}

/// What a policy has decided is carried on under the next one, though not for ever.
#[test]
fn one_that_has_left_the_policy_may_finish_what_it_has_until_the_policy_after_the_next() {
    let mut scene = Scene::new();
    let (blob, flow) = (scene.blob(), Redirect::of(&scene.accepted).flow().unwrap());
    scene.sandbox.policy.providers.remove(scene.first.index);
    scene.sandbox.apply();
    let (socket, own) = (scene.socket(), scene.socket());
    assert_eq!(scene.set(1, &socket, &blob), Err(EACCES), "it is nobody else's");
    assert_eq!(scene.set(0, &socket, &blob), Ok(()));
    scene.assert_goes_on(socket, &flow);
    scene.sandbox.apply();
    assert_eq!(scene.set(0, &own, &blob), Err(EACCES));
    scene.assert_goes_on_as_nothing(own);
}

/// Outside of the services' cgroups there is nothing to take a record.
#[test]
fn sockets_outside_the_services() {
    let scene = Scene::new();
    let blob = scene.blob();
    let make = || (stream(([127, 0, 0, 1], 1).into()), stream(SocketAddr::from(([0; 16], 1))));
    for (v4, v6) in [scene.sandbox.in_app(make), make()] {
        for socket in [v4, v6] {
            for service in [0, 1] {
                assert_eq!(scene.set(service, &socket, &blob), Err(ENOPROTOOPT));
            }
            assert_eq!(scene.sandbox.in_app(|| set_records(&socket, &blob)), Err(ENOPROTOOPT));
            let error = Redirect::of(&scene.accepted).records().unwrap().apply_to(&socket).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoEngine);
        }
    }
}

/// A record is for the connection that comes, not for the one there is.
#[test]
fn only_before_connect() {
    let mut scene = Scene::new();
    let blob = scene.blob();
    let bound = scene.socket();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    assert_eq!(scene.set(0, &bound, &blob), Ok(()), "bound");
    scene.assert_goes_on(bound, &Redirect::of(&scene.accepted).flow().unwrap());

    let (connected, at_second) = scene.dial(scene.socket());
    assert_eq!(scene.set(0, &connected, &blob), Err(EISCONN), "connected");
    let error = Redirect::of(&scene.accepted).records().unwrap().apply_to(&connected).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyConnected);
    assert_eq!(Redirect::of(&at_second).flow().unwrap().depth(), 1, "too late is without effect");
    drop(at_second);
    assert_eq!(scene.set(0, &connected, &blob), Err(EISCONN), "the peer has gone");

    // A full backlog leaves SYNs unanswered, so this one stays on its way.
    let (full, at) = port();
    full.listen(0).unwrap();
    scene.let_pass(at);
    let _waiting = connect(at).unwrap();
    let connecting = scene.socket();
    connecting.set_nonblocking(true).unwrap();
    let begun = scene.sandbox.in_service(0, || connecting.connect(&at.into()));
    assert_eq!(begun.unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
    assert_eq!(scene.set(0, &connecting, &blob), Err(EISCONN), "connecting");

    let accepted = Socket::from(scene.accepted.try_clone().unwrap());
    assert_eq!(scene.set(0, &accepted, &blob), Err(EISCONN), "accepted");
    let listening = Socket::from(scene.first.listeners[0].try_clone().unwrap());
    assert_eq!(scene.set(0, &listening, &blob), Err(EINVAL), "listening");
    let (_client, next) = scene.sandbox.arrive(&scene.first, scene.destination());
    assert_eq!(Redirect::of(&next).flow().unwrap().depth(), 1, "nothing stuck to the listener");
}

/// A socket that was refused may try again, with the record it has or with another.
#[test]
fn after_a_refusal() {
    let mut scene = Scene::new();
    let (_client, other) = scene.sandbox.arrive(&scene.first, scene.destination());
    let (flow, other_flow) = (Redirect::of(&scene.accepted).flow().unwrap(), Redirect::of(&other).flow().unwrap());
    let other = Redirect::of(&other).records().unwrap();
    let (_bound, refusing) = port();
    scene.let_pass(refusing);
    for (second, expected) in [(None, &flow), (Some(other), &other_flow)] {
        let socket = scene.socket();
        assert_eq!(scene.set(0, &socket, &scene.blob()), Ok(()));
        let refused = scene.sandbox.in_service(0, || socket.connect(&refusing.into())).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(ECONNREFUSED));
        if let Some(second) = second {
            assert_eq!(scene.set(0, &socket, second.as_bytes()), Ok(()));
        }
        scene.assert_goes_on(socket, expected);
    }
}

/// A socket whose peer has reset it is closed to TCP, like a new one. Accepted it was all the same.
#[test]
fn an_accepted_socket_keeps_its_own_record() {
    let scene = Scene::new();
    let (other_client, other) = scene.sandbox.arrive(&scene.first, scene.destination());
    let blob = Redirect::of(&other).records().unwrap();
    let own = Redirect::of(&scene.accepted).flow().unwrap();
    SockRef::from(&scene.client).set_linger(Some(Duration::ZERO)).unwrap();
    let Scene { sandbox, client, accepted, .. } = scene;
    drop(client);
    until("the reset", || SockRef::from(&accepted).take_error().unwrap());
    assert_eq!(sandbox.in_service(0, || set_records(&accepted, blob.as_bytes())), Err(EISCONN));
    assert_eq!(Redirect::of(&accepted).flow().unwrap(), own);
    drop(other_client);
}

#[test]
fn the_client_may_be_gone() {
    let mut scene = Scene::new();
    for linger in [None, Some(Duration::ZERO)] {
        let flow = Redirect::of(&scene.accepted).flow().unwrap();
        SockRef::from(&scene.client).set_linger(linger).unwrap();
        let (client, accepted) = scene.sandbox.arrive(&scene.first, scene.destination());
        drop(std::mem::replace(&mut scene.client, client));
        let socket = scene.socket();
        assert_eq!(scene.set(0, &socket, &scene.blob()), Ok(()));
        scene.assert_goes_on(socket, &flow);
        scene.accepted = accepted;
    }
}

/// Unlike on Windows no privilege is needed: being the owner is.
#[test]
fn without_privilege() {
    let scene = Scene::new();
    let socket = scene.socket();
    let (blob, destination) = (scene.blob(), scene.destination());
    assert_eq!(scene.sandbox.in_service(0, || raw::as_nobody(|| set_records(&socket, &blob))), Ok(()));
    scene.assert_goes_on(socket, &Redirect::of(&scene.accepted).flow().unwrap());
    let socket = scene.sandbox.in_service(0, || raw::as_nobody(|| stream(destination)));
    assert_eq!(scene.sandbox.in_service(1, || raw::as_nobody(|| set_records(&socket, &blob))), Err(EACCES));
    assert_eq!(scene.sandbox.in_service(0, || raw::as_nobody(|| set_records(&socket, &blob))), Ok(()));
}

/// A service on the host may serve a container's listener, so the network namespace does not matter. Here it also limits
/// what sockets may store: each namespace has a limit of its own since Linux 6.9.
#[test]
fn another_network_namespace_and_no_memory() {
    let scene = Scene::new();
    let (blob, destination) = (scene.blob(), scene.destination());
    let apart = || {
        let before = set_records(&stream(destination), &blob);
        std::fs::write("/proc/sys/net/core/optmem_max", "256").expect("a limit of the namespace's own");
        (before, set_records(&stream(destination), &blob))
    };
    assert_eq!(scene.sandbox.in_service(0, || netns::alone(apart)), (Ok(()), Err(ENOBUFS)));
}

#[test]
fn sockets_that_are_not_tcp() {
    let scene = Scene::new();
    let blob = scene.blob();
    let of = |domain, r#type, protocol| Socket::new(domain, r#type, protocol).expect("a socket");
    let make = || {
        [
            ("UDP", of(Domain::IPV4, Type::DGRAM, None)),
            ("UDP over IPv6", of(Domain::IPV6, Type::DGRAM, None)),
            ("raw", of(Domain::IPV4, Type::RAW, Some(Protocol::TCP))),
            ("unix datagram", of(Domain::UNIX, Type::DGRAM, None)),
            ("unix stream", of(Domain::UNIX, Type::STREAM, None)),
            ("netlink", of(Domain::from(libc::AF_NETLINK), Type::RAW, None)),
        ]
    };
    for (what, socket) in scene.sandbox.in_service(0, make) {
        for blob in [&blob[..], b"", &[0; 16]] {
            assert_eq!(scene.set(0, &socket, blob), Err(EOPNOTSUPP), "{what}");
        }
        let error = scene
            .sandbox
            .in_service(0, || Redirect::of(&scene.accepted).records().unwrap().apply_to(&socket).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::NotTcp, "{what}");
    }
}

/// Its connections' hooks see another socket. The record is found all the same; see also `unusual::mptcp`.
#[test]
fn an_mptcp_socket_takes_one_too() {
    let scene = Scene::new();
    let mptcp = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("a kernel with MPTCP");
    let socket = scene.sandbox.in_service(0, mptcp);
    assert_eq!(scene.set(1, &socket, &scene.blob()), Err(EACCES));
    assert_eq!(scene.set(0, &socket, &scene.blob()), Ok(()));
    scene.assert_goes_on(socket, &Redirect::of(&scene.accepted).flow().unwrap());
    let socket = scene.sandbox.in_service(0, mptcp);
    scene.assert_goes_on_as_nothing(socket);
    let outside = mptcp();
    let kernels_own = scene.set(0, &outside, &scene.blob());
    assert!(matches!(kernels_own, Err(EOPNOTSUPP | ENOPROTOOPT)), "{kernels_own:?}");
    let error = Redirect::of(&scene.accepted).records().unwrap().apply_to(&outside).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoEngine);
}

/// The other options cannot be set, and unknown ones are the kernel's to refuse.
#[test]
fn nothing_else_can_be_set() {
    let scene = Scene::new();
    let socket = scene.socket();
    for option in [CARNET_CONTEXT, CARNET_FLOW, CARNET_STATE, 0, 5, 99, -1] {
        for value in [&scene.blob()[..], &[0; 4], b""] {
            let result = scene.sandbox.in_service(0, || raw::set(&socket, SOL_CARNET, option, value));
            assert_eq!(result, Err(ENOPROTOOPT), "option {option}, {} bytes", value.len());
        }
    }
    scene.assert_goes_on_as_nothing(socket);
}

/// A port that is taken, on a socket that does not listen.
fn port() -> (Socket, SocketAddr) {
    let socket = stream(SocketAddr::from(([127, 0, 0, 1], 0)));
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let at = socket.local_addr().expect("an address").as_socket().expect("an address");
    (socket, at)
}
