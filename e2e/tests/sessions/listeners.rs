//! Listeners that a service passes to the daemon: at any port, made anywhere.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use carnet::Redirect;
use carnet_control::{EventKind, ProviderState};
use carnet_e2e::Ground;
use carnet_e2e::sockets::{accept, connect, is_idle, listen};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::stage::{Arrival, Stage};

/// Of a kind, listening.
fn made(at: &str, only_v6: Option<bool>, protocol: Protocol) -> TcpListener {
    let at: SocketAddr = at.parse().unwrap();
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(protocol)).unwrap();
    if let Some(only) = only_v6 {
        socket.set_only_v6(only).unwrap();
    }
    socket.bind(&at.into()).unwrap();
    socket.listen(16).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

#[test]
fn a_listener_made_in_another_cgroup_gets_connections_with_records() {
    let stage = Stage::new();
    let beside = Ground::beside(&stage.ground);
    for (at, only_v6, protocol) in [
        ("127.0.0.1:0", None, Protocol::TCP),
        ("127.0.0.77:0", None, Protocol::TCP),
        ("0.0.0.0:0", None, Protocol::TCP),
        ("[::1]:0", None, Protocol::TCP),
        ("[::]:0", Some(false), Protocol::TCP),
        ("[::]:0", Some(true), Protocol::TCP),
        ("127.0.0.1:0", None, Protocol::MPTCP),
        ("[::]:0", Some(false), Protocol::MPTCP),
    ] {
        let what = format!("{at} {only_v6:?} {protocol:?}");
        // A supervisor, outside of all that is governed, makes it for the service.
        let listener = stage.ground.within(&beside.services, || made(at, only_v6, protocol));
        let session = stage.register(json!([stage.passed("dlp")]), &[&listener]);
        let session = session.unwrap_or_else(|error| panic!("{what}: {error}: {:?}", error.problem()));
        let takes_v4 = !at.starts_with("[::") || only_v6 == Some(false);
        let port = stage.destination().port();
        // An IPv4 socket cannot be connected to what takes IPv6 alone.
        let to = if takes_v4 { stage.destination() } else { (Ipv6Addr::LOCALHOST, port).into() };
        let client = stage.ground.within(&stage.ground.app, || connect(to));
        let _client = client.unwrap_or_else(|errno| panic!("{what}: {errno}"));
        let accepted = accept(&listener);
        assert_eq!(Redirect::of(&accepted).flow().unwrap().destination(), to, "{what}");
        stage.daemon.wait_for_state("dlp", ProviderState::Alive);
        drop(session);
        stage.wait_for(Arrival::Server, &listener);
    }
    assert!(is_idle(&stage.server));
}

#[test]
fn without_being_passed_such_a_listener_is_a_strangers() {
    let stage = Stage::new();
    let listener = listen("127.0.0.1:0");
    let _session = stage.register(json!([stage.listening("dlp", &listener)]), &[]).unwrap();
    assert_eq!(stage.arrival(&listener), Arrival::Refused(libc::ECONNREFUSED));
    assert!(is_idle(&listener));
    stage.daemon.wait_for_state("dlp", ProviderState::Stranger);
}

#[test]
fn who_listens_there_after_the_listener_has_gone_gets_nothing() {
    let stage = Stage::new();
    let listener = stage.ground.within(&stage.ground.service(1), || listen("127.0.0.1:0"));
    let at = listener.local_addr().unwrap();
    let mut events = stage.daemon.events();
    let _session = stage.register(json!([stage.passed("dlp")]), &[&listener]).unwrap();
    assert_eq!(stage.arrival(&listener), Arrival::Service);
    drop(listener);
    stage.daemon.wait_for_state("dlp", ProviderState::Dead);
    let other = stage.ground.within(&stage.ground.app, || listen(&at.to_string()));
    assert_eq!(stage.arrival(&other), Arrival::Refused(libc::ECONNREFUSED));
    assert!(is_idle(&other));
    stage.daemon.wait_for_state("dlp", ProviderState::Stranger);
    let told = events.wait_for(EventKind::Stranger, "dlp").stranger.unwrap();
    assert_eq!((told.address, told.uid), (at, 0));
}

/// Those of the one before keep their marks.
#[test]
fn another_product_of_the_same_name_is_another_provider() {
    let stage = Stage::new();
    let at = |index| stage.ground.within(&stage.ground.service(index), || listen("127.0.0.1:0"));
    let [left, other] = [at(0), at(1)];
    let register = |index, listener| {
        let request = json!({"providers": [stage.passed("dlp")]});
        stage.register_from(&stage.ground.service(index), &request, &[listener]).unwrap()
    };
    let session = register(0, &left);
    let before = session.registered().providers[0].handle;
    assert_eq!(stage.arrival(&left), Arrival::Service);
    drop(session);
    stage.wait_for(Arrival::Server, &left);

    let session = register(1, &other);
    assert_ne!(session.registered().providers[0].handle, before);
    assert_eq!(stage.daemon.provider("dlp").handle, session.registered().providers[0].handle);
    assert_eq!(stage.arrival(&other), Arrival::Service);
    assert!(is_idle(&left));
}

#[test]
fn several_listeners_are_named_by_their_places() {
    let stage = Stage::new();
    let at = |address: &str| stage.ground.within(&stage.ground.service(1), || listen(address));
    let [unused, v4, v6] = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"].map(at);
    let mut provider = stage.passed("dlp");
    provider["listeners"] = json!([{"fd": 2}, {"fd": 1}]);
    let _session = stage.register(json!([provider]), &[&unused, &v4, &v6]).unwrap();
    let at: Vec<_> = stage.daemon.provider("dlp").listen;
    assert_eq!(at, [v6.local_addr().unwrap(), v4.local_addr().unwrap()]);
    stage.ground.within(&stage.ground.app, || connect(stage.destination())).unwrap();
    assert!(is_idle(&unused) && is_idle(&stage.server) && is_idle(&v4) != is_idle(&v6));
}

#[test]
fn what_is_no_listener_or_not_there_is_refused() {
    let stage = Stage::new();
    let listener = listen("127.0.0.1:0");
    let before = stage.in_force();
    let mut beyond = stage.passed("dlp");
    beyond["listeners"] = json!([{"fd": 1}]);
    assert_eq!(stage.refused(json!([beyond]), &[&listener]).status, 400);
    let connected: TcpListener = std::os::fd::OwnedFd::from(connect(listener.local_addr().unwrap()).unwrap()).into();
    let problem = stage.refused(json!([stage.passed("dlp")]), &[&connected]);
    assert_eq!(problem.status, 400, "{problem:?}");
    assert_eq!(stage.in_force(), before);
}
