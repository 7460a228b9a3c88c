//! A completion queue in tokio's reactor.

use std::io;

use tokio::io::{Interest, unix::AsyncFd};

use crate::winsock::CompletionQueue;

/// Told when the queue becomes readable.
pub(crate) fn watch(queue: CompletionQueue) -> io::Result<AsyncFd<CompletionQueue>> {
    // SAFETY: a queue answers with one descriptor, which is open for as long as the queue is there.
    Ok(unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE) }?)
}
