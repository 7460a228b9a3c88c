//! How providers do, by what the kernel tells of their listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use carnet_control::{ProviderState, Stranger};
use carnet_engine::cgroup::Hierarchy;
use carnet_engine::{Listener, listeners_on, waiting_on};
use carnet_policy::{Owner, Policy, Provider};

use crate::run::outside::serves;

/// Who listens on the providers' ports now, in this network namespace.
#[derive(Debug, Default)]
pub struct Listening {
    found: Vec<Listener>,
    /// Cgroups by id, as far as they are to be seen: of the listeners and of the owners.
    cgroups: BTreeMap<u64, PathBuf>,
    /// Connections that nobody has accepted yet, by port.
    queues: BTreeMap<u16, BTreeSet<u64>>,
}

impl Listening {
    /// Asks the kernel.
    pub fn now(policy: &Policy, hierarchy: &Hierarchy) -> Result<Self> {
        let addresses = policy.providers.iter().flat_map(|provider| &provider.listeners);
        let ports: BTreeSet<u16> = addresses.map(SocketAddr::port).collect();
        let found = listeners_on(&ports.into_iter().collect::<Vec<_>>())?;
        let owners = policy.providers.iter().flat_map(|provider| &provider.owners);
        let ids = owners.filter_map(Owner::cgroup).chain(found.iter().map(|listener| listener.cgroup_id)).collect();
        let full = found.iter().filter(|listener| listener.waiting > 0).map(|listener| listener.address.port());
        let full: BTreeSet<u16> = full.collect();
        let queues = full.into_iter().map(|port| Ok((port, waiting_on(port)?))).collect::<Result<_>>()?;
        Ok(Self { cgroups: hierarchy.paths_of(&ids)?, found, queues })
    }

    /// Those that take connections to one of these addresses.
    pub fn at<'a>(&'a self, addresses: &'a [SocketAddr]) -> impl Iterator<Item = &'a Listener> {
        self.found.iter().filter(|listener| addresses.iter().any(|address| serves(listener, *address)))
    }

    /// Whether there is one with this inode.
    pub fn has(&self, inode: u32) -> bool {
        self.found.iter().any(|listener| listener.inode == inode)
    }

    /// The cgroup of one of these inodes' listeners that holds the governed one, if there is one.
    pub fn above(&self, inodes: &BTreeSet<u32>, governed: &Path) -> Option<&Path> {
        let theirs = self.found.iter().filter(|listener| inodes.contains(&listener.inode));
        let mut paths = theirs.filter_map(|listener| self.cgroups.get(&listener.cgroup_id));
        paths.find(|path| *path != governed && governed.starts_with(path)).map(PathBuf::as_path)
    }

    /// Those of a provider, and the others at its addresses. `marked` are the inodes of the listeners that were passed.
    fn of<'a>(&'a self, provider: &'a Provider, marked: &'a BTreeSet<u32>) -> (Vec<&'a Listener>, Vec<&'a Listener>) {
        self.at(&provider.listeners).partition(|listener| {
            marked.contains(&listener.inode) || provider.owners.iter().any(|owner| self.owns(owner, listener))
        })
    }

    fn stranger(&self, listener: &Listener) -> Stranger {
        let cgroup = self.cgroups.get(&listener.cgroup_id).map(|path| path.display().to_string());
        Stranger { address: listener.address, uid: listener.uid, cgroup, pid: None, program: None }
    }

    fn owns(&self, owner: &Owner, listener: &Listener) -> bool {
        match *owner {
            Owner::Uid(uid) => listener.uid == uid,
            Owner::Cgroup { id, .. } => {
                let path = |id| self.cgroups.get(&id);
                path(id).zip(path(listener.cgroup_id)).is_some_and(|(owner, own)| own.starts_with(owner))
            }
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

/// What was seen of every provider, look by look.
#[derive(Debug, Default)]
pub struct Health {
    seen: BTreeMap<String, Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    state: ProviderState,
    /// Connections in its queues.
    waiting: BTreeSet<u64>,
    /// Looks in a row in which none of those was accepted that had waited before.
    stuck: u32,
    stranger: Option<Stranger>,
}

/// A provider that does otherwise than at the look before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The provider.
    pub provider: String,
    /// How it does now.
    pub state: ProviderState,
    /// How it did. `None`: it is new.
    pub before: Option<ProviderState>,
    /// Who listens in its place.
    pub stranger: Option<Stranger>,
    /// For people.
    pub message: String,
}

impl Health {
    /// Looks again. `held` are names of providers whose listeners the daemon holds; `marked` inodes of passed listeners.
    pub fn look(
        &mut self,
        policy: &Policy,
        listening: &Listening,
        held: &BTreeSet<String>,
        marked: &BTreeSet<u32>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut now = BTreeMap::new();
        for provider in &policy.providers {
            let before = self.seen.get(&provider.name);
            let seen = look(provider, listening, before, held.contains(&provider.name), marked);
            if before.is_none_or(|before| before.state != seen.state) {
                changes.push(Change {
                    provider: provider.name.clone(),
                    state: seen.state,
                    before: before.map(|before| before.state),
                    stranger: seen.stranger.clone().filter(|_| seen.state == ProviderState::Stranger),
                    message: seen.message(provider),
                });
            }
            now.insert(provider.name.clone(), seen);
        }
        self.seen = now;
        changes
    }

    /// As it was at the last look.
    pub fn state(&self, provider: &str) -> ProviderState {
        self.seen.get(provider).map_or(ProviderState::Dead, |seen| seen.state)
    }

    /// Names of those that stand still.
    pub fn stopped(&self) -> BTreeSet<String> {
        let stopped = self.seen.iter().filter(|(_, seen)| seen.state == ProviderState::Stopped);
        stopped.map(|(name, _)| name.clone()).collect()
    }
}

fn look(
    provider: &Provider,
    listening: &Listening,
    before: Option<&Seen>,
    is_held: bool,
    marked: &BTreeSet<u32>,
) -> Seen {
    let (own, strangers) = listening.of(provider, marked);
    let queues = own.iter().filter_map(|listener| listening.queues.get(&listener.address.port()));
    let waiting: BTreeSet<u64> = queues.flatten().copied().collect();
    // A busy service has a full queue, too, but not the same one.
    let is_stuck = before.is_some_and(|before| !before.waiting.is_empty() && before.waiting.is_subset(&waiting));
    let stuck = if is_stuck { before.map_or(0, |before| before.stuck) + 1 } else { 0 };
    let state = match (own.is_empty(), strangers.is_empty()) {
        (false, _) if is_held => ProviderState::Held,
        (false, _) if stuck >= STUCK => ProviderState::Stopped,
        (false, _) => ProviderState::Alive,
        (true, false) => ProviderState::Stranger,
        (true, true) => ProviderState::Dead,
    };
    let stranger = strangers.first().map(|stranger| listening.stranger(stranger));
    Seen { state, waiting, stuck, stranger }
}

impl Seen {
    fn message(&self, provider: &Provider) -> String {
        let name = &provider.name;
        let listeners: Vec<_> = provider.listeners.iter().map(ToString::to_string).collect();
        let at = listeners.join(" or ");
        match (self.state, &self.stranger) {
            (ProviderState::Alive, _) => format!("{name} listens on {at}"),
            (ProviderState::Stranger, Some(Stranger { uid, address, .. })) => {
                format!("a process of uid {uid} that is not {name} listens on {address}; it gets no connection")
            }
            (ProviderState::Stopped, _) => {
                format!("{name} takes no connections: {} wait in its queue", self.waiting.len())
            }
            (ProviderState::Held, _) => format!("new connections wait for {name} to come back"),
            _ => format!("{name} does not listen on {at}"),
        }
    }
}

/// Looks in a row at a queue of which nothing is accepted, after which its service counts as stopped.
const STUCK: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use carnet_policy::testing::plain_provider;

    fn policy() -> Policy {
        let provider = Provider { name: "a".into(), owners: vec![Owner::Uid(7)], ..plain_provider(0) };
        let listeners = vec!["127.0.0.1:80".parse().unwrap()];
        Policy { providers: vec![Provider { listeners, ..provider }], ..Policy::default() }
    }

    /// With its uid and the first and last of the connections that wait.
    type At = (&'static str, u32, (u64, u64));

    const NOBODY: (u64, u64) = (1, 0);

    fn listening(all: &[At]) -> Listening {
        let found = all.iter().map(|&(at, uid, _)| {
            let mut listener = Listener::new(at.parse().unwrap());
            (listener.uid, listener.inode) = (uid, uid);
            listener
        });
        let queues = all.iter().map(|(_, _, (first, last))| (80, (*first..=*last).collect()));
        Listening { found: found.collect(), cgroups: BTreeMap::new(), queues: queues.collect() }
    }

    fn states(looks: &[&[At]], held: &[&str], marked: &[u32]) -> Vec<Option<ProviderState>> {
        let held = held.iter().map(ToString::to_string).collect();
        let marked = marked.iter().copied().collect();
        let mut health = Health::default();
        let mut look = |all: &&[At]| {
            let changes = health.look(&policy(), &listening(all), &held, &marked);
            changes.first().map(|change| change.state)
        };
        looks.iter().map(&mut look).collect()
    }

    #[test]
    fn states_are_by_who_listens() {
        use ProviderState::{Alive, Dead, Held, Stranger};
        let looks: [&[_]; 5] =
            [&[], &[("0.0.0.0:80", 7, NOBODY)], &[("127.0.0.1:80", 8, NOBODY)], &[("127.0.0.2:80", 7, NOBODY)], &[]];
        assert_eq!(states(&looks, &[], &[]), [Some(Dead), Some(Alive), Some(Stranger), Some(Dead), None]);
        assert_eq!(states(&looks[..2], &["a"], &[]), [Some(Dead), Some(Held)]);
        assert_eq!(states(&looks[2..3], &[], &[8]), [Some(Alive)], "a listener that was passed");
    }

    #[test]
    fn a_queue_of_which_nothing_is_accepted_is_a_stopped_services() {
        use ProviderState::{Alive, Stopped};
        let waits = |queue| [("127.0.0.1:80", 7, queue)];
        let looks = [waits((1, 1)), waits((1, 1)), waits((1, 2)), waits((1, 2)), waits((2, 2)), waits(NOBODY)];
        let looks: Vec<&[_]> = looks.iter().map(|look| &look[..]).collect();
        assert_eq!(states(&looks, &[], &[]), [Some(Alive), None, None, Some(Stopped), Some(Alive), None]);
    }

    #[test]
    fn a_busy_service_is_not_a_stopped_one() {
        let looks: Vec<_> = (1..20).map(|look| [("127.0.0.1:80", 7, (look * 10, look * 10 + 4000))]).collect();
        let looks: Vec<&[_]> = looks.iter().map(|look| &look[..]).collect();
        assert_eq!(states(&looks, &[], &[])[1..], [None; 18]);
    }
}
