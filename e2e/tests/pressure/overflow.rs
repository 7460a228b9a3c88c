//! The queue fills up while handshakes are open: the client is connected by then, and the service has nothing of it yet.

use std::time::Duration;

use carnet_e2e::sockets::until;
use carnet_e2e::{Sandbox, Service, netns};
use nix::errno::Errno;
use socket2::Socket;

use crate::{
    ESTABLISHED, accept_each, assert_none_lost, begin, defer_accept, destination, info, netstat, service, set,
    set_backlog, turn_of_bytes, word,
};

/// Handshakes that may be open at once; one connection more may wait to be accepted.
const BACKLOG: usize = 4;

/// Those who find the queue full when their handshake ends.
const LATE: usize = BACKLOG - 1;

#[test]
fn a_handshake_that_ends_at_a_full_queue_keeps_its_record_until_there_is_room() {
    netns::alone(|| {
        let mut overflow = Overflow::new();
        overflow.assert_arrive(0..2 * BACKLOG);
        assert_none_lost(&mut overflow.sandbox, 2 * BACKLOG);
    });
}

#[test]
fn a_handshake_that_is_reset_at_a_full_queue_leaves_nothing() {
    netns::alone(|| {
        set("ipv4/tcp_abort_on_overflow", "1");
        let mut overflow = Overflow::new();
        for late in &overflow.clients[BACKLOG + 1..] {
            let error = until("the reset", || late.take_error().expect("SO_ERROR"));
            assert_eq!(error.raw_os_error(), Some(Errno::ECONNRESET as i32));
        }
        overflow.assert_arrive(0..=BACKLOG);
        assert_none_lost(&mut overflow.sandbox, BACKLOG + 1);
        // Whoever tries again is as welcome as ever.
        let again = overflow.sandbox.in_app(|| connected(2 * BACKLOG));
        say(&again, 2 * BACKLOG);
        overflow.assert_arrive([2 * BACKLOG]);
        assert_none_lost(&mut overflow.sandbox, BACKLOG + 2);
    });
}

/// In good order, it has said all it had to say, and the service gets that. With a reset, there is nothing to get.
#[test]
fn a_client_that_goes_while_the_queue_is_full_arrives_if_it_went_in_good_order() {
    netns::alone(|| {
        let mut overflow = Overflow::new();
        let reset = overflow.clients.pop().expect("the last client");
        let closed = overflow.clients.pop().expect("the one before");
        reset.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        drop((reset, closed));
        assert_eq!(overflow.sandbox.engine.open_handovers().unwrap(), LATE - 1, "the one that was reset is over");
        overflow.assert_arrive(0..2 * BACKLOG - 1);
        assert_none_lost(&mut overflow.sandbox, 2 * BACKLOG - 1);
    });
}

/// A service that accepts nothing, and whose last clients have found its queue full.
struct Overflow {
    sandbox: Sandbox,
    service: Service,
    clients: Vec<Socket>,
}

impl Overflow {
    fn new() -> Self {
        // Else what finds no place among the open handshakes would have one as a cookie.
        set("ipv4/tcp_syncookies", "0");
        let mut sandbox = Sandbox::new();
        let service = service(&mut sandbox);
        // A handshake is open until there is data, so that many can be open at once.
        defer_accept(&service.listeners[0]);
        set_backlog(&service.listeners[0], BACKLOG as i32);
        let mut clients = Vec::new();
        for turns in [0..BACKLOG, BACKLOG..2 * BACKLOG] {
            clients.extend(turns.clone().map(|turn| sandbox.in_app(|| connected(turn))));
            turns.for_each(|turn| say(&clients[turn], turn));
        }
        until("the queue to overflow", || (netstat("ListenOverflows") >= LATE as u64).then_some(()));
        Self { sandbox, service, clients }
    }

    /// These clients arrive, with record and number, and nobody else does.
    fn assert_arrive(&self, turns: impl IntoIterator<Item = usize>) {
        for (accepted, turn) in accept_each(&self.service.listeners[0], turns) {
            assert_eq!(turn_of_bytes(&accepted), turn);
        }
        assert_eq!(self.sandbox.engine.open_handovers().unwrap(), 0, "nobody else is on the way");
    }
}

/// The n-th client, with its handshake done as far as it can see.
fn connected(turn: usize) -> Socket {
    let socket = begin(destination(turn));
    until("the handshake", || (info(&socket).state == ESTABLISHED).then_some(()));
    socket
}

fn say(client: &Socket, turn: usize) {
    assert_eq!(client.send(&word(turn)).expect("it is connected"), 4);
}
