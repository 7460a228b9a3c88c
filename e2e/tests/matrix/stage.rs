//! One engine and one service, and all cells against one choice of the service's listeners.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use carnet_e2e::Sandbox;
use carnet_policy::{HostAction, Match, Service};

use super::attempt::User;
use super::cell::{Bind, Cell, Family, Place};
use super::door::{Door, Doors};
use super::events::{self, Decided};
use super::judge::{self, Outcome, Who};
use super::model::{Fate, Hooks, fate};

/// The service listens everywhere; the policy says which of that is redirected to.
pub struct Stage {
    /// What became of all cells until now.
    pub tally: Tally,
    /// What was redirected until now.
    pub covered: Covered,
    sandbox: Sandbox,
    hooks: Hooks,
    user: User,
    servers: Doors,
    service: Doors,
    at: Place,
    families: &'static [Family],
    host: Option<HostAction>,
}

/// How many cells met which fate.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub redirected: usize,
    pub refused: usize,
    pub permitted: usize,
    pub blocked: usize,
    pub as_without: usize,
}

/// Destination, listener, and whether the socket was bound.
pub type Covered = BTreeSet<(Place, Place, bool)>;

impl Stage {
    pub fn new(hooks: Hooks, user: User, servers: Doors) -> Self {
        let mut sandbox = match hooks {
            Hooks::Both => Sandbox::new(),
            Hooks::Only(family) => Sandbox::with_programs_where(|program| family.has(program)),
        };
        let places: Vec<_> =
            Place::HERE.into_iter().flat_map(|place| Family::BOTH.map(|family| (family, place))).collect();
        let at = places.iter().map(|(family, place)| SocketAddr::new(place.ip(*family), 0).to_string());
        let at: Vec<_> = at.collect();
        let listeners =
            sandbox.service_at(Service::Aware, &at.iter().map(String::as_str).collect::<Vec<_>>()).listeners;
        let service = places.into_iter().zip(listeners.into_iter().map(Door::new)).collect();
        Self {
            tally: Tally::default(),
            covered: Covered::new(),
            sandbox,
            hooks,
            user,
            servers,
            service,
            at: Place::Loopback,
            families: &Family::BOTH,
            host: None,
        }
    }

    /// Has the host decide on all that a program sees.
    pub fn decide(&mut self, action: HostAction) {
        self.host = Some(action);
        self.sandbox.host_filter(Match::default(), action);
    }

    /// Has the service be redirected to at this place, by these families.
    pub fn listen(&mut self, at: Place, families: &'static [Family]) {
        (self.at, self.families) = (at, families);
        let listeners = families.iter().map(|&family| self.service[&(family, at)].address);
        self.sandbox.policy.providers[0].listeners = listeners.collect();
        self.sandbox.apply();
    }

    /// All connect; then each is looked at. Returns what is not as it must be.
    pub fn judge(&mut self, cells: &[(Cell, Outcome)]) -> Vec<String> {
        self.sandbox.events();
        let (cells, without): (Vec<_>, Vec<_>) = cells.iter().filter(|each| !self.is_known(each)).copied().unzip();
        let mut attempts = self.sandbox.in_app(|| self.user.connect(&cells, &self.servers));
        let who = Who { uid: self.user.uid(), cgroup: self.sandbox.app_cgroup().id() };
        let mut decided = Decided::default();
        let mut failures = Vec::new();
        let Self { sandbox, servers, service, tally, covered, .. } = self;
        let at = self.at;
        sandbox.in_service(0, || {
            for (attempt, without) in attempts.iter_mut().zip(&without) {
                let cell = attempt.cell;
                let result = match fate(cell, self.hooks, self.host, self.families) {
                    Fate::Redirected(family) => {
                        tally.redirected += 1;
                        covered.insert((cell.place, at, cell.bind != Bind::Implicit));
                        let listener = service.get_mut(&(family, at)).expect("it listens everywhere");
                        judge::redirected(attempt, listener, servers, &who).map(|flow| decided.redirected.push(flow))
                    }
                    Fate::Refused => {
                        tally.refused += 1;
                        decided.refused += 1;
                        judge::refused(attempt, libc::ECONNREFUSED)
                    }
                    Fate::Permitted => {
                        tally.permitted += 1;
                        decided.permitted += 1;
                        judge::as_without(attempt, servers, without)
                    }
                    Fate::Blocked => {
                        tally.blocked += 1;
                        decided.blocked += 1;
                        judge::refused(attempt, libc::EACCES)
                    }
                    Fate::AsWithout => {
                        tally.as_without += 1;
                        judge::as_without(attempt, servers, without)
                    }
                };
                failures.extend(result.err().map(|error| format!("{cell}: {error:#}")));
            }
        });
        let strangers = self.servers.values_mut().chain(self.service.values_mut()).map(Door::assert_no_stranger);
        failures.extend(strangers.filter_map(|result| result.err().map(|error| format!("{error:#}"))));
        failures.extend(events::judge(&self.sandbox.events(), &decided, &who).err().map(|error| format!("{error:#}")));
        let Self { hooks, user, at, families, host, .. } = self;
        let here = format!("{hooks:?}, {user:?}, the service at {at:?} by {families:?}, the host: {host:?}");
        failures.into_iter().map(|failure| format!("{here}: {failure}")).collect()
    }

    /// Whoever gets no answer takes a second, and where no program sees the socket no listener changes that. So it is
    /// tried with the first choice of listeners, and not again.
    fn is_known(&self, &(cell, without): &(Cell, Outcome)) -> bool {
        let fate = fate(cell, self.hooks, self.host, self.families);
        self.tally.as_without > 0 && fate == Fate::AsWithout && without == Err(libc::ETIMEDOUT)
    }
}
