//! Gets the services ready, in parallel: those to be started are started and waited for, the others are looked up.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_policy::{Owner, Service as Records};

use crate::run::Arguments;
use crate::run::guardian::{DEAD, Guardian};
use crate::run::identity::Identity;
use crate::run::outside;
use crate::run::place::own_cgroup;
use crate::run::plan::{Ready, Through, names};
use crate::run::service::Service;
use crate::run::wait::{Interrupted, Signals, is_fatal, wait};

/// Everything before the command.
pub struct Setup<'a> {
    /// What was asked for.
    pub arguments: &'a Arguments,
    /// Those that end the waiting.
    pub signals: &'a Signals,
    /// Its death ends the waiting too.
    pub guardian: &'a Guardian,
    /// Where services' cgroups are looked up.
    pub hierarchy: &'a Hierarchy,
    /// Where started services' cgroups are made.
    pub services: &'a Cgroup,
    /// As whom services run that are commands.
    pub identity: &'a Identity,
}

/// The services, all listening.
pub struct Services {
    /// In their order.
    pub ready: Vec<Ready>,
    /// Those that were started, in their order.
    pub started: Vec<Service>,
    /// Cgroups of the others.
    pub outside: Vec<Cgroup>,
    /// What they said meanwhile.
    pub warnings: Vec<String>,
}

impl Setup<'_> {
    /// Gets all of them ready.
    pub fn services(&self) -> Result<Services> {
        let through = &self.arguments.through;
        let mut services =
            Services { ready: Vec::new(), started: Vec::new(), outside: Vec::new(), warnings: Vec::new() };
        let own_cgroup = own_cgroup(self.hierarchy)?;
        // Who runs already is looked up first: if that fails, nothing has been started in vain.
        let mut found = Vec::new();
        for service in through {
            found.push(match service {
                Through::Address(address) => Some(outside::owner_of(*address, self.hierarchy, &own_cgroup)?),
                Through::Inspect | Through::Command(_) => None,
            });
        }
        for (place, ((service, name), found)) in through.iter().zip(names(through)).zip(found).enumerate() {
            let start = |words| {
                let cgroup = self.services.child(&place.to_string())?;
                Service::start(&name, words, cgroup, self.identity, self.arguments.verbose, &services.started)
            };
            let (started, records, listeners) = match service {
                Through::Inspect => (Some(start(None)?), Records::Aware, Vec::new()),
                Through::Command(words) => (Some(start(Some(words))?), Records::Unaware, Vec::new()),
                Through::Address(address) => (None, Records::Unaware, vec![canonical(*address)]),
            };
            // One or the other.
            let Some(cgroup) = started.as_ref().map(Service::cgroup).or(found.as_ref()) else { continue };
            let owner = Owner::Cgroup { id: cgroup.id(), level: cgroup.level() };
            let cgroup = cgroup.path().into();
            services.ready.push(Ready { name, service: records, owner, cgroup, listeners });
            services.started.extend(started);
            services.outside.extend(found);
        }
        check_apart(&services.outside)?;
        self.wait_for(&mut services)?;
        Ok(services)
    }

    fn wait_for(&self, services: &mut Services) -> Result<()> {
        let timeout = Duration::from_secs(self.arguments.start_timeout.into());
        let end = Instant::now() + timeout;
        let Services { ready, started, warnings, .. } = services;
        loop {
            let mut missing = None;
            for service in started.iter_mut() {
                let name = service.name().to_owned();
                let Some(place) = ready.iter().position(|ready| ready.name == name) else { continue };
                if let Some(why) = service.end()? {
                    bail!("the service {name} {why} before it listened{}", service.last_words());
                }
                if !ready[place].listeners.is_empty() {
                    continue;
                }
                match service.listening(self.hierarchy, &mut |warning| warnings.push(format!("{name}: {warning}")))? {
                    Some(listeners) => ready[place].listeners = listeners,
                    None => missing = Some(place),
                }
            }
            let Some(missing) = missing else { return Ok(()) };
            if Instant::now() > end {
                let name = &ready[missing].name;
                let last_words = started.iter().find(|service| service.name() == name).map(Service::last_words);
                let last_words = last_words.unwrap_or_default();
                bail!("the service {name} does not listen on its port after {timeout:?} (--start-timeout){last_words}");
            }
            self.pause(started)?;
        }
    }

    fn pause(&self, started: &mut [Service]) -> Result<()> {
        let mut watched: Vec<BorrowedFd<'_>> = vec![self.guardian.pidfd()];
        watched.extend(started.iter_mut().map(Service::watched));
        let (signal, ready) = wait(self.signals, &watched, Some(PAUSE))?;
        if ready[0] {
            bail!(DEAD);
        }
        match signal {
            Some(received) if is_fatal(received.signal) => Err(Interrupted(received.signal).into()),
            _ => Ok(()),
        }
    }
}

/// IPv4-mapped addresses as IPv4 ones.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Services in one cgroup, or one in another's, would own each other's connections.
fn check_apart(cgroups: &[Cgroup]) -> Result<()> {
    for (place, one) in cgroups.iter().enumerate() {
        for other in &cgroups[..place] {
            if one.path().starts_with(other.path()) || other.path().starts_with(one.path()) {
                bail!(
                    "two of the services are in {}: their connections cannot be told apart. Give each a cgroup of its own",
                    one.path().display()
                );
            }
        }
    }
    Ok(())
}

const PAUSE: Duration = Duration::from_millis(20);
