//! A mirror of this network namespace's routes, so that connect() to a destination without one fails as it would have.
//!
//! A redirected connect() goes to a listener on this host and succeeds, whatever becomes of the flow. The kernel program
//! therefore looks the destination up in a table of what has no route, which is kept here: read whole by rtnetlink, and
//! read again when the kernel gives notice of a change. docs/adr/0009-routes-are-mirrored.md has the reasons.

mod entries;
mod local;
mod map;
mod message;
mod notices;
mod prefix;
mod read;
mod table;
mod watch;

use std::fmt;
use std::io::{self, PipeWriter, pipe};
use std::mem;
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use libbpf_rs::MapHandle;

use self::map::Tables;
use self::watch::{Mirror, Watch};
use crate::{Engine, Error, netns};

/// This network namespace's routes. [`Routes::watch`] puts them in force and keeps them current.
pub struct Routes {
    notices: OwnedFd,
    tables: Tables,
    local: MapHandle,
}

/// Keeps the mirror current, on a thread of its own, until it is dropped. Then no route is known any more, and every
/// destination counts as reachable.
#[derive(Debug)]
pub struct RouteWatch {
    thread: Option<JoinHandle<()>>,
    /// Closed to end the thread.
    stop: Option<PipeWriter>,
}

/// What the mirror has to tell. Nothing ends with it; each kind is told once until it is over.
#[derive(Debug)]
#[non_exhaustive]
pub enum RouteNotice {
    /// The routes or their changes cannot be read, or not be written for the kernel program. It is tried again.
    Unknown(Error),
    /// More routes than the map has room for: some destinations without a route are taken for reachable.
    Coarse,
    /// This host has so many more addresses than there is room for.
    AddressesLeftOut(usize),
}

impl Engine {
    /// Opens a mirror of the routes of the calling thread's network namespace. Without one nothing is known of routes,
    /// and every destination counts as reachable.
    ///
    /// [`Routes::watch`] reads in the namespace of the thread that calls it, which must be the same one.
    pub fn routes(&self) -> Result<Routes, Error> {
        // Before the first reading, so that no change is missed.
        let notices =
            notices::subscribe().map_err(|error| Error::io("cannot subscribe to changes of routes", error))?;
        let tables = Tables::of(self, netns::of_this_thread(&self.object)?)?;
        Ok(Routes { notices, tables, local: self.map_handle("carnet_local")? })
    }

    /// Tells the kernel program this host's addresses, by which a wildcard listener can be dialled. [`Engine::load`]
    /// does it, and [`Routes`] does it again when addresses come or go. Returns for how many there was no room.
    pub fn update_local_addresses(&self) -> Result<usize, Error> {
        local::update(&self.map("carnet_local")?)
    }
}

impl Routes {
    /// Puts the routes in force before it returns, and keeps them current from then on. Call it in the network namespace
    /// that [`Engine::routes`] was called in.
    pub fn watch(self, tell: impl FnMut(RouteNotice) + Send + 'static) -> Result<RouteWatch, Error> {
        let failed = |error| Error::io("cannot start to watch the routes", error);
        let (stopped, stop) = pipe().map_err(failed)?;
        let mut keeper = Keeper { tables: self.tables, local: self.local, told: Told::default(), tell };
        keeper.refresh();
        let watch = Watch::new(keeper, self.notices, notices::subscribe);
        let run = move || watch.run(&stopped);
        let thread = thread::Builder::new().name("carnet-routes".into()).spawn(run).map_err(failed)?;
        Ok(RouteWatch { thread: Some(thread), stop: Some(stop) })
    }
}

/// Writes what the kernel program knows of routes, and says what it cannot.
struct Keeper<T> {
    tables: Tables,
    local: MapHandle,
    told: Told,
    tell: T,
}

/// What has been told and is not over.
#[derive(Default)]
struct Told {
    unknown: bool,
    coarse: bool,
    addresses_left_out: bool,
}

impl<T: FnMut(RouteNotice)> Mirror for Keeper<T> {
    fn forget(&mut self) {
        let _ = self.tables.forget();
    }

    fn refresh(&mut self) -> bool {
        let (is_coarse, mut unknown) = match self.read() {
            Ok(is_coarse) => (is_coarse, None),
            Err(error) => (false, Some(error)),
        };
        if unknown.is_some() {
            self.forget();
        }
        let left_out = local::update(&self.local).unwrap_or_else(|error| {
            unknown = Some(error);
            0
        });
        let good = unknown.is_none();
        let left_out = (left_out > 0).then_some(RouteNotice::AddressesLeftOut(left_out));
        say(&mut self.told.coarse, is_coarse.then_some(RouteNotice::Coarse), &mut self.tell);
        say(&mut self.told.unknown, unknown.map(RouteNotice::Unknown), &mut self.tell);
        say(&mut self.told.addresses_left_out, left_out, &mut self.tell);
        good
    }

    fn deaf(&mut self, error: io::Error) {
        let error = Error::io("cannot wait for changes of routes", error);
        say(&mut self.told.unknown, Some(RouteNotice::Unknown(error)), &mut self.tell);
    }
}

impl<T> Keeper<T> {
    /// Whether the tables are coarse.
    fn read(&mut self) -> Result<bool, Error> {
        let mut tries = 0;
        let reading = loop {
            tries += 1;
            match read::read(self.tables.room()) {
                // Somebody changed what was being read.
                Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < TRIES => {}
                result => break result,
            }
        };
        let reading = reading.map_err(|error| Error::io("cannot read the routes", error))?;
        self.tables.replace(&reading.entries)?;
        Ok(reading.is_coarse)
    }
}

/// Tells it, unless it has been told already. `None`: it is over.
fn say(told: &mut bool, notice: Option<RouteNotice>, tell: &mut impl FnMut(RouteNotice)) {
    let was_told = mem::replace(told, notice.is_some());
    if let Some(notice) = notice.filter(|_| !was_told) {
        tell(notice);
    }
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked, which was reported, or it ends.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

impl fmt::Display for RouteNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(error) => {
                write!(f, "{error}. Until that works, connections without a route go to services too, and fail there")
            }
            Self::Coarse => f.write_str(
                "there are more routes than Carnet can keep: some destinations without a route count as reachable",
            ),
            Self::AddressesLeftOut(count) => write!(
                f,
                "this host has {count} addresses more than Carnet can keep: dial services that listen on all addresses by \
                 127.0.0.1 or ::1"
            ),
        }
    }
}

/// Readings that somebody's changes may spoil.
const TRIES: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_sentences_without_gaps() {
        let error = || Error::io("cannot read the routes", io::ErrorKind::OutOfMemory.into());
        for notice in [RouteNotice::Unknown(error()), RouteNotice::Coarse, RouteNotice::AddressesLeftOut(3)] {
            let text = notice.to_string();
            assert!(!text.contains("  ") && !text.contains('\n'), "{text:?}");
        }
    }

    #[test]
    fn what_has_been_told_is_told_again_once_it_was_over() {
        let mut told = false;
        let mut count = 0;
        for (is_so, expected) in [(true, 1), (true, 1), (false, 1), (true, 2), (true, 2)] {
            say(&mut told, is_so.then_some(RouteNotice::Coarse), &mut |_| count += 1);
            assert_eq!(count, expected);
        }
    }
}
