//! A service's listener dialled directly, by every address that leads to it.

use std::net::SocketAddr;

use carnet_abi::{Event, REASON_NOT_DIRECT, REASON_OWN_LISTENER, VERDICT_REFUSE};
use carnet_e2e::sockets::{connect, connect_on, is_idle, listen, stream, until};
use carnet_e2e::{Sandbox, Service, netns};
use carnet_policy::Service as Awareness;
use nix::net::if_::if_nametoindex;

#[test]
fn on_one_address() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Awareness::Aware);
    let other = sandbox.service(Awareness::Aware);
    let [v4, v6] = [0, 1].map(|family: usize| service.listeners[family].local_addr().unwrap().port());
    for address in [
        format!("127.0.0.1:{v4}"),
        format!("[::ffff:127.0.0.1]:{v4}"),
        format!("0.0.0.0:{v4}"),
        format!("[::ffff:0.0.0.0]:{v4}"),
        format!("[::1]:{v6}"),
        format!("[::]:{v6}"),
    ] {
        dial(&mut sandbox, &service, None, &address);
        assert!(other.listeners.iter().all(is_idle), "{address}");
    }
}

#[test]
fn on_another_loopback_address() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service_at(Awareness::Aware, &["127.0.0.5:0"]);
    let port = service.listeners[0].local_addr().unwrap().port();
    for (source, address) in [
        (None, "127.0.0.5"),
        (None, "[::ffff:127.0.0.5]"),
        // The kernel takes "unspecified" for the address that the socket is bound to.
        (Some("127.0.0.5:0"), "0.0.0.0"),
        (Some("[::ffff:127.0.0.5]:0"), "[::ffff:0.0.0.0]"),
    ] {
        dial(&mut sandbox, &service, source, &format!("{address}:{port}"));
    }
    // Somebody else's listener with the same port is somebody else's.
    let server = listen(&format!("127.0.0.6:{port}"));
    let (client, decision) = sandbox.decided(|| connect(server.local_addr().unwrap()));
    client.expect("connect");
    assert_ne!(decision.verdict, VERDICT_REFUSE);
}

#[test]
fn unspecified_ipv6_from_an_ipv4_address() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service_at(Awareness::Aware, &["127.0.0.1:0"]);
    let port = service.listeners[0].local_addr().unwrap().port();
    // The kernel takes :: for 127.0.0.1 here.
    dial(&mut sandbox, &service, Some("[::ffff:127.0.0.1]:0"), &format!("[::]:{port}"));
}

#[test]
fn on_every_address() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |_neighbour| {
            for wildcard in ["0.0.0.0:0", "[::]:0"] {
                let mut sandbox = Sandbox::new();
                let service = sandbox.service_at(Awareness::Aware, &[wildcard]);
                let port = service.listeners[0].local_addr().unwrap().port();
                let interface = if_nametoindex("carnet0").unwrap();
                let v4 = [
                    "127.0.0.1",
                    "127.8.9.10",
                    "0.0.0.0",
                    "10.99.0.1",
                    "169.254.99.1",
                    "[::ffff:127.0.0.1]",
                    "[::ffff:0.0.0.0]",
                    "[::ffff:10.99.0.1]",
                ]
                .map(str::to_owned);
                let v6 =
                    ["[::1]".to_owned(), "[::]".to_owned(), "[fd99::1]".to_owned(), format!("[fe80::99%{interface}]")];
                let v6 = if wildcard == "[::]:0" { &v6[..] } else { &[] };
                for address in v4.iter().chain(v6) {
                    dial(&mut sandbox, &service, None, &format!("{address}:{port}"));
                }
                dial(&mut sandbox, &service, Some("10.99.0.1:0"), &format!("0.0.0.0:{port}"));
            }
        },
    );
}

/// Dials a listener of provider 0 as an application, as provider 0 and as provider 1, where there is one.
fn dial(sandbox: &mut Sandbox, service: &Service, source: Option<&str>, address: &str) {
    let to: SocketAddr = address.parse().expect("an address");
    let dial = || {
        let socket = stream(to);
        if let Some(source) = source {
            socket.bind(&source.parse::<SocketAddr>().expect("an address").into()).expect("bind");
        }
        connect_on(socket, &to.into()).expect_err(address)
    };
    // What the kernel makes of it, so that a refusal is not mistaken for one of an address that leads nowhere.
    let stray = stream(to);
    if let Some(source) = source {
        stray.bind(&source.parse::<SocketAddr>().expect("an address").into()).expect("bind");
    }
    drop(connect_on(stray, &to.into()).expect("it leads to the listener"));
    until("the stray connection", || service.listeners.iter().find_map(|listener| listener.accept().ok()));
    let check = |who: &str, errno: i32, event: &Event, expected: (i32, u32)| {
        assert_eq!((errno, event.reason), expected, "{who} dials {address} from {source:?}");
        assert_eq!((event.verdict, event.error, event.handle), (VERDICT_REFUSE, errno, 1));
    };
    let (errno, event) = sandbox.decided(dial);
    check("an application", errno, &event, (libc::ECONNREFUSED, REASON_NOT_DIRECT));

    let errno = sandbox.in_service(0, dial);
    let event = *sandbox.events().last().expect("an event");
    check("the service itself", errno, &event, (libc::ELOOP, REASON_OWN_LISTENER));
    assert_eq!(event.dialer, 1);

    if sandbox.policy.providers.len() > 1 {
        let errno = sandbox.in_service(1, dial);
        let event = *sandbox.events().last().expect("an event");
        check("another service", errno, &event, (libc::ECONNREFUSED, REASON_NOT_DIRECT));
        assert_eq!(event.dialer, 2);
    }
    assert!(service.listeners.iter().all(is_idle), "{address}");
}

/// A socket that an application made and a service connects is the service's: it may not dial itself with it.
#[test]
fn with_a_socket_made_by_somebody_else() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Awareness::Aware);
    let to = service.listeners[0].local_addr().unwrap();
    let socket = sandbox.in_app(|| stream(to));
    sandbox.events();
    let errno = sandbox.in_service(0, || connect_on(socket, &to.into())).expect_err("itself");
    assert_eq!(errno, libc::ELOOP);
    let socket = sandbox.in_service(0, || stream(to));
    let errno = sandbox.in_app(|| connect_on(socket, &to.into())).expect_err("with the service's socket");
    assert_eq!(errno, libc::ELOOP);
    assert!(sandbox.events().iter().all(|event| event.reason == REASON_OWN_LISTENER && event.dialer == 1));
}
