use std::{io, path::PathBuf, time::Duration};

use crate::Problem;

/// Why there is no answer, or no good one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon listens on {}: start carnet serve, or say where it listens", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The socket cannot be reached by this user.
    #[error("the control socket {} cannot be opened: ask as root, or have its folder's mode changed", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The daemon accepts no connection.
    #[error("the daemon at {} accepts no connections: it may be stopped, or have too many", path.display())]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon says no, and why.
    #[error(transparent)]
    Refused(Box<Problem>),
    /// It does not begin to answer.
    #[error("the daemon at {} does not answer within {} s: it may be stopped", path.display(), waited.as_secs_f32())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long.
        waited: Duration,
    },
    /// The connection broke.
    #[error("the connection to the daemon at {} broke: see whether it still runs", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is none of this API: another version, or another program.
    #[error("what answers at {} is no daemon of this version", path.display())]
    Strange {
        /// The socket.
        path: PathBuf,
        /// The cause, where the answer could not be read.
        source: Option<serde_json::Error>,
    },
}

impl ClientError {
    /// What the daemon said, where it is the daemon that says no.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}
