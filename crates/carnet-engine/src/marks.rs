//! Listeners that are a provider's although somebody else made them: a service manager, a parent process.

use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_rs::MapCore;
use zerocopy::IntoBytes;

use crate::{Engine, Error, ErrorKind};

const MARKS: &str = "carnet_marks";

impl Engine {
    /// From now on this listening TCP or MPTCP socket is the provider's with this handle, under every policy that has one,
    /// whoever made it and holds it. A socket that was made by one of the provider's owners is that without a mark.
    ///
    /// Connections that the listener accepts from now on get their records, whoever accepts them. The mark goes with the
    /// socket. It is no owner: what a process outside of the provider's owners dials with a record is not the provider's, and
    /// it may not set one.
    ///
    /// Two things more are needed. The programs have to be on the cgroup in which the listener was made, since that is where
    /// its connections arrive: see [`Engine::attach_outside_service`]. And a listener that shares its port with others by
    /// `SO_REUSEPORT` has to be alone there, unless all of them were made by the owners.
    pub fn own_listener(&self, listener: BorrowedFd<'_>, handle: u32) -> Result<(), Error> {
        if handle == 0 {
            return Err(Error::new(ErrorKind::Policy, "cannot mark a listener: no provider has the handle 0"));
        }
        self.update(MARKS, listener.as_raw_fd().as_bytes(), handle.as_bytes())
    }

    /// The listener is again whose it was made to be. Connections that it has accepted stay the provider's.
    pub fn disown_listener(&self, listener: BorrowedFd<'_>) -> Result<(), Error> {
        match self.map(MARKS)?.delete(listener.as_raw_fd().as_bytes()) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => {
                Err(Error::bpf("cannot remove a listener's mark", error))
            }
            _ => Ok(()),
        }
    }
}
