//! How flows look: text for people, JSON for programs. `docs/flow-log.md` is the reference of both.

pub mod json;
mod sockets;
mod text;

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::errno::Errno;
use rustix::time::{ClockId, clock_gettime};

pub use self::sockets::kind_of as socket_kind_of;
pub use self::text::printable;
use crate::run::flows::{Decision, End, Flow, UnseenSocket};

/// Which of the two, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One line for each flow.
    Text {
        /// With terminal colours.
        colour: bool,
        /// Padded, so that lines stand below each other.
        columns: bool,
    },
    /// One object for each flow.
    Json,
}

/// What the whole run came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Flows, of every kind.
    pub flows: u64,
    /// Of them those which Carnet refused.
    pub refused: u64,
    /// Of them those which failed or were broken off.
    pub failed: u64,
    /// Of them those that were open when the run ended.
    pub open: u64,
    /// Of them those that nobody looked at: UDP.
    pub not_inspected: u64,
    /// Payload bytes from applications.
    pub sent: u64,
    /// Payload bytes to applications.
    pub received: u64,
    /// Events for which there was no room: so many flows may be missing above.
    pub events_lost: u64,
}

impl Summary {
    /// Counts one flow.
    pub fn add(&mut self, flow: &Flow) {
        self.flows += 1;
        let bytes = flow.bytes.unwrap_or_default();
        self.sent += bytes.sent;
        self.received += bytes.received;
        self.not_inspected += u64::from(flow.decision == Decision::NotInspected);
        match flow.end {
            End::Refused { .. } => self.refused += 1,
            End::Failed(..) | End::Reset(..) | End::Aborted => self.failed += 1,
            End::Open => self.open += 1,
            End::Closed | End::Untold => {}
        }
    }
}

/// From the kernel's clock to people's.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Nanoseconds from the epoch to `CLOCK_BOOTTIME`'s zero.
    boot: i128,
    zone: TimeZone,
}

impl Clock {
    /// As both clocks stand now; a step of the real one during the run is not followed.
    pub fn now() -> Self {
        let nanoseconds = |clock| {
            let time = clock_gettime(clock);
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        };
        let boot = nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Boottime);
        Self { boot, zone: TimeZone::system() }
    }

    /// One for times that were told as people's: its boot was in 1970.
    pub fn of_told() -> Self {
        Self { boot: 0, zone: TimeZone::system() }
    }

    /// Of a time as [`Format::Json`] has it; that of the boot, where it is none.
    pub fn boottime(&self, time: &str) -> u64 {
        let nanoseconds = time.parse::<Timestamp>().map_or(0, |time| time.as_nanosecond() - self.boot);
        nanoseconds.try_into().unwrap_or_default()
    }

    fn timestamp(&self, boottime: u64) -> Timestamp {
        Timestamp::from_nanosecond(self.boot + i128::from(boottime)).unwrap_or_default()
    }

    #[cfg(test)]
    fn fixed() -> Self {
        Self { boot: 1_700_000_000_000_000_000, zone: TimeZone::UTC }
    }
}

/// Writes flows somewhere. A reader who has gone away is no reason to stop the run, so errors of writing end the
/// output and nothing else.
pub struct Log<W> {
    format: Format,
    clock: Clock,
    to: Option<W>,
    error: Option<io::Error>,
}

impl<W: Write> Log<W> {
    /// A log in this format.
    pub fn new(format: Format, clock: Clock, to: W) -> Self {
        Self { format, clock, to: Some(to), error: None }
    }

    /// One flow.
    pub fn flow(&mut self, flow: &Flow) {
        let line = match self.format {
            Format::Text { colour, columns } => text::flow(flow, &self.clock, colour, columns),
            Format::Json => json::flow(flow, &self.clock),
        };
        self.line(&line);
    }

    /// A socket that cannot be inspected.
    pub fn socket(&mut self, socket: &UnseenSocket) {
        let line = match self.format {
            Format::Text { colour, .. } => text::socket(socket, colour),
            Format::Json => json::socket(socket, &self.clock),
        };
        self.line(&line);
    }

    /// Something people should know.
    pub fn warning(&mut self, warning: &str) {
        let line = match self.format {
            Format::Text { colour, .. } => text::warning(warning, colour),
            Format::Json => json::warning(warning),
        };
        self.line(&line);
    }

    /// The last line.
    pub fn summary(&mut self, summary: &Summary) {
        let line = match self.format {
            Format::Text { colour, .. } => text::summary(summary, colour),
            Format::Json => json::summary(summary),
        };
        self.line(&line);
    }

    /// By which it tells times.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether lines still go anywhere.
    pub fn is_open(&self) -> bool {
        self.to.is_some()
    }

    /// Why the log is not complete, unless its reader has simply gone away.
    pub fn into_error(self) -> Option<io::Error> {
        self.error.filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }

    fn line(&mut self, line: &str) {
        let Some(to) = &mut self.to else { return };
        // In one piece, so that it is not torn where the command writes to the same terminal.
        if let Err(error) = to.write_all(format!("{line}\n").as_bytes()) {
            self.to = None;
            self.error = Some(error);
        }
    }
}

/// The symbol of an errno: `ECONNREFUSED`. `None` where there is no error.
fn errno_symbol(error: i32) -> Option<String> {
    match Errno::from_raw(error) {
        _ if error == 0 => None,
        Errno::UnknownErrno => Some(error.to_string()),
        errno => Some(format!("{errno:?}")),
    }
}

/// The errno with this symbol; 0 where there is none.
pub fn errno_of(symbol: &str) -> i32 {
    let number = symbol.parse().ok();
    number
        .or_else(|| (1..=LAST_ERRNO).find(|error| errno_symbol(*error).as_deref() == Some(symbol)))
        .unwrap_or_default()
}

/// `REASON_*` with this word. A word that this version does not know is a reason that it does not know.
pub fn reason_of(word: &str) -> u32 {
    (1..).take_while(|number| reason(*number).0 != UNKNOWN).find(|number| reason(*number).0 == word).unwrap_or(u32::MAX)
}

/// `REASON_*` as one word for programs, and in words for people.
fn reason(reason: u32) -> (&'static str, &'static str) {
    match reason {
        carnet_abi::REASON_RULE => ("rule", "a filter"),
        carnet_abi::REASON_DEFAULT => ("default", "no filter"),
        carnet_abi::REASON_DEAD => ("dead", "nobody listens there"),
        carnet_abi::REASON_STRANGER => ("stranger", "another process has taken its port"),
        carnet_abi::REASON_FAMILY => ("family", "it has no listener this socket can reach"),
        carnet_abi::REASON_BLOCKED => ("blocked", "blocked"),
        carnet_abi::REASON_OWN_LISTENER => ("own-listener", "a service dialled itself, or one before it"),
        carnet_abi::REASON_NOT_DIRECT => ("not-direct", "a service's port, which is not for applications"),
        carnet_abi::REASON_TERMINAL => ("terminal", "an explicit proxy's own connection"),
        carnet_abi::REASON_RUNAWAY => ("runaway", "too many connections at once, a loop? See in-flight-limit"),
        carnet_abi::REASON_TOO_DEEP => ("too-deep", "16 services have had it already"),
        carnet_abi::REASON_SPECIAL => ("special", "broadcast, multicast or link-local"),
        carnet_abi::REASON_KERNEL => ("kernel", "a kernel thread's"),
        carnet_abi::REASON_NO_ROOM => ("no-room", "no memory for its record"),
        carnet_abi::REASON_DEVICE => ("device", "bound to an interface, and not by root"),
        carnet_abi::REASON_OUTSIDE => ("outside", "not below the governed cgroup"),
        carnet_abi::REASON_NO_ROUTE => ("no-route", "this host has no route there"),
        carnet_abi::REASON_LATELY => ("lately", "the destination refused a connection a moment ago"),
        carnet_abi::REASON_SHARE => ("share", "its user has too many connections that no service has taken yet"),
        carnet_abi::REASON_OTHER_ENGINE => ("other-engine", "another engine has redirected it"),
        carnet_abi::REASON_UDP => ("udp", "UDP is not redirected"),
        carnet_abi::REASON_QUIC => ("quic", "QUIC is to be replaced by TCP: block-quic"),
        carnet_abi::REASON_ELSEWHERE => ("elsewhere", "the application's loopback is in another network namespace"),
        carnet_abi::REASON_SOCKET => ("socket", "a kind of socket that cannot be inspected"),
        _ => (UNKNOWN, "a reason this version does not know"),
    }
}

const UNKNOWN: &str = "unknown";

/// Of Linux, on the architectures there are engines for.
const LAST_ERRNO: i32 = 133;

#[cfg(test)]
mod tests;
