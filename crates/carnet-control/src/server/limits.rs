use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Resource, getrlimit};

use crate::{Problem, ProblemKind, access::ROOT};

/// What callers may take up.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all. The last [`Limits::reserved`] of them are root's.
    pub connections: usize,
    /// Connections of one uid that is not root. Closing what came by one may take a thread for itself, so this should
    /// stay well below the runtime's `max_blocking_threads`.
    pub connections_per_uid: usize,
    /// Connections that only root can have, so that it gets in where others have taken the rest.
    pub reserved: usize,
    /// How long the head of a request may take; also how long a connection may be idle.
    pub head_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long the other side may take no byte of an answer. Streams and sessions have no such limit.
    pub write_timeout: Duration,
    /// How long an answer may take to be read before its connection is closed.
    pub linger: Duration,
    /// Bytes that are read, and thrown away, meanwhile.
    pub linger_bytes: u64,
    /// How long answers may still take when the server ends.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_uid: 128,
            reserved: 32,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            linger: Duration::from_secs(2),
            linger_bytes: 2 * POLICY_BODY as u64,
            drain: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// With no more connections than half of the descriptors that the process may have: the rest is for what comes by
    /// them, and for the backend.
    pub(super) fn within_descriptors(self) -> Self {
        let Some(descriptors) = getrlimit(Resource::Nofile).current else { return self };
        self.within(usize::try_from(descriptors).unwrap_or(usize::MAX) / 2)
    }

    fn within(self, connections: usize) -> Self {
        if connections >= self.connections {
            return self;
        }
        Self { connections, reserved: self.reserved.min(connections / 4), ..self }
    }

    /// Connections beyond the limits that are told so at one time.
    pub(super) fn refusals(&self) -> usize {
        (self.connections / 8).clamp(16, 64)
    }

    pub(super) fn too_many(&self) -> Problem {
        Problem::new(
            ProblemKind::Unavailable,
            format!(
                "too many connections: one user has {} at most, and all together have {}; close some",
                self.connections_per_uid, self.connections
            ),
        )
    }
}

/// Counts connections.
#[derive(Debug)]
pub(super) struct Seats {
    connections: usize,
    connections_per_uid: usize,
    reserved: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_uid: HashMap<u32, usize>,
}

/// One connection's. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Seat {
    uid: u32,
    taken: Arc<Mutex<Taken>>,
}

impl Seats {
    pub(super) fn new(limits: &Limits) -> Self {
        let &Limits { connections, connections_per_uid, reserved, .. } = limits;
        Self { connections, connections_per_uid, reserved, taken: Arc::default() }
    }

    pub(super) fn take(&self, uid: u32) -> Option<Seat> {
        let mut taken = lock(&self.taken);
        let of_uid = taken.by_uid.get(&uid).copied().unwrap_or_default();
        let (most, most_of_uid) = match uid {
            ROOT => (self.connections, usize::MAX),
            _ => (self.connections.saturating_sub(self.reserved), self.connections_per_uid),
        };
        if taken.total >= most || of_uid >= most_of_uid {
            return None;
        }
        taken.total += 1;
        taken.by_uid.insert(uid, of_uid + 1);
        Some(Seat { uid, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.total -= 1;
        if let Some(of_uid) = taken.by_uid.get_mut(&self.uid) {
            *of_uid -= 1;
            if *of_uid == 0 {
                taken.by_uid.remove(&self.uid);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a policy: a million prefixes, one a line, are 20 MiB.
pub(crate) const POLICY_BODY: usize = 64 << 20;
/// Bytes of any other body.
pub(crate) const BODY: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::{Limits, Seats};

    #[test]
    fn few_descriptors_are_few_connections() {
        let usual = Limits::default();
        let few = usual.clone().within(40);
        assert_eq!((few.connections, few.reserved), (40, 10));
        let many = usual.clone().within(1 << 20);
        assert_eq!((many.connections, many.reserved), (usual.connections, usual.reserved));
    }

    #[test]
    fn a_user_has_a_share_and_root_has_what_is_reserved() {
        let limits = Limits { connections: 6, connections_per_uid: 3, reserved: 2, ..Limits::default() };
        let seats = Seats::new(&limits);
        let mine: Vec<_> = (0..3).map(|_| seats.take(1000).unwrap()).collect();
        assert!(seats.take(1000).is_none(), "the share of a user");
        let other = seats.take(1001).unwrap();
        assert!(seats.take(1001).is_none(), "what is left is root's");
        let roots: Vec<_> = (0..2).map(|_| seats.take(0).unwrap()).collect();
        assert!(seats.take(0).is_none(), "all are taken");

        drop((mine, other, roots));
        assert_eq!(super::lock(&seats.taken).total, 0);
        assert!(super::lock(&seats.taken).by_uid.is_empty());
        assert!(seats.take(1001).is_some());
    }
}
