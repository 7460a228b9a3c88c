//! Completion routines. They run in the thread that began the operation, and only while it waits alertably.

use std::{cell::OnceCell, collections::VecDeque, fmt, io, sync::Arc};

use super::{
    bell::Bell,
    operations,
    sync::{Mutex, ignore_poison},
};

/// What a thread has to call when it waits alertably.
pub(crate) struct Apcs {
    queue: Mutex<VecDeque<Apc>>,
    pub(super) bell: Bell,
}

pub(crate) type Apc = Box<dyn FnOnce() + Send>;

impl Apcs {
    pub(super) fn push(&self, apc: Apc) {
        ignore_poison(self.queue.lock()).push_back(apc);
        self.bell.ring();
    }

    /// Calls all that are queued, oldest first, and those that these queue; whether there were any.
    ///
    /// Belongs to the thread that runs it, and nobody else calls it. A routine may wait alertably itself.
    pub(super) fn run(&self) -> bool {
        self.bell.silence();
        let mut any = false;
        loop {
            // The lock is not held during the call.
            let Some(apc) = ignore_poison(self.queue.lock()).pop_front() else { return any };
            any = true;
            apc();
        }
    }
}

impl fmt::Debug for Apcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apcs").finish_non_exhaustive()
    }
}

/// The calling thread's. A thread that is ending has none any more.
pub(crate) fn current() -> io::Result<Arc<Apcs>> {
    let current = CURRENT.try_with(|current| {
        if let Some(Thread(apcs)) = current.get() {
            return Ok(Arc::clone(apcs));
        }
        let apcs = Arc::new(Apcs { queue: Mutex::new(VecDeque::new()), bell: Bell::new()? });
        // Nobody else can have set it: the cell is this thread's.
        let _set = current.set(Thread(Arc::clone(&apcs)));
        Ok(apcs)
    });
    current.unwrap_or_else(|_ending| Err(io::Error::other("the thread is ending")))
}

thread_local! {
    static CURRENT: OnceCell<Thread> = const { OnceCell::new() };
}

/// Lives as long as its thread.
struct Thread(Arc<Apcs>);

impl Drop for Thread {
    /// A thread that ends takes the operations with it that it began, but not those of sockets that have a port.
    fn drop(&mut self) {
        operations::abort(|operation| !operation.outlives_its_thread && Arc::ptr_eq(&operation.begun_by, &self.0));
    }
}
