//! How much one user may take, and how fast connections may come.
//!
//! ```text
//! accept() ──► whose is it? ──► Gate::admit: the user's own limits ──► Gate::turn: the rate of all ──► a flow
//!                                   over it: reset                       none left: it waits, and so do
//!                                                                        those behind it in the kernel's queue
//! ```
//!
//! A user over a limit of their own is refused before they take anything of what all share.

mod users;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use self::users::Users;
use crate::rules::{Rate, TokenBucket};

/// Limits of users, and of all together. The default: none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Most flows of one user at a time. One more is reset.
    pub flows_per_user: Option<u32>,
    /// New flows of one user. One too soon is reset.
    pub rate_per_user: Option<Rate>,
    /// New flows of all. One too soon waits for its time, and those behind it wait unaccepted.
    pub rate: Option<Rate>,
}

/// Which limit a user has come to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::flows_per_user`].
    FlowsPerUser,
    /// [`Limits::rate_per_user`].
    RatePerUser,
}

/// Keeps the limits. Any number of threads may ask.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    begun: Instant,
    users: Mutex<Users>,
    rate: Option<TokenBucket>,
    said_rate: AtomicBool,
    refused: AtomicU64,
}

/// A flow's place among its user's. Free again when it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit(Option<(Arc<Gate>, Key)>);

/// A user's connection that is over a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Refused {
    pub(crate) limit: Limit,
    /// Connections of this user refused since that was last said, this one included. `None`: it was said lately.
    pub(crate) say: Option<u64>,
}

/// A uid. `None`: of a connection of which it is not known, and of all users beyond the [`MOST_USERS`](users::MOST_USERS)
/// that are told apart.
type Key = Option<u32>;

impl Gate {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            begun: Instant::now(),
            users: Mutex::new(Users::new(limits)),
            rate: limits.rate.map(TokenBucket::new),
            said_rate: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        })
    }

    /// Whether [`admit`](Self::admit) asks whose a connection is.
    pub(crate) fn asks_for_user(&self) -> bool {
        self.limits.flows_per_user.is_some() || self.limits.rate_per_user.is_some()
    }

    /// A place for one more flow of this user.
    pub(crate) fn admit(self: &Arc<Self>, uid: Option<u32>) -> Result<Permit, Refused> {
        self.admit_at(uid, self.begun.elapsed())
    }

    /// `None`: the flow may begin. Else in how long it may be asked again.
    pub(crate) fn turn(&self) -> Option<Duration> {
        self.turn_at(self.begun.elapsed())
    }

    /// Whether it has to be said that the rate of all is reached: once.
    pub(crate) fn is_rate_news(&self) -> bool {
        !self.said_rate.swap(true, Ordering::Relaxed)
    }

    /// Connections that were over a limit of their user's.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn admit_at(self: &Arc<Self>, uid: Option<u32>, now: Duration) -> Result<Permit, Refused> {
        if !self.asks_for_user() {
            return Ok(Permit(None));
        }
        match self.users().admit(uid, now) {
            Ok(key) => Ok(Permit(Some((Arc::clone(self), key)))),
            Err(refused) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(refused)
            }
        }
    }

    fn turn_at(&self, now: Duration) -> Option<Duration> {
        let rate = self.rate.as_ref()?;
        if rate.take(now) { None } else { Some(rate.next(now).max(Duration::from_millis(1))) }
    }

    fn users(&self) -> std::sync::MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((gate, key)) = self.0.take() {
            gate.users().leave(key);
        }
    }
}

#[cfg(test)]
mod tests;
