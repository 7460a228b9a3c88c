//! Waits in which completion routines run.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    apc::{self, Apcs},
    bell::{Bell, first_ringing},
    event::Event,
};
use crate::winsock::numbers::WSA_INFINITE;

/// How a wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    /// This event is signalled; of several the first. All of them, where all were waited for.
    Event(usize),
    /// Completion routines have run.
    Routines,
    TimedOut,
}

/// When a time of so many milliseconds is over; `None`: never.
pub(crate) fn end_of(milliseconds: u32) -> Option<Instant> {
    match milliseconds {
        WSA_INFINITE => None,
        // What no clock can tell is never, too.
        _ => Instant::now().checked_add(Duration::from_millis(milliseconds.into())),
    }
}

/// Waits for `events`, of which there may be none. Where the wait is alertable, completion routines end it as well; but
/// not where it need not wait.
pub(crate) fn wait(events: &[Arc<Event>], all: bool, end: Option<Instant>, alertable: bool) -> io::Result<Waited> {
    // A thread that can have no queue, for lack of a descriptor, has no routine in it.
    let apcs = alertable.then(apc::current).and_then(Result::ok);
    let apcs = apcs.as_deref();
    loop {
        if let Some(signalled) = signalled(events, all) {
            return Ok(Waited::Event(signalled));
        }
        if apcs.is_some_and(Apcs::run) {
            return Ok(Waited::Routines);
        }
        let waited_for = match all {
            false => events,
            // Of all only one that is not signalled: those that are would end each wait at once.
            true => match events.iter().position(|event| !event.is_set()) {
                Some(one) => &events[one..=one],
                // The last of all was signalled just now.
                None => continue,
            },
        };
        let bells: Vec<&Bell> = waited_for.iter().map(|event| &event.bell).chain(apcs.map(|apcs| &apcs.bell)).collect();
        if bells.is_empty() {
            sleep_until(end);
            return Ok(Waited::TimedOut);
        }
        if first_ringing(&bells, end)?.is_none() {
            return Ok(Waited::TimedOut);
        }
    }
}

fn signalled(events: &[Arc<Event>], all: bool) -> Option<usize> {
    match all {
        true => (!events.is_empty() && events.iter().all(|event| event.is_set())).then_some(0),
        false => events.iter().position(|event| event.is_set()),
    }
}

fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => thread::sleep(end.saturating_duration_since(Instant::now())),
        None => loop {
            thread::park();
        },
    }
}
