//! The command, from its start to its end.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use carnet_engine::cgroup::Cgroup;
use nix::sys::signal::Signal;

use crate::run::SELF;
use crate::run::guardian::{DEAD, Guardian};
use crate::run::identity::Identity;
use crate::run::log::FlowLog;
use crate::run::served::Ending;
use crate::run::service::Service;
use crate::run::wait::{Received, Signals, exit_code, pidfd_of, send_signal, wait};
use crate::{child, exec};

/// The command's first process. It has the terminal, the standard streams and the process group of `carnet run`.
///
/// Dropping it kills it: it may be on its way to its cgroup, where a kill of the cgroup does not find it yet.
pub struct RunningCommand {
    child: Child,
    pidfd: OwnedFd,
}

impl RunningCommand {
    /// Starts it in its cgroup. A program that is not there is found out by the new process, which says so and exits
    /// with 127. `strict` takes from it what it needs for sockets that cannot be inspected.
    pub fn start(command: &[OsString], cgroup: &Cgroup, identity: &Identity, strict: bool) -> Result<Self> {
        let place = child::Place {
            cgroup: cgroup.path().into(),
            parent: std::process::id().cast_signed(),
            uid: identity.uid(),
            gid: identity.gid(),
            many_files: false,
        };
        let without_raw = strict.then_some(exec::WITHOUT_RAW);
        let mut start = Command::new(SELF);
        start.arg(exec::NAME).args(without_raw).args(place.arguments()).arg("--").args(command);
        let child = start.spawn().context("cannot start the command")?;
        let pidfd = pidfd_of(&child)?;
        Ok(Self { child, pidfd })
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        // It fails where the process has been waited for, which is as good.
        let _ = self.child.kill();
    }
}

/// Everything that is watched while the command runs.
pub struct Watch<'a> {
    /// A service may die.
    pub open: bool,
    /// What the command is told of.
    pub signals: &'a Signals,
    /// Without it the run ends.
    pub guardian: &'a Guardian,
    /// Those that were started.
    pub services: Vec<Service>,
    /// The command.
    pub command: RunningCommand,
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
    /// Takes warnings.
    pub log: &'a FlowLog,
    /// Ends the run when a daemon that redirects has gone.
    pub ending: Option<&'a Ending>,
}

impl Watch<'_> {
    /// Returns the command's exit code, or why it must not go on.
    pub fn until_the_end(mut self) -> Result<u8> {
        loop {
            let mut watched: Vec<BorrowedFd<'_>> = vec![self.guardian.pidfd(), self.command.pidfd.as_fd()];
            watched.extend(self.ending.map(AsFd::as_fd));
            let before_services = watched.len();
            watched.extend(self.services.iter_mut().map(Service::watched));
            let (signal, ready) = wait(self.signals, &watched, None)?;

            // The terminal's keys reach the command by themselves; its hangup may reach the session's first process only.
            let is_key = |signal| matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
            if let Some(Received { signal, from_terminal }) = signal
                && !(from_terminal && is_key(signal))
            {
                send_signal(&self.command.pidfd, signal)?;
            }
            if ready[1]
                && let Some(status) = self.command.child.try_wait().context("cannot wait for the command")?
            {
                return Ok(exit_code(status));
            }
            if ready[0] {
                bail!(DEAD);
            }
            if let Some(ending) = self.ending
                && ready[before_services - 1]
            {
                // First of all: what follows takes a moment.
                self.cgroup.kill()?;
                bail!("{}", ending.why());
            }
            self.look_after_services(&ready[before_services..])?;
        }
    }

    fn look_after_services(&mut self, ready: &[bool]) -> Result<()> {
        let mut dead = Vec::new();
        for (place, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            let service = &mut self.services[place];
            let Some(why) = service.end()? else { continue };
            let name = service.name();
            if !self.open {
                // First of all: what follows takes a moment.
                self.cgroup.kill()?;
                let last_words = service.last_words();
                bail!(
                    "the service {name} {why}, so the command was ended; with --open it would go on without{last_words}"
                );
            }
            self.log.warn(format!("the service {name} {why}; connections pass it by"));
            dead.push(place);
        }
        for place in dead.into_iter().rev() {
            self.services.remove(place);
        }
        Ok(())
    }
}
