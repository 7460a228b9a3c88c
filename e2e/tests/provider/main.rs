//! Providers that are dead, false, dialled directly, or asked for too much.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod dead;
mod dialled;
mod direct;
mod limits;
mod passed;
mod stranger;

use std::net::SocketAddr;

use carnet_abi::{Event, VERDICT_REFUSE};
use carnet_e2e::Sandbox;
use carnet_e2e::sockets::connect;

/// Connects as an application, which must be refused with this errno and for this reason. Returns the event.
fn assert_refused(sandbox: &mut Sandbox, destination: SocketAddr, errno: i32, reason: u32) -> Event {
    let (result, decision) = sandbox.decided(|| connect(destination));
    assert_eq!(result.expect_err("must be refused"), errno, "{destination}");
    assert_eq!((decision.verdict, decision.reason, decision.error), (VERDICT_REFUSE, reason, errno), "{destination}");
    assert_eq!(decision.pid, std::process::id());
    decision
}
