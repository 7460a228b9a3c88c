//! What is in force, and the way from one policy to the next.
//!
//! `start` takes over or makes what is there at the beginning, `look` follows what the policy names from then on.

mod look;
mod start;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use carnet_control::{Access, Event, EventKind, Identities, Listener, ProviderState, SessionEnd, SessionId};
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::{Engine, EventReader, RouteWatch, pin};
use carnet_policy::file::Principal;
use carnet_policy::{Action, OnDead, Owner, Policy, Service};
use jiff::Timestamp;

use self::start::read_file;
use super::health::{Change, Health, Listening};
use super::held::Held;
use super::namespaces::Namespaces;
use super::news::News;
use super::places::{Places, Seen};
use super::policy::{Candidate, Files, Refused};
use super::programs::Programs;
use super::sessions::{Registration, Sessions};
use super::state::{PolicyText, SavedSession, State, StateFile};
use crate::control::status::contents;
use crate::host::ThisHost;
use crate::run::flows::Known;

/// Where the daemon is at work.
#[derive(Debug)]
pub struct Ground {
    /// The hierarchy of the governed cgroup.
    pub hierarchy: Hierarchy,
    /// The governed cgroup, as a directory.
    pub governed: PathBuf,
    /// The folder of the pins.
    pub pins: PathBuf,
    /// The folder of the state.
    pub state: PathBuf,
    /// The policy file.
    pub file: PathBuf,
}

/// One engine with its policy.
pub struct Core {
    engine: Engine,
    ground: Ground,
    governed: Cgroup,
    host: ThisHost,
    state_file: StateFile,
    state: State,
    candidate: Candidate,
    in_force: InForce,
    /// What of the policy is to be put in force did not come about, and is to be tried again.
    is_stale: bool,
    /// What was said last of what keeps the policy from following what it names.
    complaint: Option<String>,
    programs: Programs,
    health: Health,
    listening: Listening,
    /// Registrations.
    pub sessions: Sessions,
    /// Listeners that are kept for providers.
    pub held: Held,
    news: Arc<News>,
    key_made: Instant,
    began: Instant,
    /// Events that were lost by the last look.
    lost: u64,
    namespaces: Arc<Namespaces>,
    /// Cgroups whose programs nobody needs any more, and since when.
    unneeded: BTreeMap<u64, Instant>,
    _routes: Option<RouteWatch>,
    /// It was there when this process began.
    pub is_adopted: bool,
}

/// What the kernel has.
#[derive(Debug, Default)]
struct InForce {
    policy: Policy,
    generation: u64,
    since: Timestamp,
    places: Places,
}

impl Core {
    /// Puts a text in force. On an error the policy before stays.
    pub fn apply(&mut self, given: PolicyText, files: bool) -> Result<(), Refused> {
        let candidate = self.read(given, files)?;
        self.put_in_force(candidate, None)
    }

    /// What a text would be.
    pub fn read(&self, given: PolicyText, files: bool) -> Result<Candidate, Refused> {
        let files = if files { Files::Beside(&self.ground.file) } else { Files::Forbidden };
        let added = self.sessions.texts();
        Candidate::read(given, files, &added, &self.host, self.programs.kept()).map_err(|refused| match refused {
            Refused::Mistakes(mistakes) if mistakes.findings().iter().any(|one| is_of(&added, &one.place.file)) => {
                Refused::Conflict(format!(
                    "this policy does not go together with what products have registered: {}",
                    mistakes.findings().iter().map(|one| &one.what[..]).collect::<Vec<_>>().join("; ")
                ))
            }
            refused => refused,
        })
    }

    /// Reads the policy file again.
    pub fn reload(&mut self) -> Result<(), Refused> {
        let given = read_file(&self.ground.file)?;
        let file = given.text.clone();
        let candidate = self.read(given, true)?;
        let before = std::mem::replace(&mut self.state.file, file);
        if let Err(refused) = self.put_in_force(candidate, None) {
            self.state.file = before;
            self.write_state();
            return Err(refused);
        }
        self.tell_warnings();
        Ok(())
    }

    /// What is likely not meant, or not there yet, in the policy in force.
    fn tell_warnings(&self) {
        for finding in self.candidate.warnings(&self.host) {
            let (place, level) = (&finding.place, finding.level().name());
            self.news.warn(format!("{}:{}: {level}: {}", place.file, place.line, finding.what));
        }
    }

    /// Puts a registration in force.
    pub fn register(&mut self, registration: &Registration) -> Result<(), Refused> {
        let added = self.sessions.texts_with(registration);
        let candidate = self.candidate.with(&added, &self.host, self.programs.kept())?;
        self.put_in_force(candidate, Some(registration))
    }

    /// Takes a registration out of force, and what the daemon holds for it.
    pub fn end_session(&mut self, id: SessionId, end: SessionEnd) {
        let Some(session) = self.sessions.end(id, end, &self.held) else { return };
        for provider in &session.saved.providers {
            self.held.forget(provider);
        }
        self.is_over(id, &session.saved, "is over");
        self.follow_up();
    }

    /// The next policy is without it.
    fn is_over(&mut self, id: SessionId, session: &SavedSession, how: &str) {
        self.is_stale = true;
        if !session.marked.is_empty() {
            // Its listeners keep their marks: they must not be those of whoever comes by that name next.
            self.state.handles.retain(|name| !session.providers.iter().any(|own| own == name));
        }
        if self.state.handles.len() > MOST_NAMES {
            let policy = &self.in_force.policy;
            self.state.handles.retain(|name| policy.providers.iter().any(|provider| provider.name == name));
        }
        self.tell_session(
            EventKind::SessionEnded,
            id,
            format!("the session of {} {how}", session.providers.join(", ")),
        );
    }

    /// Listeners that are the provider's from now on, whoever has made them: its cgroup may be made again meanwhile.
    pub fn own(&mut self, provider: &str, listeners: &[Listener]) -> Result<()> {
        let Some(own) = self.in_force.policy.providers.iter().find(|own| own.name == provider) else { return Ok(()) };
        for listener in listeners {
            self.engine.own_listener(listener.as_fd(), own.handle)?;
            self.state.marked.insert(listener.inode() as u32);
        }
        self.write_state();
        Ok(())
    }

    /// Inodes of listeners that are their providers' by marks.
    fn marked(&self) -> BTreeSet<u32> {
        self.sessions.marked().union(&self.state.marked).copied().collect()
    }

    /// What cannot be written is said, and is written with the next policy.
    fn write_state(&self) {
        if let Err(error) = self.state_file.write(&self.state) {
            self.news.warn(format!("{error:#}"));
        }
    }

    fn tell_change(&self, kind: EventKind, change: &Change) {
        let mut event = self.news.event(kind, change.message.clone());
        event.provider = Some(change.provider.clone());
        event.state = Some(change.state);
        event.stranger.clone_from(&change.stranger);
        self.send(event);
    }

    /// About a session.
    pub fn tell_session(&self, kind: EventKind, session: SessionId, message: String) {
        self.send(Event { session: Some(session), ..self.news.event(kind, message) });
    }

    /// About a provider.
    pub fn tell_provider(&self, kind: EventKind, provider: &str, state: ProviderState, message: String) {
        self.send(Event { provider: Some(provider.into()), state: Some(state), ..self.news.event(kind, message) });
    }

    /// To those who follow events, and to the session that it is about.
    fn send(&self, event: Event) {
        let event = Arc::new(event);
        self.sessions.tell(&event);
        self.news.send(event);
    }

    /// As it is to be in force: with handles, and past a service that stands still, where it is to be passed by. As where
    /// it is dead, what it would redirect goes to the next one, and what it blocks stays blocked.
    fn effective(&mut self, candidate: &Candidate) -> Policy {
        let mut policy = candidate.resolved.policy.clone();
        self.state.handles.give(&mut policy);
        let stopped = self.health.stopped();
        for provider in policy.providers.iter_mut() {
            if provider.on_dead == OnDead::Open && stopped.contains(&provider.name) {
                let filters = provider.filters.iter_mut();
                let redirects = filters.filter(|filter| matches!(filter.action, Action::Redirect { .. }));
                redirects.for_each(|filter| filter.action = Action::Skip);
            }
        }
        policy
    }

    fn put_in_force(&mut self, candidate: Candidate, registration: Option<&Registration>) -> Result<(), Refused> {
        let policy = self.effective(&candidate);
        let generation = self.in_force.generation + 1;
        let image = candidate.compile(policy.clone(), generation)?;
        let listening = Listening::now(&policy, &self.ground.hierarchy)?;
        if let Some(registration) = registration
            && !registration.marked().iter().all(|inode| listening.has(*inode))
        {
            let what = "a listener was passed that is in another network namespace than the daemon: listen in this one";
            return Err(Refused::Conflict(what.into()));
        }
        if let Some(above) = registration.and_then(|own| listening.above(own.marked(), &self.ground.governed)) {
            let what = format!(
                "a listener was passed that was made in {}, which holds what is governed, too, so that it would get no \
                 records: make it in a cgroup of its own",
                above.display()
            );
            return Err(Refused::Conflict(what));
        }
        let marked = &mut self.marked();
        marked.extend(registration.iter().flat_map(|registration| registration.marked().iter().copied()));
        let seen = Seen { listening: &listening, marked };
        let Ground { hierarchy, governed, .. } = &self.ground;
        let (places, _) = Places::of(&policy, seen, &self.in_force.places, hierarchy, governed)?;
        // Services can ask before they get the first connection, and as long as they may have one.
        if self.is_at_work() {
            places.attach(&mut self.engine, hierarchy)?;
        }
        // Before it is in force: whoever adopts the engine then knows whose the handles are.
        let saved = self.save(&candidate, registration)?;
        let done = self.mark(&policy, registration).and_then(|()| self.engine.apply(&image));
        if let Err(error) = done {
            for listener in registration.iter().flat_map(|own| &own.listeners).flat_map(|(_, listeners)| listeners) {
                let _ = self.engine.disown_listener(listener.as_fd());
            }
            self.state = saved;
            self.write_state();
            return Err(error.into());
        }
        self.listening = listening;
        self.in_force = InForce { policy, generation, since: Timestamp::now(), places };
        self.candidate = candidate;
        self.is_stale = false;
        self.note_replaced();
        let summary = self.candidate.summary(generation, None);
        let (contents, source) = (contents(&summary), &summary.source);
        let what = format!("policy {generation} is in force: {contents}, from {source}");
        self.news.tell(EventKind::Policy, what);
        if self.is_at_work()
            && let Err(error) = self.attach_services()
        {
            self.news.warn(crate::one_line(&error));
        }
        Ok(())
    }

    fn mark(&self, policy: &Policy, registration: Option<&Registration>) -> Result<(), carnet_engine::Error> {
        for (name, listeners) in registration.iter().flat_map(|registration| &registration.listeners) {
            let Some(provider) = policy.providers.iter().find(|provider| provider.name == *name) else { continue };
            for listener in listeners {
                self.engine.own_listener(listener.as_fd(), provider.handle)?;
            }
        }
        Ok(())
    }

    fn is_at_work(&self) -> bool {
        self.engine.attachments().next().is_some()
    }

    fn note_replaced(&mut self) {
        for path in self.programs.follow(&self.candidate.resolved, &self.candidate.kept) {
            let what = format!("{path} is another file now; processes that run the one before count as it, too");
            self.news.tell(EventKind::Replaced, what);
        }
        let programs = self.programs.saved();
        if programs != self.state.programs {
            self.state.programs = programs;
            self.write_state();
        }
    }

    /// Returns the state as it was.
    fn save(&mut self, candidate: &Candidate, registration: Option<&Registration>) -> Result<State> {
        let sessions = self.sessions.saved(registration);
        let next = State { policy: candidate.given.clone(), sessions, ..self.state.clone() };
        self.state_file.write(&next)?;
        Ok(std::mem::replace(&mut self.state, next))
    }

    /// Takes everything out of the kernel.
    pub fn down(self) -> Result<pin::Removed> {
        let pins = &self.ground.pins;
        // Half of it must not be left behind.
        let removed = self.engine.take_down().or_else(|error| match pin::remove(pins) {
            Ok(Some(removed)) => Ok(removed),
            _ => Err(error),
        })?;
        self.state_file.remove()?;
        Ok(removed)
    }

    /// Who may do what.
    pub fn access(&self) -> Access {
        let control = &self.candidate.resolved.control;
        let identities = |principals: &[Principal]| {
            let mut identities = Identities::default();
            for principal in principals {
                match *principal {
                    Principal::Uid(uid) => _ = identities.uids.insert(uid),
                    Principal::Gid(gid) => _ = identities.gids.insert(gid),
                    _ => {}
                }
            }
            identities
        };
        Access {
            read: identities(&control.read),
            register: identities(&control.register),
            administer: identities(&control.administer),
        }
    }

    /// Services by their handles.
    pub fn known(&self) -> HashMap<u32, Known> {
        let known = |provider: &carnet_policy::Provider| {
            let unaware = provider.service == Service::Unaware;
            (provider.handle, Known { name: provider.name.clone(), unaware })
        };
        self.in_force.policy.providers.iter().map(known).collect()
    }

    /// Whether a policy could be put in force, as far as that can be told without the kernel.
    pub fn try_out(&mut self, candidate: &Candidate) -> Result<(), Refused> {
        let policy = self.effective(candidate);
        candidate.compile(policy, self.in_force.generation + 1).map(drop)
    }

    /// A rank that nobody has and nobody is behind.
    pub fn next_rank(&self) -> u16 {
        let highest = self.in_force.policy.providers.iter().map(|provider| provider.rank).max();
        highest.map_or(10, |highest| highest.saturating_add(10))
    }

    /// The rank of a provider that this user's product comes back with.
    pub fn former_rank(&self, provider: &str, uid: u32) -> Option<u16> {
        let own = self.in_force.policy.providers.iter().find(|own| own.name == provider)?;
        self.sessions.is_awaited(provider, uid).then_some(own.rank)
    }

    /// Directories of the owners' cgroups, by their ids.
    pub fn cgroups(&self) -> Result<BTreeMap<u64, PathBuf>> {
        let owners = self.in_force.policy.providers.iter().flat_map(|provider| &provider.owners);
        Ok(self.ground.hierarchy.paths_of(&owners.filter_map(Owner::cgroup).collect())?)
    }

    /// Where it is at work.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Reads the kernel's events.
    pub fn events(&self) -> Result<EventReader> {
        Ok(self.engine.events()?)
    }

    /// The engine's counters and identity.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The policy in force as the kernel has it.
    pub fn policy(&self) -> &Policy {
        &self.in_force.policy
    }

    /// The policy in force as it was given.
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// The number of the policy in force, and since when it is.
    pub fn generation(&self) -> (u64, Timestamp) {
        (self.in_force.generation, self.in_force.since)
    }

    /// How providers do.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Who listened at the last look.
    pub fn listening(&self) -> &Listening {
        &self.listening
    }

    /// This host.
    pub fn host(&self) -> &ThisHost {
        &self.host
    }
}

fn is_of(added: &[(String, String)], file: &str) -> bool {
    added.iter().any(|(name, _)| name == file)
}

/// Names of providers that are remembered with their handles, beside those in force.
const MOST_NAMES: usize = 4096;
