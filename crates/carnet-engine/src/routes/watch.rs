//! When to read: at notice of a change, once more when the change has settled, and again after what has failed.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::notices;

/// What is kept current.
pub trait Mirror {
    /// From here on nothing is known.
    fn forget(&mut self);
    /// Reads everything and puts it in force. False: that failed, and is to be tried again.
    fn refresh(&mut self) -> bool;
    /// There is no notice of changes for now.
    fn deaf(&mut self, error: io::Error);
}

/// Waits for notice of changes, and has the mirror follow them.
pub struct Watch<M, S> {
    mirror: M,
    /// `None`: to be opened at the next reading.
    notices: Option<OwnedFd>,
    subscribe: S,
    due: Option<Due>,
    not_before: Instant,
    retry: Duration,
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

impl<M: Mirror, S: FnMut() -> io::Result<OwnedFd>> Watch<M, S> {
    /// The mirror has been read after `notices` were opened. `subscribe` opens others when these fail.
    pub fn new(mirror: M, notices: OwnedFd, subscribe: S) -> Self {
        let notices = Some(notices);
        Self { mirror, notices, subscribe, due: None, not_before: Instant::now(), retry: RETRY }
    }

    /// Goes on until the other end of `stopped` is closed.
    pub fn run(mut self, stopped: &PipeReader) {
        loop {
            match self.wait(stopped) {
                Ok(Woken::Changed) => self.changed(),
                Ok(Woken::Due) => self.read(),
                Ok(Woken::Stopped) => break,
                Err(error) => self.deaf(error),
            }
        }
        self.mirror.forget();
    }

    fn wait(&self, stopped: &PipeReader) -> io::Result<Woken> {
        loop {
            let left = self.due.map(|due| due.at.saturating_duration_since(Instant::now()));
            // Rounded up, so that it does not wake before.
            let round_up = |left| PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let timeout = left.map_or(PollTimeout::NONE, round_up);
            let fds = [Some(stopped.as_fd()), self.notices.as_ref().map(AsFd::as_fd)];
            let mut fds: Vec<_> = fds.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut fds, timeout) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let ready = |place: usize| fds.get(place).is_some_and(|fd| fd.any().unwrap_or(true));
            if ready(0) {
                return Ok(Woken::Stopped);
            }
            // Comes before further notices, which may never end.
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Woken::Due);
            }
            if let Some(notices) = self.notices.as_ref().filter(|_| ready(1)) {
                notices::drain(notices)?;
                return Ok(Woken::Changed);
            }
        }
    }

    fn changed(&mut self) {
        // What is in force may be wrong from here on, and what has a route must not be refused.
        self.mirror.forget();
        if self.due.is_none_or(|due| due.is_second) {
            self.due = Some(Due { at: Instant::now().max(self.not_before), is_second: false });
        }
    }

    fn read(&mut self) {
        // Before the reading, so that no change is missed.
        if self.notices.is_none() {
            match (self.subscribe)() {
                Ok(notices) => self.notices = Some(notices),
                Err(error) => return self.deaf(error),
            }
        }
        let began = Instant::now();
        let good = self.mirror.refresh();
        // Large tables take long to read, and some change all the time: a fifth of a processor at most.
        let pause = PAUSE.max(4 * began.elapsed());
        self.not_before = Instant::now() + pause;
        let wait = if good { SETTLED.max(pause) } else { self.retry };
        let is_over = good && self.due.is_none_or(|due| due.is_second);
        self.due = (!is_over).then(|| Due { at: Instant::now() + wait, is_second: true });
    }

    /// Changes would be missed, so nothing is known until notices can be opened again.
    fn deaf(&mut self, error: io::Error) {
        self.notices = None;
        self.mirror.forget();
        self.mirror.deaf(error);
        self.due = Some(Due { at: Instant::now() + self.retry, is_second: false });
        // It may be poll() itself that fails, and would at once again.
        thread::sleep(PAUSE);
    }
}

/// Between two readings.
const PAUSE: Duration = Duration::from_millis(20);
/// After which what a notice was about has happened.
const SETTLED: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe};
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Did {
        Forget,
        Refresh,
        Deaf(Option<i32>),
    }

    struct Witness(Sender<Did>);

    impl Mirror for Witness {
        fn forget(&mut self) {
            self.0.send(Did::Forget).unwrap();
        }

        fn refresh(&mut self) -> bool {
            self.0.send(Did::Refresh).unwrap();
            true
        }

        fn deaf(&mut self, error: io::Error) {
            self.0.send(Did::Deaf(error.raw_os_error())).unwrap();
        }
    }

    /// Runs a watch whose first notices are a pipe with something in it, from which no message can be received.
    fn broken(subscribe: impl FnMut() -> io::Result<OwnedFd> + Send, test: impl FnOnce(&Receiver<Did>)) -> Vec<Did> {
        let (says, said) = channel();
        let (notices, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let (stopped, stop) = pipe().unwrap();
        let retry = Duration::from_millis(1);
        thread::scope(|scope| {
            let watch = Watch { retry, ..Watch::new(Witness(says), notices.into(), subscribe) };
            scope.spawn(move || watch.run(&stopped));
            test(&said);
            drop(stop);
        });
        said.iter().collect()
    }

    fn next(said: &Receiver<Did>) -> Did {
        said.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    const ENOTSOCK: Option<i32> = Some(Errno::ENOTSOCK as i32);

    #[test]
    fn notices_that_fail_are_opened_again_and_followed() {
        let (notices, kernel) = UnixDatagram::pair().unwrap();
        notices.set_nonblocking(true).unwrap();
        let mut notices = Some(OwnedFd::from(notices));
        let rest = broken(
            || Ok(notices.take().unwrap()),
            |said| {
                assert_eq!([next(said), next(said)], [Did::Forget, Did::Deaf(ENOTSOCK)]);
                assert_eq!(
                    [next(said), next(said)],
                    [Did::Refresh, Did::Refresh],
                    "the second time when it has settled"
                );
                assert_eq!(said.recv_timeout(2 * SETTLED), Err(RecvTimeoutError::Timeout), "nothing has changed");
                kernel.send(b"changed").unwrap();
                assert_eq!([next(said), next(said), next(said)], [Did::Forget, Did::Refresh, Did::Refresh]);
            },
        );
        assert_eq!(rest, [Did::Forget], "at the end");
    }

    #[test]
    fn opening_them_is_tried_until_it_works_and_nothing_counts_as_known() {
        let (notices, _kernel) = UnixDatagram::pair().unwrap();
        let mut notices = Some(OwnedFd::from(notices));
        let mut failures = 3;
        let subscribe = || {
            failures -= 1;
            if failures >= 0 { Err(Errno::EMFILE.into()) } else { Ok(notices.take().unwrap()) }
        };
        broken(subscribe, |said| {
            assert_eq!([next(said), next(said)], [Did::Forget, Did::Deaf(ENOTSOCK)]);
            for _ in 0..3 {
                assert_eq!([next(said), next(said)], [Did::Forget, Did::Deaf(Some(Errno::EMFILE as i32))]);
            }
            assert_eq!(next(said), Did::Refresh);
        });
    }

    #[test]
    fn it_ends_while_notices_cannot_be_opened() {
        let rest = broken(
            || Err(Errno::EMFILE.into()),
            |said| assert_eq!([next(said), next(said)], [Did::Forget, Did::Deaf(ENOTSOCK)]),
        );
        assert_eq!(rest.last(), Some(&Did::Forget));
        assert!(!rest.contains(&Did::Refresh), "{rest:?}");
    }
}
