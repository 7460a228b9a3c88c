//! Many at once: connections of several processes, of many threads, of processes that fork and are gone again.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::thread;

use carnet::Redirect;
use carnet_e2e::sockets::{stream, until};
use carnet_e2e::{Running, Sandbox};
use carnet_engine::Options;

use crate::{accept_each, assert_none_lost, destination, more_files, service, turn_of_bytes, until_over, word};

const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");

#[test]
fn alone_ten_thousand_open_at_once_each_have_their_record() {
    const PROCESSES: usize = 4;
    const EACH: usize = 2_500;
    const ALL: usize = PROCESSES * EACH;
    more_files(ALL as u64 + 200);
    let options = Options { event_bytes: 32 << 20, for_test: true, ..Options::default() };
    let mut sandbox = Sandbox::with(&options);
    let service = service(&mut sandbox);
    let mut loads: Vec<Running> = (0..PROCESSES)
        .map(|number| {
            let destinations = (number * EACH..(number + 1) * EACH).map(|turn| destination(turn).to_string());
            let mut command = sandbox.app_command(LOAD);
            Running::start(command.arg("unanswered").arg(EACH.to_string()).args(destinations))
        })
        .collect();
    let accepted = accept_each(&service.listeners[0], 0..ALL);
    assert!(loads.iter_mut().all(|load| load.line() == "held"));
    assert_eq!(sandbox.engine.open_sockets().unwrap(), 2 * ALL, "both ends of each are open");
    assert_none_lost(&mut sandbox, ALL);

    loads.iter_mut().for_each(Running::go_on);
    drop(accepted);
    until_over(&sandbox);
    until("every socket to be gone", || (sandbox.engine.open_sockets().unwrap() == 0).then_some(()));
}

#[test]
fn a_hundred_threads_of_one_process_each_have_their_record() {
    const THREADS: usize = 100;
    const EACH: usize = 20;
    more_files(2 * (THREADS * EACH) as u64 + 200);
    let mut sandbox = Sandbox::new();
    let service = service(&mut sandbox);
    let connect_and_say = |turn: usize| {
        let client = stream(destination(turn));
        client.connect(&destination(turn).into()).unwrap_or_else(|error| panic!("client {turn}: {error}"));
        assert_eq!(client.send(&word(turn)).expect("it is connected"), 4);
        client
    };
    let (clients, accepted) = thread::scope(|scope| {
        let accepted = scope.spawn(|| accept_each(&service.listeners[0], 0..THREADS * EACH));
        let clients = sandbox.in_app(|| {
            let one = |thread: usize| (0..EACH).map(|turn| connect_and_say(thread * EACH + turn)).collect::<Vec<_>>();
            thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || one(thread))).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
        });
        (clients, accepted.join().unwrap())
    });
    for (accepted, turn) in &accepted {
        assert_eq!(turn_of_bytes(accepted), *turn);
    }
    assert_none_lost(&mut sandbox, THREADS * EACH);
    drop((clients, accepted));
    until_over(&sandbox);
}

/// Each is a copy of one process, connects, says who it is, and ends.
#[test]
fn a_storm_of_forks_is_told_apart() {
    const FORKS: usize = 500;
    let mut sandbox = Sandbox::new();
    let service = service(&mut sandbox);
    let destinations = (0..FORKS).map(|turn| destination(turn).to_string());
    let mut command = sandbox.app_command(LOAD);
    let mut storm = Running::start(command.arg("fork").arg(FORKS.to_string()).args(destinations));
    let mut processes = BTreeSet::new();
    for (accepted, _) in accept_each(&service.listeners[0], 0..FORKS) {
        let mut said = String::new();
        BufReader::new(&accepted).read_line(&mut said).expect("it says who it is");
        let origin = Redirect::of(&accepted).flow().expect("flow").origin().clone();
        assert_eq!((said.trim_end(), &origin.comm[..]), (&origin.pid.to_string()[..], "carnet-e2e-load"));
        processes.insert(origin.pid);
    }
    assert_eq!(processes.len(), FORKS);
    let status = until("the storm to be over", || storm.ended());
    assert!(status.success(), "{status}");
    assert_none_lost(&mut sandbox, FORKS);
    until_over(&sandbox);
}
