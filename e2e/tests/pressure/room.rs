//! No room: in the map of hand-overs, in the event buffer, in the accepting socket's memory.

use std::io::Write;
use std::{fs, thread};

use carnet::{ErrorKind, Redirect};
use carnet_abi::{
    COUNT_EVENTS_LOST, COUNT_HANDED_OVER, COUNT_HELD_BACK, COUNT_LOST_CONTEXT, COUNT_NO_ROOM, EVENT_CONNECT, EVENT_END,
    EVENT_LOST,
};
use carnet_e2e::sockets::{connect, is_idle, stream, until};
use carnet_e2e::{Sandbox, netns};
use carnet_engine::Options;
use socket2::Socket;

use crate::{
    ESTABLISHED, accept_each, begin, defer_accept, destination, full_queue, info, next, service, set, set_backlog,
    turn_of_bytes, turn_of_record, until_over, word,
};

#[test]
fn a_full_hand_over_map_refuses_who_is_too_many_and_harms_nobody_else() {
    const ENTRIES: usize = 64;
    const REFUSED: usize = 200;
    const LEFT: usize = 10;
    let options =
        Options { handover_entries: ENTRIES as u32, handover_share: Some(2 * ENTRIES as u32), ..Options::default() };
    let mut sandbox = Sandbox::with(&options);
    let (service, occupant) = full_queue(&mut sandbox);
    let held_back = |sandbox: &Sandbox| sandbox.engine.counters().unwrap()[COUNT_HELD_BACK];
    let begin_in_app = |sandbox: &Sandbox, turn| sandbox.in_app(|| begin(destination(turn)));

    let mut clients: Vec<Socket> = (1..=ENTRIES).map(|turn| begin_in_app(&sandbox, turn)).collect();
    assert_eq!(sandbox.engine.open_handovers().unwrap(), ENTRIES);
    sandbox.in_app(|| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..REFUSED / 4 {
                        assert_eq!(connect(destination(1000)).expect_err("there is no room"), libc::EHOSTUNREACH);
                    }
                });
            }
        });
    });
    assert_eq!(held_back(&sandbox), REFUSED as u64, "each of them is counted");
    assert_eq!(sandbox.engine.open_handovers().unwrap(), ENTRIES);

    // As many may come as leave, at once.
    clients.truncate(ENTRIES - LEFT);
    let late = ENTRIES - LEFT + 1..=ENTRIES;
    clients.extend(late.map(|turn| begin_in_app(&sandbox, turn)));
    assert_eq!(held_back(&sandbox), REFUSED as u64);
    sandbox.in_app(|| assert_eq!(connect(destination(1000)).expect_err("it is full again"), libc::EHOSTUNREACH));

    set_backlog(&service.listeners[0], 1000);
    // Who had room arrives, and nobody else does.
    accept_each(&service.listeners[0], 0..=ENTRIES);
    assert!(is_idle(&service.listeners[0]));
    assert_eq!(sandbox.engine.counters().unwrap()[COUNT_LOST_CONTEXT], 0);
    drop((occupant, clients));
    until_over(&sandbox);
}

/// Nobody reads the events, and there is room for a handful. Both processors write at once.
#[test]
fn a_full_event_buffer_harms_no_connection_and_every_loss_is_counted() {
    const THREADS: usize = 8;
    const EACH: usize = 100;
    let mut sandbox = Sandbox::with(&Options { event_bytes: 4096, ..Options::default() });
    let service = service(&mut sandbox);
    sandbox.in_app(|| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for turn in thread * EACH..(thread + 1) * EACH {
                        let client = stream(destination(turn));
                        client.connect(&destination(turn).into()).expect("connect");
                        assert_eq!(client.send(&word(turn)).expect("it is connected"), 4);
                    }
                });
            }
        });
    });
    for (accepted, turn) in accept_each(&service.listeners[0], 0..THREADS * EACH) {
        assert_eq!(turn_of_bytes(&accepted), turn);
    }
    until_over(&sandbox);
    let told = sandbox.events();
    let counters = sandbox.engine.counters().unwrap();
    assert!(told.iter().all(|event| event.kind == EVENT_CONNECT || event.kind == EVENT_END), "{told:#?}");
    // A decision and an end each.
    assert!(!told.is_empty());
    assert_eq!(told.len() as u64 + counters[COUNT_EVENTS_LOST], 2 * (THREADS * EACH) as u64);
    assert_eq!((counters[COUNT_HANDED_OVER], counters[COUNT_LOST_CONTEXT]), ((THREADS * EACH) as u64, 0));
}

/// The limit is the network's, and may fall while a connection is on its way. As with a stranger, nothing passes but
/// what the handshake's last packet carries.
#[test]
fn accepted_without_memory_for_the_record_a_connection_is_cut_off() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let service = service(&mut sandbox);
        let listener = &service.listeners[0];
        defer_accept(listener);
        let begin_in_app = |turn| {
            let client = sandbox.in_app(|| begin(destination(turn)));
            until("the handshake", || (info(&client).state == ESTABLISHED).then_some(()));
            client
        };
        let client = begin_in_app(0);
        let most = fs::read_to_string("/proc/sys/net/core/optmem_max").expect("per network since Linux 6.9");
        set("core/optmem_max", "256");
        client.send(&word(0)).expect("it is connected");
        let (mut accepted, _) = until("the connection", || next(listener));
        set("core/optmem_max", &most);
        // Without memory for the record there is none for a note that it was lost.
        let redirect = Redirect::of(&accepted);
        assert_eq!(redirect.flow().expect_err("there is no record").kind(), ErrorKind::NotRedirected);
        assert_eq!(redirect.original_destination().expect_err("nor this").kind(), ErrorKind::NotRedirected);
        accepted.write_all(b"from whom?").expect("the kernel takes it");
        let error = until("the client's end", || client.take_error().expect("SO_ERROR"));
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        assert_eq!(info(&client).received, 0, "nothing has come back");

        // There is memory again.
        let later = begin_in_app(1);
        later.send(&word(1)).expect("it is connected");
        let (arrived, peer) = until("the connection", || next(listener));
        assert_eq!([turn_of_record(&arrived, peer), turn_of_bytes(&arrived)], [1; 2]);

        let counters = sandbox.engine.counters().unwrap();
        assert_eq!([COUNT_NO_ROOM, COUNT_LOST_CONTEXT, COUNT_HANDED_OVER].map(|counter| counters[counter]), [1, 0, 1]);
        let events = sandbox.events();
        let lost: Vec<_> = events.iter().filter(|event| event.kind == EVENT_LOST).collect();
        let [lost] = lost[..] else { panic!("one was lost: {events:#?}") };
        assert_eq!((lost.handle, lost.record.depth, lost.record.flow), (1, 1, events[0].record.flow));
        assert_eq!(lost.remote.to_socket_addr(), destination(0), "where it was going");
        drop((client, accepted, later, arrived));
        until_over(&sandbox);
    });
}
