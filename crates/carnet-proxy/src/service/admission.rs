//! Between accept() and a flow: the limits of users, and the rate of all.

use std::{future::pending, net::SocketAddr, sync::Arc};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use super::{Desk, route::Routes};
use crate::{
    Report, Reporter,
    limits::{Gate, Permit, Refused},
    relay::reset_when_closed,
};

/// A connection that may become a flow.
pub(super) type Admitted = (TcpStream, SocketAddr, Permit);

/// Of one accepting task. It holds back one connection at most, so that those behind it wait in the kernel's queue.
#[derive(Debug)]
pub(super) struct Admission {
    gate: Arc<Gate>,
    /// And when it is to be looked whether it may begin.
    held: Option<(Admitted, Instant)>,
}

impl Admission {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, held: None }
    }

    /// What becomes of a connection that was just accepted. `None`: it is reset, or has to wait.
    pub(super) fn of<T: Routes, R: Reporter>(
        &mut self,
        client: TcpStream,
        peer: SocketAddr,
        desk: &Desk<T, R>,
    ) -> Option<Admitted> {
        let uid = if self.gate.asks_for_user() { desk.routes.uid(&client) } else { None };
        let permit = match self.gate.admit(uid) {
            Ok(permit) => permit,
            Err(Refused { limit, say }) => {
                reset_when_closed(&client, true);
                if let Some(connections) = say {
                    desk.reporter.report(Report::OverLimit { limit, uid, connections });
                }
                return None;
            }
        };
        let Some(wait) = self.gate.turn() else { return Some((client, peer, permit)) };
        if self.gate.is_rate_news()
            && let Some(rate) = desk.options.limits.rate
        {
            desk.reporter.report(Report::RateReached { rate });
        }
        self.held = Some(((client, peer, permit), Instant::now() + wait));
        None
    }

    /// Whether another one may be accepted.
    pub(super) fn is_free(&self) -> bool {
        self.held.is_none()
    }

    /// The connection that waits, once it is its turn. May be dropped and called again.
    pub(super) async fn turn(&mut self) -> Admitted {
        while let Some((_, when)) = &mut self.held {
            sleep_until(*when).await;
            match self.gate.turn() {
                Some(wait) => *when = Instant::now() + wait, // another task was faster
                None => break,
            }
        }
        match self.held.take() {
            Some((admitted, _)) => admitted,
            None => pending().await,
        }
    }

    /// The connection that waits, at the end: it is accepted, and so it is served.
    pub(super) fn last(&mut self) -> Option<Admitted> {
        self.held.take().map(|(admitted, _)| admitted)
    }
}
