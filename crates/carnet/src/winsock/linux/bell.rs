//! What threads wait for: an eventfd, so that whatever waits for descriptors can wait for it, too.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{Errno, read, write},
};

#[derive(Debug)]
pub(crate) struct Bell {
    counter: OwnedFd,
}

impl Bell {
    /// Rings from [`ring`](Self::ring) to [`silence`](Self::silence).
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { counter: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)? })
    }

    pub(crate) fn ring(&self) {
        // The one refusal is a counter that would overflow, and such a bell rings.
        let _ringing = write(&self.counter, &1_u64.to_ne_bytes());
    }

    pub(crate) fn silence(&self) {
        // The one refusal is that it does not ring.
        let _silent = read(&self.counter, &mut [0; 8]);
    }

    pub(crate) fn is_ringing(&self) -> bool {
        first_ringing(&[self], Some(Instant::now())).is_ok_and(|first| first.is_some())
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}

/// Index of the first that rings; waits for one, until `end` (`None`: without end).
pub(crate) fn first_ringing(bells: &[&Bell], end: Option<Instant>) -> io::Result<Option<usize>> {
    let mut descriptors: Vec<_> = bells.iter().map(|bell| PollFd::new(bell, PollFlags::IN)).collect();
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // More than the kernel can count is no end, either.
        let limit = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut descriptors, limit.as_ref()) {
            Ok(0) if left.is_some() => return Ok(None),
            Ok(_) => {
                if let Some(first) = descriptors.iter().position(|descriptor| !descriptor.revents().is_empty()) {
                    return Ok(Some(first));
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
