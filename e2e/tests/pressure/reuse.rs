//! A port that is used again as soon as it is free: the same two addresses and ports, and every time another flow.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use carnet::{ErrorKind, Redirect};
use carnet_abi::{COUNT_HANDED_OVER, COUNT_LOST_CONTEXT, COUNT_STRANGERS};
use carnet_e2e::sockets::{stream, until};
use carnet_e2e::{Sandbox, netns};
use carnet_engine::Options;
use nix::errno::Errno;
use socket2::Socket;

use crate::{
    SYN_SENT, assert_none_lost, destination, full_queue, info, next, service, turn_of_bytes, turn_of_record,
    until_over, word,
};

const PORT: u16 = 20_000;

/// From one port, as fast as can be, while the service accepts; and from several ports of as many threads.
///
/// A kernel that is busy may end a handshake when its client has reset it and has begun the next connection from that
/// port. Then the record is gone with the client, and the service must not get the next one's. How many fare so depends
/// on what else the machine does.
#[test]
fn a_port_used_again_at_once_never_has_the_record_of_another_connect() {
    for threads in [1, 4] {
        netns::alone(|| assert_own_records(threads, 4_000 / threads));
    }
}

fn assert_own_records(threads: usize, each: usize) {
    let mut sandbox = Sandbox::with(&Options { event_bytes: 16 << 20, ..Options::default() });
    let service = service(&mut sandbox);
    let over = AtomicBool::new(false);
    let mut came = thread::scope(|scope| {
        let listener = &service.listeners[0];
        let acceptor = scope.spawn(|| accept_until(listener, &over));
        sandbox.in_app(|| {
            thread::scope(|scope| {
                for number in 0..threads {
                    scope.spawn(move || {
                        let turns = number * each..(number + 1) * each;
                        turns.for_each(|turn| go_and_reset(PORT + number as u16, turn));
                    });
                }
            });
        });
        over.store(true, Ordering::Release);
        acceptor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let all = threads * each;
    let lost = came.iter().filter(|(_, with)| *with == Record::Gone).count();
    came.sort_unstable_by_key(|(turn, _)| *turn);
    assert!(came.into_iter().map(|(turn, _)| turn).eq(0..all), "each of them once");
    println!("{threads} threads: {lost} of {all} clients were quicker than the kernel");
    assert!(lost < all, "nobody's record has come");
    let counters = sandbox.engine.counters().unwrap();
    let told = [COUNT_HANDED_OVER, COUNT_LOST_CONTEXT, COUNT_STRANGERS].map(|counter| counters[counter]);
    assert_eq!(told, [(all - lost) as u64, lost as u64, 0]);
    until_over(&sandbox);
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Record {
    Own,
    Gone,
}

/// Everybody who comes until the clients are done.
fn accept_until(listener: &TcpListener, over: &AtomicBool) -> Vec<(usize, Record)> {
    let mut came = Vec::new();
    loop {
        // Asked first: who has come by then is in the queue.
        let done = over.load(Ordering::Acquire);
        let Some((accepted, peer)) = next(listener) else {
            if done {
                return came;
            }
            thread::yield_now();
            continue;
        };
        let turn = turn_of_bytes(&accepted);
        let lost = Redirect::of(&accepted).flow().is_err_and(|error| error.kind() == ErrorKind::ContextLost);
        assert!(lost || turn_of_record(&accepted, peer) == turn, "the record of another connect() from that port");
        came.push((turn, if lost { Record::Gone } else { Record::Own }));
    }
}

/// The n-th client connects from this port, sends its number, and gives the port back with a reset.
fn go_and_reset(port: u16, turn: usize) {
    let client = from(port);
    client.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    client.connect(&destination(turn).into()).unwrap_or_else(|error| panic!("client {turn}: {error}"));
    assert_eq!(client.send(&word(turn)).expect("it is connected"), 4);
}

/// The one before has given up on a SYN that the service's queue has dropped, or on a handshake the service has not
/// ended: what arrives in the end is the last one's.
#[test]
fn a_port_used_again_while_the_queue_is_full_has_the_record_of_its_last_connect() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let (service, occupant) = full_queue(&mut sandbox);
        let listener = &service.listeners[0];
        for turn in 1..100 {
            let given_up = sandbox.in_app(|| begin_from(PORT, turn));
            assert_eq!(info(&given_up).state, SYN_SENT);
            assert_eq!(sandbox.engine.open_handovers().unwrap(), 1, "that of client {turn}");
        }
        let last = sandbox.in_app(|| begin_from(PORT, 100));
        let (accepted, peer) = until("the occupant", || next(listener));
        assert_eq!(turn_of_record(&accepted, peer), 0);
        let (accepted, peer) = until("the last client", || next(listener));
        assert_eq!((turn_of_record(&accepted, peer), peer.port()), (100, PORT));
        assert_eq!(last.send(&word(100)).expect("it is connected"), 4);
        assert_eq!(turn_of_bytes(&accepted), 100);
        assert_none_lost(&mut sandbox, 2);
        assert!(next(listener).is_none(), "those who have given up do not come");
        drop((occupant, last, accepted));
        until_over(&sandbox);
    });
}

fn begin_from(port: u16, turn: usize) -> Socket {
    let client = from(port);
    client.set_nonblocking(true).expect("non-blocking");
    let error = client.connect(&destination(turn).into()).expect_err("nobody accepts");
    assert_eq!(error.raw_os_error(), Some(Errno::EINPROGRESS as i32), "client {turn}");
    client
}

fn from(port: u16) -> Socket {
    let client = stream(destination(0));
    client.set_reuse_address(true).expect("SO_REUSEADDR");
    client.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("the port is free again");
    client
}
