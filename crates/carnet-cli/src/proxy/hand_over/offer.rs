//! The running process's side: it waits for the next one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;

use super::channel::{Channel, Door, MOST_ALONG};
use super::message::Message;
use crate::proxy::told::Told;

/// What the next process gets, for as long as this one is not about to end.
#[derive(Clone, Debug)]
pub struct Offer(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// `None`: nothing any more.
    listeners: Option<Vec<OwnedFd>>,
    /// Where the door is, and which file that is.
    placed: Option<(PathBuf, (u64, u64))>,
}

impl Offer {
    /// Duplicates of the listeners.
    pub fn of(listeners: Vec<OwnedFd>) -> Self {
        Self(Arc::new(Mutex::new(State { listeners: Some(listeners), placed: None })))
    }

    /// Puts the door, which is at `made`, where the next process looks for it, in the place of whatever is there, and
    /// waits there. `taken` is told the process that has taken over.
    pub fn begin(
        &self,
        door: Door,
        made: &Path,
        path: &Path,
        told: Told,
        taken: oneshot::Sender<i32>,
    ) -> io::Result<()> {
        let there = identity(made)?;
        fs::rename(made, path)?;
        self.state().placed = Some((path.to_owned(), there));
        let offer = self.clone();
        thread::Builder::new().name("hand-over".into()).spawn(move || offer.serve(&door, &told, taken))?;
        Ok(())
    }

    /// There is nothing to be had any more: this process ends.
    pub fn withdraw(&self) {
        let State { listeners, placed } = &mut *self.state();
        *listeners = None;
        if let Some((path, there)) = placed.take()
            && identity(&path).is_ok_and(|now| now == there)
        {
            let _ = fs::remove_file(path);
        }
    }

    fn serve(&self, door: &Door, told: &Told, taken: oneshot::Sender<i32>) {
        loop {
            let Ok(channel) = door.accept() else {
                thread::sleep(PAUSE); // no file for it, most likely
                continue;
            };
            match self.hand_over(&channel) {
                Ok(Some(next)) => {
                    // It is the next process's matter from now on, and its socket is at the path.
                    *self.state() = State { listeners: None, placed: None };
                    let _ = taken.send(next);
                    let _ = channel.send(Message::Draining, &[]);
                    return;
                }
                Ok(None) => {}
                Err(error) => told.warn(&format!("nothing is handed over, and this process goes on: {error:#}")),
            }
        }
    }

    /// To one that asks. `None`: it has been told that there is nothing.
    fn hand_over(&self, channel: &Channel) -> Result<Option<i32>> {
        let next = channel.peer().context("the next process")?;
        let asked = channel.receive().with_context(|| format!("process {next} asked for nothing"))?;
        if !matches!(asked, (Message::Ask, along) if along.is_empty()) {
            bail!("process {next} asked for something else");
        }
        let state = self.state();
        let Some(listeners) = &state.listeners else {
            drop(state);
            channel.send(Message::Listeners(0), &[])?;
            return Ok(None);
        };
        let all = listeners.iter().map(AsFd::as_fd).collect::<Vec<_>>();
        let mut message = Message::Listeners(all.len().try_into().context("there are too many listeners")?);
        for along in all.chunks(MOST_ALONG) {
            channel.send(message, along).with_context(|| format!("process {next} cannot be told"))?;
            message = Message::More;
        }
        drop(state);
        match channel.receive() {
            Ok((Message::Serving, along)) if along.is_empty() => Ok(Some(next)),
            Ok(_) => bail!("process {next} said something else than that it serves"),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bail!("process {next} ended before it served")
            }
            Err(error) => Err(error).with_context(|| format!("process {next} did not say that it serves")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()))
}

const PAUSE: Duration = Duration::from_millis(100);
