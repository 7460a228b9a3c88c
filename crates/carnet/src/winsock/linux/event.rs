//! Events: what `WSACreateEvent` makes. They stay signalled until somebody resets them.

use std::io;

use super::bell::Bell;

#[derive(Debug)]
pub(crate) struct Event {
    pub(super) bell: Bell,
}

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { bell: Bell::new()? })
    }

    pub(crate) fn set(&self) {
        self.bell.ring();
    }

    pub(crate) fn reset(&self) {
        self.bell.silence();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.bell.is_ringing()
    }
}
