use std::{io, time::Duration};

use ::tokio::io::unix::AsyncFd;

use crate::{
    sys,
    winsock::{Completion, CompletionQueue},
};

/// A [`CompletionQueue`] whose ends are awaited. Linux only: on Windows tokio keeps its completion port to itself.
#[derive(Debug)]
pub struct Completions {
    queue: AsyncFd<CompletionQueue>,
}

impl Completions {
    /// Takes the queue over.
    ///
    /// # Errors
    ///
    /// The runtime's, where it cannot watch another descriptor.
    ///
    /// # Panics
    ///
    /// As tokio's sockets: outside of a runtime with I/O enabled.
    pub fn new(queue: CompletionQueue) -> io::Result<Self> {
        Ok(Self { queue: sys::watch(queue)? })
    }

    /// The queue, to attach sockets.
    pub fn queue(&self) -> &CompletionQueue {
        self.queue.get_ref()
    }

    /// The oldest end. Dropping the future loses none.
    ///
    /// # Errors
    ///
    /// The system's, for lack of memory.
    pub async fn next(&self) -> io::Result<Completion> {
        loop {
            let mut ready = self.queue.readable().await?;
            match ready.get_inner().next(Some(Duration::ZERO))? {
                Some(completion) => return Ok(completion),
                None => ready.clear_ready(),
            }
        }
    }
}
