//! The one place where `carnet run` waits: for signals and for the ends of its processes.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

/// Signals that have been sent to `carnet run`, instead of what they would do to it.
pub struct Signals(SignalFd);

/// One of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// By the terminal, which sends it to the whole foreground group and so to the command too.
    pub from_terminal: bool,
}

impl Signals {
    /// Takes them from now on. Call it before threads are started, which inherit the mask. Children inherit it too: see
    /// [`Signals::give_back`]. SIGTSTP is not among them: Ctrl-Z stops `carnet run` with its command, as the shell expects.
    pub fn take() -> Result<Self> {
        let set = Self::set();
        set.thread_block().context("cannot block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags).context("cannot receive signals")?))
    }

    /// In a child: has them do again what they did in the caller of carnet.
    pub fn give_back() -> Result<()> {
        Self::set().thread_unblock().context("cannot unblock signals")
    }

    /// Takes what has come so far. `Err`, with [`Interrupted`], where it asks for the end.
    pub fn none_is_fatal(&self) -> Result<()> {
        while let Some(Received { signal, .. }) = self.next()? {
            if is_fatal(signal) {
                return Err(Interrupted(signal).into());
            }
        }
        Ok(())
    }

    fn set() -> SigSet {
        FATAL.into_iter().chain([Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGCONT]).collect()
    }

    fn next(&self) -> Result<Option<Received>> {
        let Some(read) = self.0.read_signal().context("cannot receive signals")? else { return Ok(None) };
        let signal = i32::try_from(read.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        Ok(signal.map(|signal| Received { signal, from_terminal: read.ssi_code == SI_KERNEL }))
    }
}

/// A signal has ended the run before the command was started.
#[derive(Debug)]
pub struct Interrupted(pub Signal);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Whether a signal asks for the end.
pub fn is_fatal(signal: Signal) -> bool {
    FATAL.contains(&signal)
}

/// Waits until a signal has come or one of `descriptors` is readable (or, for a cgroup's events file, has changed), at
/// most `timeout`. Says which are.
pub fn wait(
    signals: &Signals,
    descriptors: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> Result<(Option<Received>, Vec<bool>)> {
    let interest = PollFlags::IN | PollFlags::PRI;
    let mut polled = vec![PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN)];
    polled.extend(descriptors.iter().map(|&descriptor| PollFd::from_borrowed_fd(descriptor, interest)));
    match poll(&mut polled, timeout.map(timespec).as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error).context("cannot wait for processes"),
    }
    let ready = polled[1..].iter().map(|polled| !polled.revents().is_empty()).collect();
    Ok((signals.next()?, ready))
}

/// Waits for a process, at most so long. False: it is still there.
pub fn wait_for_end(pidfd: BorrowedFd<'_>, timeout: Duration) -> Result<bool> {
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&timespec(left))) {
            Ok(ended) => return Ok(ended > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for a process"),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

/// Of a child that has not been waited for, so that the number is still its own.
pub fn pidfd_of(child: &Child) -> Result<OwnedFd> {
    let pid = Pid::from_child(child);
    pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("cannot watch process {}", child.id()))
}

/// Passes a signal on. A process that is gone is fine.
pub fn send_signal(pidfd: impl AsFd, signal: Signal) -> Result<()> {
    let number = rustix::process::Signal::from_named_raw(signal as i32).context("no such signal")?;
    match pidfd_send_signal(pidfd, number) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot pass {signal} on")),
    }
}

/// The exit code that tells as much as a shell would: 128 and the number of a signal.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// "exited with status 1", "was killed by SIGKILL".
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(Ok(signal))) => format!("was killed by {signal}"),
        (None, _) => format!("ended ({status})"),
    }
}

const FATAL: [Signal; 4] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP];

/// `siginfo_t::si_code` of what the kernel itself sends, the terminal's signals among it.
const SI_KERNEL: i32 = 0x80;

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_signal_that_came_before_is_not_forgotten() {
        // Both are this thread's alone: `raise` sends to it, and it blocks them.
        let signals = Signals::take().unwrap();
        raise(Signal::SIGUSR1).unwrap();
        signals.none_is_fatal().unwrap();
        raise(Signal::SIGUSR1).unwrap();
        raise(Signal::SIGINT).unwrap();
        let error = signals.none_is_fatal().unwrap_err();
        assert_eq!(error.downcast_ref::<Interrupted>().unwrap().0, Signal::SIGINT);
        signals.none_is_fatal().unwrap();
    }

    #[test]
    fn exit_codes_are_those_of_shells() {
        for (raw, code, words) in [
            (0, 0, "exited with status 0"),
            (7 << 8, 7, "exited with status 7"),
            (9, 137, "was killed by SIGKILL"),
            (2, 130, "was killed by SIGINT"),
        ] {
            let status = ExitStatus::from_raw(raw);
            assert_eq!((exit_code(status), &describe(status)[..]), (code, words));
        }
    }
}
