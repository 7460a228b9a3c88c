//! What was said in opened flows, as a HAR file (HTTP Archive 1.2).
//!
//! ```text
//! exchange ──► Exchange: head, bodies up to a limit ──► queue ──► a thread of its own ──► the file, whole after each entry
//! ```
//!
//! Nobody waits for the file. What there is no room for, in memory or in the queue, is left out and counted. The file has
//! passwords and cookies as they are, so only its owner can read it.

mod entry;
mod exchange;
mod file;
mod words;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

pub(crate) use self::exchange::{Exchange, Recording};
use self::{entry::Entry, file::File};

/// A file that is being written. Dropping it writes what waits, and ends it.
pub struct Har {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What can be chosen.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Most bytes of a body that are kept.
    pub most_of_body: usize,
    /// Most bytes of all heads and bodies that wait, be it for their end or for the file.
    pub most_waiting: usize,
}

/// Why there is no such file, or no more of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be made.
    #[error("cannot make {}; name a file that is not there, in a folder that can be written to", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Some exchanges are not in it.
    #[error("{} has no room for {exchanges} exchanges that came faster than it could be written", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// How many.
        exchanges: u64,
    },
    /// It cannot be written to. What was written before is whole.
    #[error("cannot write to {}, and goes on without it", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What all exchanges share.
struct Shared {
    options: Options,
    queue: SyncSender<Message>,
    /// Bytes of heads and bodies that are in memory.
    waiting: AtomicUsize,
    lost: AtomicU64,
}

enum Message {
    Entry { entry: Box<Entry>, bytes: usize },
    End,
}

impl Har {
    /// Makes the file, with mode 0600; it must not be there. `trouble` is told once, if it cannot be
    /// written to later, and at its end, if something is not in it.
    ///
    /// # Errors
    ///
    /// [`Error::Create`].
    pub fn create(path: &Path, options: Options, trouble: impl Fn(Error) + Send + 'static) -> Result<Self, Error> {
        let file = File::create(path).map_err(|source| Error::Create { path: path.to_owned(), source })?;
        Self::writing(path, file, options, trouble)
    }

    fn writing(
        path: &Path,
        mut file: File,
        options: Options,
        trouble: impl Fn(Error) + Send + 'static,
    ) -> Result<Self, Error> {
        let wrong = |source| Error::Create { path: path.to_owned(), source };
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared { options, queue, waiting: AtomicUsize::new(0), lost: AtomicU64::new(0) });
        let (path, of_writer) = (path.to_owned(), Arc::clone(&shared));
        let write = move || {
            let mut works = true;
            while let Ok(Message::Entry { entry, bytes }) = messages.recv() {
                let written = if works { file.append(&entry) } else { Ok(()) };
                drop(entry);
                of_writer.give_back(bytes);
                if let Err(source) = written {
                    works = false;
                    trouble(Error::Write { path: path.clone(), source });
                }
            }
            let exchanges = of_writer.lost.load(Ordering::Relaxed);
            if exchanges > 0 {
                trouble(Error::Lost { path, exchanges });
            }
        };
        let writer = thread::Builder::new().name("har".into()).spawn(write).map_err(wrong)?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Exchanges that are not in the file, because they came faster than it could be written.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Har {
    fn drop(&mut self) {
        // Exchanges that are still open have nobody to write them from here on.
        let _ = self.shared.queue.send(Message::End);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn write(&self, entry: Entry, bytes: usize) {
        if self.queue.try_send(Message::Entry { entry: Box::new(entry), bytes }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.give_back(bytes);
        }
    }

    fn give_back(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Room for some of these bytes, perhaps none.
    fn room_for(&self, wanted: usize) -> usize {
        let most = self.options.most_waiting;
        let mut taken = 0;
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            taken = wanted.min(most.saturating_sub(waiting));
            Some(waiting + taken)
        });
        taken
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { most_of_body: 1 << 20, most_waiting: 64 << 20 }
    }
}

impl fmt::Debug for Har {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Har").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

/// Exchanges that may wait for the file.
const QUEUE: usize = 1024;

#[cfg(test)]
mod tests;
