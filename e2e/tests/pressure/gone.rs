//! The client is gone before the service accepts. The record is the accepted socket's by then, so it stays.

use std::process;
use std::time::Duration;

use carnet::Redirect;
use carnet_e2e::sockets::{stream, until};
use carnet_e2e::{Running, Sandbox};
use socket2::Socket;

use crate::{accept_each, assert_none_lost, destination, service, turn_of_bytes, until_over, word};

const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");

const CLIENTS: usize = 500;

#[test]
fn a_client_that_has_closed_has_left_its_record() {
    gone(drop);
}

#[test]
fn a_client_that_has_reset_has_left_its_record() {
    gone(|client| client.set_linger(Some(Duration::ZERO)).expect("SO_LINGER"));
}

#[test]
fn a_client_that_was_killed_has_left_its_record() {
    let mut sandbox = Sandbox::new();
    let service = service(&mut sandbox);
    let destinations = (0..CLIENTS).map(|turn| destination(turn).to_string());
    let mut command = sandbox.app_command(LOAD);
    let mut load = Running::start(command.arg("unanswered").arg(CLIENTS.to_string()).args(destinations));
    assert_eq!(load.line(), "held");
    load.kill();
    for (accepted, _) in accept_each(&service.listeners[0], 0..CLIENTS) {
        let origin = Redirect::of(&accepted).flow().expect("flow").origin().clone();
        assert_eq!(origin.comm, "carnet-e2e-load");
        assert_ne!(origin.pid, process::id());
        assert_eq!(origin.executable_path(), None, "there is no such process any more");
    }
    assert_none_lost(&mut sandbox, CLIENTS);
    until_over(&sandbox);
}

/// Clients that send their number and go like this, one after the other; then they are accepted in that order.
fn gone(go: impl Fn(Socket)) {
    let mut sandbox = Sandbox::new();
    let service = service(&mut sandbox);
    sandbox.in_app(|| {
        for turn in 0..CLIENTS {
            let to = destination(turn);
            let client = stream(to);
            client.connect(&to.into()).expect("connect");
            assert_eq!(client.send(&word(turn)).expect("it is connected"), 4);
            // The kernel is done with the handshake, whatever else it has to do.
            until("the hand-over", || (sandbox.engine.open_handovers().unwrap() == 0).then_some(()));
            go(client);
        }
    });
    for (expected, (accepted, turn)) in accept_each(&service.listeners[0], 0..CLIENTS).into_iter().enumerate() {
        assert_eq!([turn, turn_of_bytes(&accepted)], [expected; 2]);
    }
    assert_none_lost(&mut sandbox, CLIENTS);
    until_over(&sandbox);
}
