//! Clients that connect without end, and services that judge each connection, so that one lost among thousands is seen.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Running;
use crate::sockets::until;

/// Processes that connect as fast as they can: `carnet-e2e-pinned connects DESTINATION`.
pub struct Clients(Vec<Running>);

impl Clients {
    /// Starts them.
    pub fn start(commands: impl IntoIterator<Item = Command>) -> Self {
        Self(commands.into_iter().map(|mut command| Running::start(&mut command)).collect())
    }

    /// Goes on until there have been that many more connections, and fails where one of them failed.
    pub fn more(&mut self, count: u64) {
        let before = self.good();
        until("more connections", || (self.good() >= before + count).then_some(()));
    }

    /// How many there have been. Fails where one of them failed.
    pub fn good(&mut self) -> u64 {
        self.0.iter_mut().map(good).sum()
    }

    /// Ends them. How many connections there were.
    pub fn end(mut self) -> u64 {
        let good = self.good();
        self.0.iter_mut().for_each(Running::kill);
        good
    }
}

fn good(client: &mut Running) -> u64 {
    client.go_on();
    let line = client.line();
    let words: Vec<_> = line.splitn(3, ' ').collect();
    assert_eq!(words[1], "0", "connections failed: {line}");
    words[0].parse().expect("a number")
}

/// A service that accepts, judges, and answers with `y` or `n`.
pub struct Serving {
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    right: AtomicU64,
    /// What was wrong with those that were not.
    wrong: Mutex<BTreeSet<String>>,
    is_over: AtomicBool,
}

impl Serving {
    /// At a listener that does not block. The judge says what is wrong with a connection.
    pub fn at(listener: &TcpListener, judge: impl Fn(&TcpStream) -> Result<(), String> + Send + 'static) -> Self {
        let tally = Arc::new(Tally::default());
        let (listener, shared) = (listener.try_clone().expect("a descriptor"), Arc::clone(&tally));
        let thread = thread::spawn(move || {
            while !shared.is_over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((accepted, _)) => shared.answer(&accepted, judge(&accepted)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let waited = PollFd::new(listener.as_fd(), PollFlags::POLLIN);
                        let _ = poll(&mut [waited], PollTimeout::from(GLANCE));
                    }
                    Err(error) => panic!("accept: {error}"),
                }
            }
        });
        Self { tally, thread: Some(thread) }
    }

    /// How many connections it has had until now.
    pub fn count(&self) -> u64 {
        self.tally.right.load(Ordering::Relaxed)
    }

    /// Fails where anything has been wrong with one. To be called while the clients are there: a connection that goes with
    /// its client loses its record before the service has it.
    pub fn assert_right(&self) {
        let wrong = self.tally.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Ends it. How many connections it has had with which nothing was wrong.
    pub fn end(mut self) -> u64 {
        self.stop();
        self.count()
    }

    fn stop(&mut self) {
        self.tally.is_over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Tally {
    fn answer(&self, mut accepted: &TcpStream, judged: Result<(), String>) {
        let answer = if judged.is_ok() { b"y" } else { b"n" };
        match judged {
            Ok(()) => _ = self.right.fetch_add(1, Ordering::Relaxed),
            Err(wrong) => _ = self.wrong.lock().unwrap_or_else(PoisonError::into_inner).insert(wrong),
        }
        // The client may have been killed.
        let _ = accepted.write_all(answer);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Milliseconds after which it is looked whether the service is to end.
const GLANCE: u8 = 50;
