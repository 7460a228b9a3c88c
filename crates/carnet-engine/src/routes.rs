//! A mirror of this network namespace's routes, so that connect() to a destination without one fails as it would have.
//!
//! A redirected connect() goes to a listener on this host and succeeds, whatever becomes of the flow. The kernel program
//! therefore looks the destination up in a table of what has no route, which is kept here: read whole by rtnetlink, and
//! read again when the kernel gives notice of a change. docs/adr/0009-routes-are-mirrored.md has the reasons.

mod entries;
mod local;
mod map;
mod message;
mod netlink;
mod prefix;
mod read;
mod table;

use std::fmt;
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libbpf_rs::{MapHandle, ProgramInput};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::map::Tables;
use crate::{Engine, Error, ErrorKind};

/// This network namespace's routes. [`Routes::watch`] puts them in force and keeps them current.
pub struct Routes {
    notices: OwnedFd,
    tables: Tables,
    local: MapHandle,
    told: [bool; 3],
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
    /// The routes cannot be read, or not be written for the kernel program. It is tried again.
    Unknown(Error),
    /// More routes than the map has room for: some destinations without a route are taken for reachable.
    Coarse,
    /// This host has so many more addresses than there is room for.
    AddressesLeftOut(usize),
}

impl Engine {
    /// Opens a mirror of the routes of the calling thread's network namespace. Without one nothing is known of routes,
    /// and every destination counts as reachable.
    pub fn routes(&self) -> Result<Routes, Error> {
        // Before the first reading, so that no change is missed.
        let notices =
            netlink::subscribe().map_err(|error| Error::io("cannot subscribe to changes of routes", error))?;
        let tables = Tables::of(self, self.netns()?)?;
        Ok(Routes { notices, tables, local: self.map_handle("carnet_local")?, told: [false; 3] })
    }

    /// Tells the kernel program this host's addresses, by which a wildcard listener can be dialled. [`Engine::load`]
    /// does it, and [`Routes`] does it again when addresses come or go. Returns for how many there was no room.
    pub fn update_local_addresses(&self) -> Result<usize, Error> {
        local::update(&self.map("carnet_local")?)
    }

    /// Cookie of the calling thread's network namespace, as the kernel program sees it.
    fn netns(&self) -> Result<u64, Error> {
        let program = self.object.progs_mut().find(|program| program.name() == NETNS);
        let program =
            program.ok_or_else(|| Error::new(ErrorKind::Io, "the kernel object has no program carnet_netns"))?;
        let mut cookie = [0; 8];
        let input = ProgramInput { context_in: Some(&mut cookie), ..ProgramInput::default() };
        program.test_run(input).map_err(|error| Error::bpf("cannot ask for the network namespace", error))?;
        Ok(u64::from_ne_bytes(cookie))
    }
}

impl Routes {
    /// Puts the routes in force before it returns, and keeps them current from then on.
    pub fn watch(mut self, mut tell: impl FnMut(RouteNotice) + Send + 'static) -> Result<RouteWatch, Error> {
        let failed = |error| Error::io("cannot start to watch the routes", error);
        let (stopped, stop) = pipe().map_err(failed)?;
        self.refresh(&mut tell);
        let run = move || self.run(&stopped, &mut tell);
        let thread = thread::Builder::new().name("carnet-routes".into()).spawn(run).map_err(failed)?;
        Ok(RouteWatch { thread: Some(thread), stop: Some(stop) })
    }

    fn run(mut self, stopped: &PipeReader, tell: &mut dyn FnMut(RouteNotice)) {
        let mut due: Option<Due> = None;
        let mut not_before = Instant::now();
        loop {
            match self.wait(stopped, due) {
                Ok(Woken::Changed) => {
                    // What is in force may be wrong from here on, and what has a route must not be refused.
                    let _ = self.tables.forget();
                    if due.is_none_or(|due| due.is_second) {
                        due = Some(Due { at: Instant::now().max(not_before), is_second: false });
                    }
                }
                Ok(Woken::Due) => {
                    let began = Instant::now();
                    let good = self.refresh(tell);
                    // Large tables take long to read, and some change all the time: a fifth of a processor at most.
                    let pause = PAUSE.max(4 * began.elapsed());
                    not_before = Instant::now() + pause;
                    let wait = if good { SETTLED.max(pause) } else { RETRY };
                    let is_over = good && due.is_none_or(|due| due.is_second);
                    due = (!is_over).then(|| Due { at: Instant::now() + wait, is_second: true });
                }
                Ok(Woken::Stopped) => break,
                Err(error) => {
                    tell(RouteNotice::Unknown(Error::io("cannot wait for changes of routes", error)));
                    break;
                }
            }
        }
        let _ = self.tables.forget();
    }

    fn wait(&self, stopped: &PipeReader, due: Option<Due>) -> io::Result<Woken> {
        loop {
            let left = due.map(|due| due.at.saturating_duration_since(Instant::now()));
            // Rounded up, so that it does not wake before.
            let round_up = |left| PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let timeout = left.map_or(PollTimeout::NONE, round_up);
            let mut fds = [stopped.as_fd(), self.notices.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, timeout) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let ready = |place: usize| fds[place].any().unwrap_or(true);
            if ready(0) {
                return Ok(Woken::Stopped);
            }
            // Comes before further notices, which may never end.
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Woken::Due);
            }
            if ready(1) {
                netlink::drain(&self.notices)?;
                return Ok(Woken::Changed);
            }
        }
    }

    /// Reads everything and puts it in force. Whether that went well; if not, nothing is known.
    fn refresh(&mut self, tell: &mut dyn FnMut(RouteNotice)) -> bool {
        let mut notices = [None, None, None];
        match self.read() {
            Ok(is_coarse) => notices[0] = is_coarse.then_some(RouteNotice::Coarse),
            Err(error) => notices[1] = Some(RouteNotice::Unknown(error)),
        }
        let good = notices[1].is_none();
        if !good {
            let _ = self.tables.forget();
        }
        match local::update(&self.local) {
            Ok(0) => {}
            Ok(count) => notices[2] = Some(RouteNotice::AddressesLeftOut(count)),
            Err(error) => notices[1] = Some(RouteNotice::Unknown(error)),
        }
        for (notice, told) in notices.into_iter().zip(&mut self.told) {
            let is_new = notice.is_some() && !*told;
            *told = notice.is_some();
            if let Some(notice) = notice.filter(|_| is_new) {
                tell(notice);
            }
        }
        good
    }

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

/// A reading that is to come.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    /// The kernel gives notice of an interface that goes down before its routes have gone, so a second reading follows.
    is_second: bool,
}

enum Woken {
    Changed,
    Due,
    Stopped,
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
                "this host has {count} addresses more than Carnet can keep: dial services that listen on all addresses by                  127.0.0.1 or ::1"
            ),
        }
    }
}

/// In bpf/netns.h.
const NETNS: &str = "carnet_netns";
/// Between two readings.
const PAUSE: Duration = Duration::from_millis(20);
/// After which what a notice was about has happened.
const SETTLED: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(5);
/// Readings that somebody's changes may spoil.
const TRIES: u32 = 8;
