//! A destination that has just refused a flow is refused at once, for a while.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use carnet_abi::{EVENT_CONNECT, Event, REASON_LATELY, VERDICT_REDIRECT, VERDICT_REFUSE};
use carnet_e2e::sockets::{accept, connect, connect_on, listen, stream, until};
use carnet_e2e::{Relay, Sandbox, netns};
use carnet_engine::Options;
use carnet_policy::Service;
use libc::{ECONNREFUSED, ECONNRESET};

const RELAY: &str = env!("CARGO_BIN_EXE_carnet-e2e-relay");

/// An application's connect() and the decision on it. The service's own come at any time.
fn decided(sandbox: &mut Sandbox, to: SocketAddr) -> (Result<TcpStream, i32>, Event) {
    sandbox.events();
    let result = sandbox.in_app(|| connect(to));
    let is_ours = |event: &Event| event.kind == EVENT_CONNECT && event.pid == std::process::id();
    // Behind one that the service's processor is still writing it comes later.
    let mut events = sandbox.events_until(is_ours);
    events.extend(sandbox.events());
    events.retain(is_ours);
    let [decision] = events[..] else { panic!("there was one connect(), and these decisions: {events:#?}") };
    (result, decision)
}

/// A port on which nobody listens now.
fn deserted(family: usize) -> SocketAddr {
    listen(["127.0.0.1:0", "[::1]:0"][family]).local_addr().unwrap()
}

/// Connects until connect() itself is refused, which the service's attempt has to come before.
fn until_refused(sandbox: &mut Sandbox, to: SocketAddr) {
    until("connect() to be refused", || {
        let (result, decision) = decided(sandbox, to);
        if decision.verdict == VERDICT_REDIRECT {
            assert_given_up(result);
            return None;
        }
        let told = (decision.verdict, decision.reason, decision.error);
        assert_eq!((result.err(), told), (Some(ECONNREFUSED), (VERDICT_REFUSE, REASON_LATELY, ECONNREFUSED)));
        Some(())
    });
}

/// The service gave its client up. The reset may come before connect() has woken up, which then tells of it.
fn assert_given_up(client: Result<TcpStream, i32>) {
    let end = client.map(|mut client| client.read(&mut [0]).map_err(|error| error.kind()));
    assert!(matches!(end, Ok(Ok(0) | Err(ErrorKind::ConnectionReset)) | Err(ECONNRESET)), "{end:?}");
}

#[test]
fn a_destination_that_refuses_is_refused_at_once_and_reached_when_it_is_back() {
    netns::alone(|| {
        for kind in [Service::Aware, Service::Unaware] {
            let mode = if kind == Service::Aware { "aware" } else { "unaware" };
            let refused_for = Duration::from_millis(600);
            let mut sandbox = Sandbox::with(&Options { refused_for, ..Options::default() });
            let _relays: [Relay; 2] = [(); 2].map(|()| sandbox.relay(RELAY, kind, &[mode]));
            for family in [0, 1] {
                let to = deserted(family);
                let (first, decision) = decided(&mut sandbox, to);
                assert_eq!(decision.verdict, VERDICT_REDIRECT, "nothing is known yet: {first:?}");
                assert_given_up(first);
                until_refused(&mut sandbox, to);

                // Others are not refused: same address and another port.
                let other = listen(&SocketAddr::new(to.ip(), 0).to_string());
                sandbox.in_app(|| connect(other.local_addr().unwrap())).expect("another port");
                accept(&other);

                let server = listen(&to.to_string());
                assert_reached(&sandbox, &server, refused_for);
            }
        }
    });
}

/// It is reached, and not later than the time for which it is refused, with some for a slow machine.
fn assert_reached(sandbox: &Sandbox, server: &TcpListener, refused_for: Duration) {
    let to = server.local_addr().unwrap();
    let began = Instant::now();
    let _client = until("the destination to be reached again", || sandbox.in_app(|| connect(to)).ok());
    accept(server);
    assert!(began.elapsed() < refused_for + Duration::from_secs(3), "{:?}", began.elapsed());
}

/// By one interface there may be nobody where there is somebody by another.
#[test]
fn what_was_refused_by_an_interface_that_was_asked_for_is_not_refused_by_others() {
    let near = || listen("10.99.0.2:7000");
    netns::with_twin_neighbours(near, |[left, right]| {
        let mut sandbox = Sandbox::with(&Options { refused_for: Duration::from_secs(60), ..Options::default() });
        let _relay = sandbox.relay(RELAY, Service::Aware, &["aware"]);
        let to = left.local_addr().unwrap();
        drop(right);
        let bound = sandbox.in_app(|| {
            let socket = stream(to);
            socket.bind_device(Some(b"carnet2")).expect("SO_BINDTODEVICE");
            connect_on(socket, &to.into())
        });
        assert_given_up(bound);

        let (_client, decision) = decided(&mut sandbox, to);
        assert_eq!((decision.verdict, decision.error), (VERDICT_REDIRECT, 0));
        accept(&left);
    });
}

#[test]
fn with_no_time_for_it_nothing_is_refused() {
    netns::alone(|| {
        let mut sandbox = Sandbox::with(&Options { refused_for: Duration::ZERO, ..Options::default() });
        let _relay = sandbox.relay(RELAY, Service::Aware, &["aware"]);
        let to = deserted(0);
        for _ in 0..20 {
            let (client, decision) = decided(&mut sandbox, to);
            assert_eq!(decision.verdict, VERDICT_REDIRECT);
            // The service has been refused when it gives its client up, and the next one comes after that.
            assert_given_up(client);
        }
    });
}
