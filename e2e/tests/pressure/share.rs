//! Room in the map of hand-overs is for all: nobody can take more than a share of it, and what is refused says so.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use carnet_abi::{
    COUNT_HELD_BACK, COUNT_LOST_CONTEXT, COUNT_OVER_SHARE, EVENT_CONNECT, Event, REASON_SHARE, VERDICT_REDIRECT,
    VERDICT_REFUSE,
};
use carnet_e2e::raw::{NOBODY, as_nobody};
use carnet_e2e::sockets::{PATIENCE, accept, connect, is_idle, stream, until};
use carnet_e2e::{Relay, Running, Sandbox, netns};
use carnet_engine::Options;
use carnet_policy::{Match, Service as Kind};
use socket2::Socket;

use crate::{ESTABLISHED, accept_each, begin, destination, full_queue, info, more_files, set, set_backlog, until_over};

const CLIENT: &str = env!("CARGO_BIN_EXE_carnet-e2e-client");
const RELAY: &str = env!("CARGO_BIN_EXE_carnet-e2e-relay");

#[test]
fn each_user_has_a_share_and_gets_it_back() {
    const SHARE: usize = 16;
    let mut sandbox = Sandbox::with(&Options { handover_entries: 4 * SHARE as u32, ..Options::default() });
    let (service, occupant) = full_queue(&mut sandbox);
    let listener = &service.listeners[0];
    let open = |sandbox: &Sandbox| {
        let open = sandbox.engine.open_handovers().unwrap();
        assert_eq!(sandbox.engine.shared_handovers().unwrap(), open, "both counts say the same");
        open
    };
    let mut theirs: Vec<Socket> =
        in_app_as_nobody(&sandbox, || (1..=SHARE).map(|turn| begin(destination(turn))).collect());
    assert_eq!(open(&sandbox), SHARE);
    for refused in 1..=3 {
        let decision = assert_refused(&mut sandbox);
        assert_eq!((decision.uid, decision.handle, decision.record.depth), (NOBODY, 1, 0));
        assert_eq!(sandbox.engine.counters().unwrap()[COUNT_OVER_SHARE], refused);
        assert!(sandbox.events().is_empty(), "what never began has no end");
    }
    let others: Vec<Socket> = sandbox.in_app(|| (SHARE + 1..=2 * SHARE).map(|turn| begin(destination(turn))).collect());
    assert_eq!(open(&sandbox), 2 * SHARE);

    // Given up: there is room for as many as went, and for no more.
    theirs.truncate(SHARE - 2);
    assert_eq!(open(&sandbox), 2 * SHARE - 2);
    theirs.extend(in_app_as_nobody(&sandbox, || [SHARE - 1, SHARE].map(|turn| begin(destination(turn)))));
    sandbox.events();
    assert_refused(&mut sandbox);

    // Accepted: nobody waits any more, and both have their whole share again.
    set_backlog(listener, 1000);
    accept_each(listener, 0..=2 * SHARE);
    assert!(is_idle(listener), "who was refused does not come");
    assert_eq!(open(&sandbox), 0);
    let client = in_app_as_nobody(&sandbox, || connect(destination(99)).expect("there is room again"));
    accept(listener);
    drop((client, occupant, theirs, others));
    until_over(&sandbox);
}

/// Nobody waits for anybody to count, so each thread may get one too many through; but all are counted.
#[test]
fn a_share_holds_against_many_threads() {
    const SHARE: usize = 100;
    const THREADS: usize = 8;
    let mut sandbox = Sandbox::with(&Options { handover_share: Some(SHARE as u32), ..Options::default() });
    let (service, occupant) = full_queue(&mut sandbox);
    for _ in 0..20 {
        let attempt = || {
            let socket = stream(destination(1));
            socket.set_nonblocking(true).expect("non-blocking");
            let error = socket.connect(&destination(1).into()).expect_err("nobody accepts").raw_os_error().unwrap();
            match error {
                libc::EINPROGRESS => Some(socket),
                // The second: another thread was quicker, after the decision.
                libc::ENOBUFS | libc::EHOSTUNREACH => None,
                other => panic!("{other}"),
            }
        };
        let waiting: Vec<Socket> = sandbox.in_app(|| {
            thread::scope(|scope| {
                let some = || (0..SHARE).filter_map(|_| attempt()).collect::<Vec<_>>();
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(some)).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            })
        });
        let open = sandbox.engine.open_handovers().unwrap();
        assert_eq!((waiting.len(), sandbox.engine.shared_handovers().unwrap()), (open, open));
        assert!((SHARE..SHARE + THREADS).contains(&open), "{open} of {SHARE}");
    }
    drop((occupant, service));
    until_over(&sandbox);
}

/// The service stands still, and one user goes on connecting. Another one's connections wait for this service as they
/// should, and with other services they are as quick as ever.
#[test]
fn alone_64k_half_open_connections_of_one_user_to_a_stopped_service_do_not_keep_others_out() {
    const ATTEMPTS: usize = 65_536;
    const SHARE: usize = ATTEMPTS / 4;
    const QUEUE: usize = 16;
    more_files(SHARE as u64 + 300);
    netns::alone(|| {
        set("core/somaxconn", &QUEUE.to_string());
        set("ipv4/ip_local_port_range", "1024 65535");
        let mut sandbox = Sandbox::new();
        let [stopped, _going] = [(); 2].map(|()| sandbox.relay(RELAY, Kind::Aware, &["aware"]));
        let servers = [(); 2].map(|()| Relay::start(0, Command::new(RELAY).arg("server")));
        let [to_stopped, to_going] = servers.each_ref().map(|server| server.addresses[0]);
        for (index, to) in [to_stopped, to_going].into_iter().enumerate() {
            let ports = to.port()..=to.port();
            sandbox.policy.providers[index].filters[0].matches = Match::default().on_ports(ports);
        }
        sandbox.apply();
        stopped.process.stop();

        // What the kernel establishes by itself until the queue is full needs no room any more.
        let (mut half_open, mut refused) = (Vec::new(), 0);
        while half_open.len() + refused < ATTEMPTS {
            in_app_as_nobody(&sandbox, || {
                for _ in 0..1024 {
                    let socket = stream(to_stopped);
                    socket.set_nonblocking(true).expect("non-blocking");
                    match socket.connect(&to_stopped.into()).map_err(|error| error.raw_os_error()) {
                        Err(Some(libc::EINPROGRESS)) => half_open.push(socket),
                        Err(Some(libc::ENOBUFS)) => refused += 1,
                        other => panic!("attempt {}: {other:?}", half_open.len() + refused),
                    }
                }
            });
            let decisions = sandbox.events();
            assert!(decisions.iter().all(|event| event.kind == EVENT_CONNECT && event.uid == NOBODY));
            let told = |event: &Event| (event.verdict, event.reason) == (VERDICT_REFUSE, REASON_SHARE);
            assert!(decisions.iter().all(|event| told(event) || event.verdict == VERDICT_REDIRECT));
        }
        let counters = sandbox.engine.counters().unwrap();
        assert_eq!((half_open.len(), refused), (SHARE + QUEUE + 1, ATTEMPTS - SHARE - QUEUE - 1));
        assert_eq!((counters[COUNT_OVER_SHARE], counters[COUNT_HELD_BACK]), (refused as u64, 0));
        assert_eq!(sandbox.engine.open_handovers().unwrap(), SHARE);
        assert_eq!(in_app_as_nobody(&sandbox, || connect(to_going)).unwrap_err(), libc::ENOBUFS, "the share is one");

        let mut quick = sandbox.in_app(|| connect(to_going)).expect("another user has a share of its own");
        assert_answered(&mut quick);
        let waits = sandbox.in_app(|| begin(to_stopped));
        let mut third = Running::start(sandbox.app_command(CLIENT).args(["4711", "4711", &to_stopped.to_string()]));
        until("the third user's", || (sandbox.engine.open_handovers().unwrap() == SHARE + 2).then_some(()));

        drop(half_open);
        until("room again", || (sandbox.engine.open_handovers().unwrap() == 2).then_some(()));
        assert_eq!(sandbox.engine.shared_handovers().unwrap(), 2);
        let later = in_app_as_nobody(&sandbox, || begin(to_stopped));
        stopped.process.resume();
        assert!(third.line().starts_with("127.0.0.1:"), "it is connected, and says from where");
        for waited in [waits, later] {
            until("the handshake", || (info(&waited).state == ESTABLISHED).then_some(()));
            waited.set_nonblocking(false).expect("blocking");
            assert_answered(&mut waited.into());
        }
        drop((quick, third));
        until_over(&sandbox);
        assert_eq!(sandbox.engine.counters().unwrap()[COUNT_LOST_CONTEXT], 0);
    });
}

/// A connection of the user who has used up the share; the decision on it.
fn assert_refused(sandbox: &mut Sandbox) -> Event {
    let (result, decision) = sandbox.decided(|| as_nobody(|| connect(destination(99))));
    assert_eq!(result.expect_err("the share is used up"), libc::ENOBUFS);
    assert_eq!((decision.verdict, decision.reason, decision.error), (VERDICT_REFUSE, REASON_SHARE, libc::ENOBUFS));
    decision
}

fn in_app_as_nobody<T: Send>(sandbox: &Sandbox, act: impl FnOnce() -> T + Send) -> T {
    sandbox.in_app(|| as_nobody(act))
}

fn assert_answered(client: &mut TcpStream) {
    let mut answer = [0; 2];
    client.set_read_timeout(Some(PATIENCE)).expect("timeout");
    client.write_all(b"ho").expect("write");
    client.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"ho");
}
