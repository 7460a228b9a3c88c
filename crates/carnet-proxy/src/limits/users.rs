//! What each user has open, and how fast their flows come.

use std::{collections::HashMap, time::Duration};

use super::{Key, Limit, Limits, Refused};
use crate::rules::TokenBucket;

/// Those of whom something has to be known: they have flows, or had them lately.
#[derive(Debug)]
pub(super) struct Users {
    limits: Limits,
    all: HashMap<Key, User>,
    /// With so many it is looked who can be forgotten.
    crowd: usize,
    /// When that was last done.
    looked: Duration,
}

#[derive(Debug)]
struct User {
    flows: u32,
    rate: Option<TokenBucket>,
    /// Refused since that was last said.
    unsaid: u64,
    say_next: Duration,
}

impl Users {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, all: HashMap::new(), crowd: FIRST_CROWD, looked: Duration::ZERO }
    }

    pub(super) fn admit(&mut self, uid: Option<u32>, now: Duration) -> Result<Key, Refused> {
        let key = self.key(uid, now);
        let limits = self.limits;
        let user = self.all.entry(key).or_insert_with(|| User {
            flows: 0,
            rate: limits.rate_per_user.map(TokenBucket::new),
            unsaid: 0,
            say_next: Duration::ZERO,
        });
        if limits.flows_per_user.is_some_and(|most| user.flows >= most) {
            return Err(user.refuse(Limit::FlowsPerUser, now));
        }
        if user.rate.as_ref().is_some_and(|rate| !rate.take(now)) {
            return Err(user.refuse(Limit::RatePerUser, now));
        }
        user.flows = user.flows.saturating_add(1);
        Ok(key)
    }

    pub(super) fn leave(&mut self, key: Key) {
        if let Some(user) = self.all.get_mut(&key) {
            user.flows = user.flows.saturating_sub(1);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Makes room where that is needed.
    fn key(&mut self, uid: Option<u32>, now: Duration) -> Key {
        if self.all.contains_key(&uid) || self.all.len() < self.crowd {
            return uid;
        }
        // Looking at all is paid for by those that have come since, or is seldom.
        if self.crowd == MOST_USERS && now.saturating_sub(self.looked) < LOOKS_APART {
            return None;
        }
        self.looked = now;
        self.all.retain(|_, user| !user.can_be_forgotten(now));
        self.crowd = (self.all.len() * 2).clamp(FIRST_CROWD, MOST_USERS);
        // Strangers beyond share one place, so that nobody gets more by having many uids.
        if self.all.len() < self.crowd { uid } else { None }
    }
}

impl User {
    fn refuse(&mut self, limit: Limit, now: Duration) -> Refused {
        self.unsaid += 1;
        let say = (now >= self.say_next).then(|| std::mem::take(&mut self.unsaid));
        if say.is_some() {
            self.say_next = now + SILENCE;
        }
        Refused { limit, say }
    }

    /// A new entry would know as much.
    fn can_be_forgotten(&self, now: Duration) -> bool {
        self.flows == 0 && now >= self.say_next && self.rate.as_ref().is_none_or(|rate| rate.is_full(now))
    }
}

/// Most users that are told apart at a time: some 6 MiB.
pub(super) const MOST_USERS: usize = 65_536;

const FIRST_CROWD: usize = 256;

/// Between two looks at as many users as there may be.
const LOOKS_APART: Duration = Duration::from_secs(1);

/// For how long after a word about a user there is no other one.
const SILENCE: Duration = Duration::from_secs(10);
