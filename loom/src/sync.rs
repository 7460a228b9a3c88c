//! What the file under test is made of: loom's.

use std::sync::{LockResult, PoisonError};

pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};

pub(super) fn ignore_poison<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}
