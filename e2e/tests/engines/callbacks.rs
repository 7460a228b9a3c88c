//! sockops where somebody else's program wants callbacks of its own.

use std::io::Write;
use std::net::Shutdown;

use carnet_abi::{EVENT_END, HOW_CLOSED};
use carnet_e2e::sockets::{accept, connect, is_idle, listen, until};

use crate::foreign::{Place, Seen, beside};

/// Flags of the callbacks are the socket's, not a program's. Each adds its own.
#[test]
fn both_get_the_callbacks_that_they_want() {
    for place in Place::ALL {
        told_to_the_end(place, "polite_sockops");
    }
}

/// One that sets its own flags alone takes Carnet's away, where it runs after Carnet's. The connection's end is told all the
/// same, when its descriptor is closed.
#[test]
fn a_program_that_takes_the_callbacks_away() {
    for place in Place::ALL {
        told_to_the_end(place, "rude_sockops");
    }
}

/// A connection that a service never accepts leaves no hand-over behind, whoever has which callbacks.
#[test]
fn what_is_never_accepted_leaves_no_hand_over() {
    for program in ["polite_sockops", "rude_sockops"] {
        for place in Place::ALL {
            let server = listen("127.0.0.1:0");
            let (_foreign, party) = beside(place, &[program]);
            // With the first service's queue full, the handshake stays unfinished and the record in the table.
            socket2::SockRef::from(&party.services[0].listeners[0]).listen(1).unwrap();
            let to = server.local_addr().unwrap();
            let full: Vec<_> = (0..8).map(|_| party.sandbox.in_app(|| begun(to))).collect();
            let open = || party.sandbox.engine.open_handovers().unwrap();
            until("a hand-over that nobody takes", || (open() > 0).then_some(()));
            drop(full);
            until(&format!("the table to be empty, {program} {place:?}"), || (open() == 0).then_some(()));
        }
    }
}

fn told_to_the_end(place: Place, program: &str) {
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let (foreign, mut party) = beside(place, &[program]);
    let mut client = party.sandbox.in_app(|| connect(destination)).expect("connect");
    let hops = party.walk(destination, party.sandbox.app_cgroup().id());
    let at_server = accept(&server);
    client.write_all(b"seventeen bytes..").unwrap();
    let (first, _) = &hops[0];
    // It is acknowledged when the service has it, which gives the round trip that the other program waits for.
    until("the bytes", || (first.peek(&mut [0; 17]).unwrap() == 17).then_some(()));
    client.shutdown(Shutdown::Write).unwrap();
    std::io::Read::read_to_end(&mut &hops[0].0, &mut Vec::new()).unwrap();
    drop(hops);
    drop(at_server);
    assert!(is_idle(&server));
    drop(client);
    let events = party.sandbox.events_until(|event| event.kind == EVENT_END && event.base == 0);
    let end = events.iter().find(|event| event.kind == EVENT_END && event.base == 0).unwrap();
    assert_eq!((end.how, end.sent, end.received), (HOW_CLOSED, 17, 0), "{place:?}");
    assert!(foreign.seen(Seen::Connecting) > 0 && foreign.seen(Seen::Rtts) > 0, "{place:?}");
    // Carnet's program adds to its flags, at the latest when the connection is there.
    assert!(foreign.seen(Seen::States) > 0, "{place:?}");
    assert_eq!(party.sandbox.engine.open_handovers().unwrap(), 0);
    until("no flight", || (party.sandbox.engine.open_flights().unwrap() == 0).then_some(()));
}

/// A connect() that does not wait.
fn begun(to: std::net::SocketAddr) -> socket2::Socket {
    let socket = carnet_e2e::sockets::stream(to);
    socket.set_nonblocking(true).unwrap();
    let _ = socket.connect(&to.into());
    socket
}
