//! The operations that have begun and not ended.
//!
//! An operation is *taken* by exactly one thread, be it the worker that performs it or somebody who cancels it, and
//! whoever has taken it ends it. Ending it (its result is published and it is not pending any more) is one step for
//! everybody who asks: a caller who sees the result may use its memory for another operation at once.
//!
//! `loom/` walks every interleaving of this file.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use super::sync::{Condvar, Mutex, MutexGuard, ignore_poison};

/// Operations of type `W`, each known by its key: the address of its `OVERLAPPED`.
pub(crate) struct Pending<W> {
    state: Mutex<State<W>>,
    /// There is something in the queue.
    begun: Condvar,
    /// An operation has ended.
    ended: Condvar,
}

struct State<W> {
    operations: BTreeMap<usize, Operation<W>>,
    /// Keys and numbers, oldest first. Those that somebody has cancelled are passed over.
    queue: VecDeque<(usize, u64)>,
    /// Counted up, for a key may be used again.
    next_number: u64,
}

struct Operation<W> {
    number: u64,
    /// `None`: somebody has taken it.
    work: Option<W>,
}

/// An operation that the caller has to perform or abort, and then to [`end`](Pending::end).
pub(crate) struct Taken<W> {
    pub(crate) work: W,
    pub(crate) claim: Claim,
}

/// The right and the duty to end an operation; there is one for each.
#[must_use]
pub(crate) struct Claim {
    key: usize,
    number: u64,
}

impl<W> Pending<W> {
    pub(crate) fn new() -> Self {
        let state = State { operations: BTreeMap::new(), queue: VecDeque::new(), next_number: 0 };
        Self { state: Mutex::new(state), begun: Condvar::new(), ended: Condvar::new() }
    }

    /// Queues `work`, after `announce` has been called. Fails, and calls nothing, while the key's last operation is
    /// pending.
    pub(crate) fn begin<E>(
        &self,
        key: usize,
        work: W,
        announce: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), Refused<E>> {
        let mut state = self.lock();
        if state.operations.contains_key(&key) {
            return Err(Refused::Pending);
        }
        announce().map_err(Refused::Announcement)?;
        let number = state.next_number;
        state.next_number += 1;
        state.operations.insert(key, Operation { number, work: Some(work) });
        state.queue.push_back((key, number));
        drop(state);
        self.begun.notify_one();
        Ok(())
    }

    /// The oldest operation that nobody has taken; waits for one.
    pub(crate) fn next(&self) -> Taken<W> {
        let mut state = self.lock();
        loop {
            while let Some((key, number)) = state.queue.pop_front() {
                if let Some(taken) = state.take(key, number) {
                    return taken;
                }
            }
            state = ignore_poison(self.begun.wait(state));
        }
    }

    /// Takes all that nobody has taken and that `which` names, by key and work.
    pub(crate) fn take(&self, which: impl Fn(usize, &W) -> bool) -> Vec<Taken<W>> {
        let mut state = self.lock();
        let chosen: Vec<(usize, u64)> = state
            .operations
            .iter()
            .filter(|(key, operation)| operation.work.as_ref().is_some_and(|work| which(**key, work)))
            .map(|(key, operation)| (*key, operation.number))
            .collect();
        chosen.into_iter().filter_map(|(key, number)| state.take(key, number)).collect()
    }

    /// Calls `publish`; from then on the operation is not pending.
    pub(crate) fn end<R>(&self, claim: Claim, publish: impl FnOnce() -> R) -> R {
        let mut state = self.lock();
        let rest = publish();
        let ended = state.operations.remove(&claim.key);
        debug_assert!(ended.is_some_and(|operation| operation.number == claim.number && operation.work.is_none()));
        drop(state);
        self.ended.notify_all();
        rest
    }

    /// Drops all that is pending, and tells nobody.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        let forgotten = (mem::take(&mut state.operations), mem::take(&mut state.queue));
        drop(state);
        drop(forgotten);
    }

    /// Waits until the operation that has this key now has ended.
    pub(crate) fn wait(&self, key: usize) {
        let mut state = self.lock();
        let Some(number) = state.number(key) else { return };
        while state.number(key) == Some(number) {
            state = ignore_poison(self.ended.wait(state));
        }
    }

    /// Calls `look` with whether the key's operation is pending; nothing ends meanwhile.
    pub(crate) fn look<R>(&self, key: usize, look: impl FnOnce(bool) -> R) -> R {
        let state = self.lock();
        look(state.number(key).is_some())
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        ignore_poison(self.state.lock())
    }
}

/// Why an operation has not begun.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Refused<E> {
    /// Its key is that of a pending one.
    Pending,
    /// What [`Pending::begin`] was to call has failed.
    Announcement(E),
}

impl<W> State<W> {
    fn number(&self, key: usize) -> Option<u64> {
        self.operations.get(&key).map(|operation| operation.number)
    }

    fn take(&mut self, key: usize, number: u64) -> Option<Taken<W>> {
        let operation = self.operations.get_mut(&key).filter(|operation| operation.number == number)?;
        let work = mem::take(&mut operation.work)?;
        Some(Taken { work, claim: Claim { key, number } })
    }
}
