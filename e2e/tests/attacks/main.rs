//! Attacks on Carnet. Each test is a row of `docs/attacks.md`, and [`catalogue`] sees that no row is without a test.
//!
//! The attacker is an application's process: [`raw::NOBODY`] without privileges where the attack needs none, root where
//! it does. What only slows an attacker down has no row.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod addresses;
mod blobs;
mod catalogue;
mod cgroups;
mod control;
mod flights;
mod identity;
mod listeners;
mod namespaces;
mod options;
mod races;
mod sockets;
mod users;
mod wire;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};

use carnet_abi::{Event, VERDICT_REFUSE};
use carnet_e2e::sockets::{accept, connect, is_idle, listen};
use carnet_e2e::{Sandbox, Service, raw};
use carnet_policy::{HostAction, Match, Service as Kind};

/// A service that gets every TCP connection, and a server that is to get none but the service's.
struct Stage {
    sandbox: Sandbox,
    service: Service,
    server: TcpListener,
    /// The server's.
    destination: SocketAddr,
}

impl Stage {
    fn new() -> Self {
        Self::on(Sandbox::new())
    }

    fn on(mut sandbox: Sandbox) -> Self {
        let service = sandbox.service(Kind::Aware);
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap();
        Self { sandbox, service, server, destination }
    }

    /// The service has got it, and the server has not.
    fn assert_redirected(&self) {
        accept(&self.service.listeners[0]);
        self.assert_nobody_came();
    }

    fn assert_nobody_came(&self) {
        assert!(is_idle(&self.server), "somebody came by the service");
        assert!(self.service.listeners.iter().all(is_idle));
    }
}

/// Does something as an application's process without privileges.
fn as_user<T: Send>(sandbox: &Sandbox, act: impl FnOnce() -> T + Send) -> T {
    sandbox.in_app(|| raw::as_nobody(act))
}

/// An application's `connect()` there is refused with this errno, for this reason.
fn assert_refused(sandbox: &mut Sandbox, to: SocketAddr, errno: i32, reason: u32) -> Event {
    let (refused, decision) = sandbox.decided(|| connect(to));
    assert_eq!(refused.unwrap_err(), errno, "{to}");
    assert_eq!((decision.verdict, decision.reason, decision.error), (VERDICT_REFUSE, reason, errno), "{to}");
    decision
}

/// Ends what another thread does all the time, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The host lets this port alone pass, and refuses all others.
fn let_pass_alone(sandbox: &mut Sandbox, to: SocketAddr) {
    sandbox.host_filter(Match::default().on_ports(to.port()..=to.port()), HostAction::Permit);
    sandbox.host_filter(Match::default(), HostAction::Block);
}
