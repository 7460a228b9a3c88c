//! Bugs of the program which random calls have found, each by a test with a name.

use carnet_abi::{EVENT_CONNECT, EVENT_END, HOW_FAILED};
use carnet_e2e::Scene;
use socket2::{Domain, Protocol, Socket, Type};

/// Nothing was sent, so that the end is told later; by then the socket's record is another.
#[test]
fn a_record_set_after_a_failed_connect_is_not_in_its_end() {
    let mut scene = Scene::new();
    let destination = scene.destination();
    scene.let_pass(destination);
    let socket = scene.sandbox.in_service(0, || Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap());
    socket.set_only_v6(true).unwrap();
    scene.sandbox.events();

    let mapped = format!("[::ffff:127.0.0.1]:{}", destination.port()).parse::<std::net::SocketAddr>().unwrap();
    let failed = scene.sandbox.in_service(0, || socket.connect(&mapped.into())).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::ENETUNREACH));
    assert_eq!(scene.set(0, &socket, &scene.blob()), Ok(()));
    drop(socket);

    let events = scene.sandbox.events();
    let of = |kind| events.iter().filter(move |event| event.kind == kind).collect::<Vec<_>>();
    let ([decision], [end]) = (&of(EVENT_CONNECT)[..], &of(EVENT_END)[..]) else { panic!("{events:#?}") };
    assert_eq!((end.cookie, end.how), (decision.cookie, HOW_FAILED));
    assert_eq!((end.record, end.base), (decision.record, decision.base));
}
