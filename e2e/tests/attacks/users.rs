//! What one user can do to others.

use std::net::{SocketAddr, TcpStream};

use carnet_abi::{COUNT_EVENTS_LOST, REASON_RUNAWAY};
use carnet_e2e::Sandbox;
use carnet_e2e::raw::disconnect;
use carnet_e2e::sockets::{accept, connect, until};
use carnet_engine::Options;
use carnet_policy::{HostAction, Service as Kind};
use libc::{EACCES, ELOOP};
use socket2::SockRef;

use super::{Stage, as_user, assert_refused};

/// The runaway guard counts what is open to a destination, whoever has opened it.
#[test]
fn one_user_can_use_up_the_runaway_guard_for_a_destination() {
    const LIMIT: u32 = 10;
    let mut stage = Stage::new();
    stage.sandbox.policy.providers[0].in_flight_limit = LIMIT;
    stage.sandbox.apply();
    let to = stage.destination;
    let theirs: Vec<TcpStream> =
        as_user(&stage.sandbox, || (0..LIMIT).map(|_| connect(to).expect("below the limit")).collect());
    assert_refused(&mut stage.sandbox, to, ELOOP, REASON_RUNAWAY);
    // Other destinations are not concerned.
    stage.sandbox.in_app(|| connect(SocketAddr::from(([127, 0, 0, 1], 9)))).expect("another destination");
    drop(theirs);
    until("room again", || stage.sandbox.in_app(|| connect(to)).ok());
}

/// Who floods the log can hide in it, but not that there was a flood.
#[test]
fn one_user_can_flood_the_events_and_the_loss_is_counted() {
    let mut sandbox = Sandbox::with(&Options { event_bytes: 4096, ..Options::default() });
    sandbox.policy.default = HostAction::Block;
    sandbox.apply();
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    as_user(&sandbox, || (0..20).for_each(|_| assert_eq!(connect(to).unwrap_err(), EACCES)));
    let lost = sandbox.engine.counters().unwrap()[COUNT_EVENTS_LOST];
    assert_eq!(lost + sandbox.events().len() as u64, 20);
    assert!(lost > 0);
}

/// A thousand decisions on one socket leave what one leaves.
#[test]
fn one_socket_that_connects_and_disconnects_leaves_nothing() {
    let mut sandbox = Sandbox::with(&Options { for_test: true, ..Options::default() });
    let service = sandbox.service(Kind::Aware);
    as_user(&sandbox, || {
        let client = connect(([127, 0, 0, 1], 9).into()).unwrap();
        for port in 10..1000 {
            disconnect(&client).unwrap();
            let to = SocketAddr::from(([127, 0, 0, 1], port));
            SockRef::from(&client).connect(&to.into()).unwrap();
            accept(&service.listeners[0]);
        }
    });
    accept(&service.listeners[0]);
    drop(service);
    assert_eq!(sandbox.engine.open_handovers().unwrap(), 0);
    assert_eq!(sandbox.engine.shared_handovers().unwrap(), 0);
    assert_eq!(sandbox.engine.open_sockets().unwrap(), 0);
}
