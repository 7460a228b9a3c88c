//! What passed, as a file for Wireshark: TCP streams in pcapng, with the flow's name, process and services.
//!
//! The relay sees bytes and no packets, so packets are made up for them: between the application's own address and the
//! destination it asked for, with the handshake, sequence numbers, acknowledgements, checksums and ends that a kernel
//! could have sent. What enters are calls from the relay's observers, and none of them waits: a thread writes the file,
//! and what the queue in front of it has no room for is missing in the file, as a gap in the stream.
//!
//! ```no_run
//! # use carnet_proxy::{relay_after, tap::{FlowInfo, Options, Tap}};
//! # async fn example(info: FlowInfo<'_>, client: tokio::net::TcpStream, server: tokio::net::TcpStream)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let tap = Tap::create("flows.pcapng".as_ref(), Options::default(), |stopped| eprintln!("{stopped}"))?;
//! let flow = tap.flow(&info);
//! let from_client = |bytes: &[u8]| if bytes.is_empty() { flow.client_closed() } else { flow.client_sent(bytes) };
//! let from_server = |bytes: &[u8]| if bytes.is_empty() { flow.server_closed() } else { flow.server_sent(bytes) };
//! if let carnet_proxy::End::Reset { by, .. } = relay_after(Vec::new(), client, server, from_client, from_server).await.end {
//!     flow.reset(by);
//! }
//! # Ok(())
//! # }
//! ```

mod file;
mod flow;
mod packet;
mod pcapng;
mod queue;
mod writer;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

pub use self::flow::{FlowInfo, TapFlow};
use self::{
    queue::{Message, Queue},
    writer::Writer,
};

/// A file that streams are written to.
///
/// It can be read while it grows. When this is dropped, what is in the queue is written first.
#[derive(Debug)]
pub struct Tap {
    queue: Arc<Queue>,
    flows: AtomicU32,
    writer: Option<JoinHandle<()>>,
}

/// What can be chosen of a tap.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether a file that is there already is replaced. Else that is an error.
    pub replace: bool,
    /// How large the file may become, in bytes; then it ends, and the flows go on. `None`: as large as it wants.
    pub file_bytes: Option<u64>,
    /// How much memory may wait to be written, in bytes. The writer takes half a megabyte besides.
    pub queue_bytes: usize,
}

/// What a tap has seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counts {
    /// Packets, those that were lost included.
    pub packets: u64,
    /// Packets that are not in the file.
    pub lost: u64,
}

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is a file of this name.
    #[error("{path} is there already; name another file, or say that it may be replaced")]
    Exists {
        /// Its path.
        path: PathBuf,
    },
    /// There is something of this name that is no regular file, and so is not replaced.
    #[error("{path} is no regular file, so it is not replaced; name another file")]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// The file cannot be created.
    #[error("cannot create {path}; give a file in a folder that this user may write to")]
    Create {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not even the beginning of the file can be written.
    #[error("cannot write to the tap's file; give one on a disk that has room")]
    Write {
        /// The cause.
        source: io::Error,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start the thread that writes the tap's file; see the limits on threads")]
    Thread {
        /// The cause.
        source: io::Error,
    },
}

/// Why a tap's file ended before the tap did. The flows go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// It cannot be written to any more: the disk is full, say.
    #[error("the tap has ended: its file cannot be written to any more; what is in it so far is whole")]
    Write {
        /// The cause.
        source: io::Error,
    },
    /// It is as large as it may become.
    #[error("the tap has ended: its file would become larger than {bytes} bytes")]
    Limit {
        /// How large it may become.
        bytes: u64,
    },
}

impl Tap {
    /// Creates the file, with mode 0600: what is in it was perhaps not meant for others. Follows no symbolic link.
    ///
    /// `told` is called at most once, on another thread, where the file ends before the tap does.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn create(path: &Path, options: Options, told: impl FnOnce(Stopped) + Send + 'static) -> Result<Self, Error> {
        Self::from_file(file::create(path, options.replace)?, options, told)
    }

    /// Writes to a file which the caller has opened, and which is empty, or to a pipe. Who may read it is the caller's
    /// care.
    ///
    /// # Errors
    ///
    /// [`Error::Write`], [`Error::Thread`].
    pub fn from_file(file: File, options: Options, told: impl FnOnce(Stopped) + Send + 'static) -> Result<Self, Error> {
        let (queue, messages) = Queue::new(options.queue_bytes);
        let queue = Arc::new(queue);
        let writer = Writer::new(file, Arc::clone(&queue), options.file_bytes, told)
            .map_err(|source| Error::Write { source })?;
        let thread = thread::Builder::new().name("carnet-tap".into()).spawn(move || writer.run(&messages));
        let writer = Some(thread.map_err(|source| Error::Thread { source })?);
        Ok(Self { queue, flows: AtomicU32::new(1), writer })
    }

    /// A flow that begins now: both sides are connected.
    pub fn flow(&self, info: &FlowInfo<'_>) -> TapFlow {
        TapFlow::new(Arc::clone(&self.queue), info, self.flows.fetch_add(1, Ordering::Relaxed))
    }

    /// How much there was so far. What is not yet written may still be lost.
    pub fn counts(&self) -> Counts {
        let (packets, lost) = self.queue.counts();
        Counts { packets, lost }
    }

    /// Waits until everything so far is in the file. The file is written without it; tests want to know.
    pub fn flush(&self) {
        let (done, wait) = mpsc::channel();
        self.queue.send(Message::Flush(done));
        let _ = wait.recv(); // an error says that the writer has ended, and so has written everything
    }

    /// Writes what is in the queue, and ends the file. Flows that go on get no further into it.
    pub fn close(mut self) -> Counts {
        self.end();
        self.counts()
    }

    fn end(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.queue.send(Message::Close);
            let _ = writer.join(); // a panic of `told` is the caller's, and has been printed
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.end();
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { replace: false, file_bytes: None, queue_bytes: 16 << 20 }
    }
}
