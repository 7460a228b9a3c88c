//! From the process that runs to the next one, and no connection is lost: listeners are passed on, with the connections
//! that wait in them.
//!
//! ```text
//! the next one                     the running one (offer.rs)
//!   connect, Ask ─────────────────►  is it the same user's, or root's?
//!            ◄──── Listeners, More   all of its listeners, as descriptors
//!   binds what is missing            accepts, as before
//!   accepts
//!   its socket is at the path
//!   Serving ──────────────────────►  accepts no more, drains as after SIGTERM
//!            ◄──────────── Draining
//! ```
//!
//! Where the next one ends before it says that it serves, nothing has happened.

mod channel;
mod message;
mod offer;
mod wanted;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carnet_control::Listener;
use tokio::sync::oneshot;

use self::channel::{Channel, Door};
use self::message::Message;
pub use self::offer::Offer;
pub use self::wanted::{Sorted, sort};
use super::told::Told;

/// The next process's side, until it serves. Dropped before, the running one goes on.
#[derive(Debug)]
pub struct HandOver {
    path: PathBuf,
    /// Where the door is until this process serves.
    made: PathBuf,
    door: Option<Door>,
    before: Option<Before>,
}

/// The process that runs.
#[derive(Debug)]
struct Before {
    pid: i32,
    channel: Channel,
}

impl HandOver {
    /// Asks the process that is to be found at the path, where there is one, for its listeners.
    pub fn begin(path: &Path) -> Result<(Self, Vec<Listener>)> {
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                bail!("{}: there is something else than a socket; give --hand-over another path", path.display())
            }
            _ => {}
        }
        let (before, listeners) = match ask_until_answered(path)? {
            Some((before, listeners)) => (Some(before), listeners),
            None => (None, Vec::new()),
        };
        let mut made = path.as_os_str().to_owned();
        made.push(format!(".{}", process::id()));
        let made = PathBuf::from(made);
        let door = Door::at(&made).with_context(|| format!("cannot make a socket at {}", made.display()))?;
        Ok((Self { path: path.to_owned(), made, door: Some(door), before }, listeners))
    }

    /// The process whose listeners these are.
    pub fn before(&self) -> Option<i32> {
        self.before.as_ref().map(|before| before.pid)
    }

    /// This process serves: it is the one to ask from now on, and the one before is told. What could not be done is told,
    /// and is no reason to end.
    pub fn complete(mut self, offer: &Offer, told: &Told, taken: oneshot::Sender<i32>) {
        if let Some(door) = self.door.take()
            && let Err(error) = offer.begin(door, &self.made, &self.path, told.clone(), taken)
        {
            told.warn(&format!("no process can take over from this one: {}: {error}", self.path.display()));
        }
        if let Some(Before { pid, channel }) = self.before.take() {
            let answer = channel.send(Message::Serving, &[]).and_then(|()| channel.receive());
            if !matches!(answer, Ok((Message::Draining, _))) {
                told.warn(&format!("process {pid} does not say that it stops accepting; end it with SIGTERM"));
            }
        }
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        // Once it is in its place, nothing is here any more.
        let _ = fs::remove_file(&self.made);
    }
}

/// `None`: nobody runs, or who does is about to end and has nothing any more.
fn ask_until_answered(path: &Path) -> Result<Option<(Before, Vec<Listener>)>> {
    for _ in 0..TRIES {
        let channel = match Channel::connect(path) {
            Ok(channel) => channel,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {}", path.display())),
        };
        let pid = channel.peer().with_context(|| format!("{}: who listens there is not trusted", path.display()))?;
        match ask(&channel) {
            Ok(listeners) if listeners.is_empty() => return Ok(None),
            Ok(listeners) => return Ok(Some((Before { pid, channel }, listeners))),
            // It has handed over to somebody else meanwhile, who is to be found at the same path.
            Err(error) if has_gone(&error) => thread::sleep(PAUSE),
            Err(error) => {
                return Err(error).with_context(|| format!("process {pid}, at {}, does not hand over", path.display()));
            }
        }
    }
    bail!("{}: each process that was asked for its listeners ended; start this one again", path.display())
}

fn ask(channel: &Channel) -> Result<Vec<Listener>> {
    channel.send(Message::Ask, &[])?;
    let (answer, mut descriptors) = channel.receive()?;
    let Message::Listeners(count) = answer else { bail!("it answers {answer:?}") };
    while descriptors.len() < usize::from(count) {
        match channel.receive()? {
            (Message::More, along) if !along.is_empty() => descriptors.extend(along),
            (message, _) => bail!("{} of {count} listeners have come, and then {message:?}", descriptors.len()),
        }
    }
    let listener = |descriptor| Listener::try_from(descriptor).context("it passes what is no listener");
    descriptors.into_iter().map(listener).collect()
}

fn has_gone(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind.is_some_and(|kind| matches!(kind, BrokenPipe | ConnectionReset | UnexpectedEof))
}

/// Where each of these is wanted.
pub fn sort_listeners(taken: Vec<Listener>, wanted: &[SocketAddr]) -> Sorted<Listener> {
    sort(taken, wanted, Listener::address)
}

const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
