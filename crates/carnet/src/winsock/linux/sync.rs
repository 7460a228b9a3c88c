//! What `pending.rs` is made of. `loom/` has a file of this name with loom's own.

use std::sync::{LockResult, PoisonError};

pub(super) use std::sync::{Condvar, Mutex, MutexGuard};

/// Nothing panics while it holds a lock of this module, and a completion routine runs under none.
pub(super) fn ignore_poison<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}
