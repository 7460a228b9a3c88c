//! The memory that all bodies share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A part of it, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<Budget>,
    bytes: usize,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share { all: Arc::clone(self), bytes: 0 }
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.left.load(Relaxed)
    }
}

impl Share {
    /// From now on it is this large. `false`: there is not so much left, and it is as large as before.
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            self.all.left.fetch_add(self.bytes - bytes, Relaxed);
            self.bytes = bytes;
            return true;
        }
        let more = bytes - self.bytes;
        let taken = self.all.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(more)).is_ok();
        if taken {
            self.bytes = bytes;
        }
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
    }
}
