//! The way to the daemon, and what is said where there is none.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use carnet_control::{Client, ClientError, Problem, ProblemKind};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::control::Daemon;
use crate::run::complain;

/// Asks one daemon.
#[derive(Debug)]
pub struct Asking {
    runtime: Runtime,
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// What the client found.
    Client(ClientError),
    /// The daemon's process is stopped, as by SIGSTOP.
    Stopped {
        /// That process.
        pid: i32,
    },
}

impl Asking {
    /// Of the daemon that is meant.
    pub fn of(daemon: &Daemon) -> Result<Self> {
        Self::at(daemon.socket.clone())
    }

    /// Of the one at this socket.
    pub fn at(socket: PathBuf) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot ask the daemon")?;
        Ok(Self { runtime, socket })
    }

    /// Where it asks.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks, and waits for the beginning of the answer for as long as [`PATIENCE`].
    pub fn ask<T, F>(&self, question: impl FnOnce(Client) -> F) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.ask_for(PATIENCE, question)
    }

    /// The same with another patience. A daemon that is stopped is not waited for, however patient one is.
    pub fn ask_for<T, F>(&self, patience: Duration, question: impl FnOnce(Client) -> F) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        // What is in the queue of a daemon that is stopped would be carried out when it goes on, long after this has said
        // that it was not.
        if self.is_stopped() {
            return Err(self.stopped());
        }
        self.runtime.block_on(async {
            let asked = async {
                let client = Client::connect(&self.socket).await?.with_patience(patience);
                question(client).await
            };
            let mut asked = pin!(asked);
            loop {
                let answer = timeout(GLANCE, &mut asked).await;
                match answer {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(ClientError::Busy { .. } | ClientError::Silent { .. })) | Err(_) if self.is_stopped() => {
                        return Err(self.stopped());
                    }
                    Ok(Err(error)) => return Err(Unanswered::Client(error)),
                    Err(_) => {}
                }
            }
        })
    }

    /// Waits for what comes next in an answer that comes in pieces.
    pub fn wait<F: Future>(&self, next: F) -> F::Output {
        self.runtime.block_on(next)
    }

    /// The process that listens, where it can be seen.
    pub fn listener(&self) -> Option<i32> {
        listener(&self.socket)
    }

    fn is_stopped(&self) -> bool {
        self.listener().is_some_and(is_stopped)
    }

    fn stopped(&self) -> Unanswered {
        Unanswered::Stopped { pid: self.listener().unwrap_or_default() }
    }
}

impl Unanswered {
    /// What is said, and the exit code: an answer where the daemon has said no, else an error.
    pub fn tell(self) -> Result<ExitCode> {
        match self.no() {
            Ok(problem) => {
                complain(&problem.to_string());
                Ok(ExitCode::FAILURE)
            }
            Err(this) => Err(this.into_error()),
        }
    }

    /// What the daemon has said no with.
    pub fn no(self) -> Result<Box<Problem>, Self> {
        use ProblemKind as Kind;
        match self {
            Self::Client(ClientError::Refused(problem))
                if matches!(
                    problem.kind,
                    Kind::Mistakes | Kind::Conflict | Kind::NotFound | Kind::Precondition | Kind::TooLarge
                ) =>
            {
                Ok(problem)
            }
            other => Err(other),
        }
    }

    /// What to do, in words.
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Self::Stopped { pid } => anyhow::Error::msg(format!(
                "the daemon, process {pid}, is stopped and answers nothing. What is in force stays in force. `kill -CONT {pid}` \
                 has it go on"
            )),
            Self::Client(ClientError::NoDaemon { path, .. }) => anyhow::Error::msg(format!(
                "no daemon listens at {}. Start one with `carnet serve`, or say where it listens: --socket PATH",
                path.display()
            )),
            Self::Client(ClientError::Denied { path, .. }) => anyhow::Error::msg(format!(
                "this user may not open {}: ask as root, or as a user whom the policy's [control] names",
                path.display()
            )),
            Self::Client(ClientError::Refused(problem)) => anyhow::Error::msg(problem.to_string()),
            Self::Client(error) => error.into(),
        }
    }
}

/// The process that listens at a socket: who connects is told by the kernel.
fn listener(path: &Path) -> Option<i32> {
    let address = SocketAddrUnix::new(path).ok()?;
    // Where the queue of a process that stands still is full, this is not to wait.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &address).ok()?;
    Some(sockopt::socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get())
}

/// Whether a signal or a debugger has stopped a process.
pub fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may have anything in it, parentheses too.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    matches!(state, Some("T" | "t"))
}

/// How long an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether the daemon can answer at all.
const GLANCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_process_that_runs_is_not_stopped() {
        assert!(!is_stopped(std::process::id().cast_signed()));
        assert!(!is_stopped(i32::MAX), "there is no such process");
    }

    #[test]
    fn who_listens_is_known() {
        let folder = std::env::temp_dir().join(format!("carnet-asking-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let found = UnixListener::bind(&path).map(|_listening| listener(&path));
        assert_eq!((found.unwrap(), listener(&path)), (Some(std::process::id().cast_signed()), None));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn no_is_an_answer_and_a_daemon_that_cannot_be_asked_is_an_error() {
        let refused = |kind| Unanswered::Client(ClientError::Refused(Problem::new(kind, "x").into()));
        for kind in [ProblemKind::Mistakes, ProblemKind::Conflict, ProblemKind::NotFound, ProblemKind::TooLarge] {
            assert_eq!(refused(kind).no().unwrap().kind, kind);
        }
        for kind in [ProblemKind::Forbidden, ProblemKind::Failed, ProblemKind::Unavailable, ProblemKind::Malformed] {
            assert_eq!(refused(kind).no().unwrap_err().into_error().to_string(), "x");
        }
    }

    #[test]
    fn what_to_do_is_said() {
        let path = PathBuf::from("/run/x");
        let source = || std::io::Error::from(std::io::ErrorKind::NotFound);
        for (unanswered, words) in [
            (Unanswered::Client(ClientError::NoDaemon { path: path.clone(), source: source() }), "`carnet serve`"),
            (Unanswered::Client(ClientError::Denied { path, source: source() }), "ask as root"),
            (Unanswered::Stopped { pid: 7 }, "`kill -CONT 7`"),
        ] {
            let error = unanswered.into_error();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.chain().count(), 1, "the errno says nothing more");
        }
    }
}
