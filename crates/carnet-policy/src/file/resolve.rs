//! From names to what they are on a host.

use std::collections::HashSet;
use std::ops::Range;

use toml::Spanned;

use crate::file::conditions::Names;
use crate::file::control::{ControlEntry, Principal, PrincipalEntry};
use crate::file::entry::{FilterEntry, OwnerEntry, ProviderEntry};
use crate::file::finding::{Finding, Id};
use crate::file::resolve::lookup::{Lookup, Program, Said, Sense};
use crate::file::{Control, Host, Mistakes, PolicyFile};
use crate::{Action, Condition, Executable, Filter, FilterRef, HostAction, HostFilter, Match, Owner, Policy, Provider};

mod lookup;

/// A policy file on a host.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Handles count from 1 in the order of the file; a daemon gives its own: [`Handles`](crate::Handles).
    pub policy: Policy,
    /// Who may do what over the control socket.
    pub control: Control,
    /// What is not there (yet), and what was not looked up.
    pub notes: Vec<Finding>,
    /// Users and groups that are named and could not be asked for, so that it is not known what conditions on them
    /// should hold for. The policy leaves them out, as it does what does not exist: it should not be put in force in
    /// the place of one that knows them. Notes have them, too.
    pub unasked: Vec<Finding>,
    /// Providers of the policy none of whose owners is there: nobody listens for them.
    pub dead: Vec<usize>,
    /// What is named and can become another thing, or come, or go.
    pub watched: Watched,
    /// Programs that are there, and where they are named first.
    pub(super) programs: Vec<Program>,
    /// Filters that hold for nothing until something that they name is there.
    pub(super) waiting: HashSet<FilterRef>,
    /// Conditions that except nothing until something that they name is there.
    pub(super) unexcepted: Vec<Unexcepted>,
}

/// A `not-` condition none of whose values is there.
#[derive(Clone, Debug)]
pub(super) struct Unexcepted {
    pub filter: FilterRef,
    pub key: &'static str,
    /// Of its first value.
    pub span: Range<usize>,
}

/// What a policy names, by its name, and what it was found to be: `None` where nothing was. In the order of the names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Watched {
    /// Programs by their paths.
    pub executables: Vec<(String, Option<Executable>)>,
    /// Ids of cgroups by their paths below the root cgroup.
    pub cgroups: Vec<(String, Option<u64>)>,
    /// Cookies of network namespaces.
    pub netns: Vec<(String, Option<u64>)>,
}

impl Resolved {
    /// The programs that were found at the paths that are named.
    pub fn executables(&self) -> impl Iterator<Item = (&str, Executable)> {
        self.watched.executables.iter().filter_map(|(path, found)| Some((&**path, (*found)?)))
    }
}

impl PolicyFile {
    /// Looks everything up that the file names. What is not there (yet) is a note, and conditions on it hold for
    /// nothing; a user or group that does not exist is a mistake.
    pub fn resolve(&self, host: &dyn Host) -> Result<Resolved, Mistakes> {
        self.resolve_keeping(host, &[])
    }

    /// The same, where these programs are what is meant by these paths, too: they were there, others have taken their
    /// places, and processes still run them.
    pub fn resolve_keeping(&self, host: &dyn Host, kept: &[(String, Executable)]) -> Result<Resolved, Mistakes> {
        let (resolved, mistakes) = self.resolve_all(host, kept);
        Mistakes::of(mistakes, self.texts.name()).map_or(Ok(resolved), Err)
    }

    pub(super) fn resolve_all(&self, host: &dyn Host, kept: &[(String, Executable)]) -> (Resolved, Vec<Finding>) {
        let lookup = Lookup::new(host, &self.texts, kept);
        let mut resolver = Resolver { file: self, lookup, waiting: HashSet::new(), unexcepted: Vec::new() };
        let mut dead = Vec::new();
        let mut providers = Vec::new();
        for (at, entry) in self.providers.iter().enumerate() {
            let (provider, is_dead) = resolver.provider(at, entry);
            providers.push(provider);
            if is_dead {
                dead.push(at);
            }
        }
        let filters = self.filters.iter().enumerate().map(|(at, entry)| resolver.host_filter(at, entry)).collect();
        let policy =
            Policy { default: self.default, providers, filters, block_quic: self.block_quic, strict: self.strict };
        let control = resolver.control(&self.control);
        let Resolver { lookup, waiting, unexcepted, .. } = resolver;
        let Said { mut mistakes, notes, unasked, watched, programs } = lookup.finish();
        mistakes.extend(self.locate_mistakes(&policy));
        (Resolved { policy, control, notes, unasked, dead, watched, programs, waiting, unexcepted }, mistakes)
    }
}

struct Resolver<'f> {
    file: &'f PolicyFile,
    lookup: Lookup<'f>,
    waiting: HashSet<FilterRef>,
    unexcepted: Vec<Unexcepted>,
}

impl Resolver<'_> {
    /// Also whether nobody can be it now.
    fn provider(&mut self, at: usize, entry: &ProviderEntry) -> (Provider, bool) {
        let mut is_there = false;
        let entries = entry.owners.as_ref().map_or(&[][..], |owners| owners.get_ref());
        let owners: Vec<_> = (entries.iter().enumerate())
            .map(|(number, owner)| {
                let found = self.owner(owner);
                is_there |= !matches!(found, Found::No);
                match found {
                    Found::Is(owner) => owner,
                    // A place in the list that nobody has: the kernel counts ids of cgroups up from 1.
                    Found::No | Found::Unknown => {
                        Owner::Cgroup { id: u64::MAX - ((at as u64) << 32) - number as u64, level: 1 }
                    }
                }
            })
            .collect();
        let is_dead = !owners.is_empty() && !is_there;
        let name = entry.name.as_ref().map_or_else(String::new, |name| name.get_ref().clone());
        if is_dead {
            let what = format!("provider {name:?} is dead as long as none of its owners is there");
            self.lookup.note(Id::NoOwner, entry.name_span(), what, "");
        }
        let filters = entry.filters.iter().enumerate();
        let filters =
            filters.map(|(filter, entry)| self.filter(FilterRef::Provider { provider: at, filter }, entry)).collect();
        let provider = Provider {
            name,
            handle: at as u32 + 1,
            rank: entry.rank.as_ref().map_or_else(|| self.free_rank(at), |rank| *rank.get_ref()),
            service: entry.service,
            on_dead: entry.on_dead,
            direct: entry.direct,
            reach: entry.reach,
            sockname: entry.sockname,
            owners,
            listeners: (entry.listeners.as_ref())
                .map_or_else(Vec::new, |all| all.get_ref().iter().map(|listener| *listener.get_ref()).collect()),
            in_flight_limit: entry.in_flight_limit,
            filters,
        };
        (provider, is_dead)
    }

    fn owner(&mut self, owner: &Spanned<OwnerEntry>) -> Found<Owner> {
        match owner.get_ref() {
            OwnerEntry::User(user) => match self.lookup.users(user, owner.span()) {
                Some(uids) => Found::Is(Owner::Uid(*uids.start())),
                // Such a user is a mistake, or was not looked up.
                None => Found::Unknown,
            },
            OwnerEntry::Cgroup(path) if path == "/" => Found::Is(Owner::Cgroup { id: 1, level: 0 }),
            OwnerEntry::Cgroup(path) => match self.lookup.cgroup(path, owner.span(), Sense::Only) {
                Found::Is(at) => Found::Is(Owner::Cgroup { id: at.id, level: at.level }),
                Found::No => Found::No,
                Found::Unknown => Found::Unknown,
            },
        }
    }

    fn filter(&mut self, place: FilterRef, entry: &FilterEntry<Action>) -> Filter {
        Filter {
            name: entry.name.as_ref().map_or_else(String::new, |name| name.get_ref().clone()),
            weight: entry.weight,
            matches: self.matches(place, entry),
            action: entry.action.clone().unwrap_or(Action::Skip),
        }
    }

    fn host_filter(&mut self, at: usize, entry: &FilterEntry<HostAction>) -> HostFilter {
        HostFilter {
            name: entry.name.as_ref().map_or_else(String::new, |name| name.get_ref().clone()),
            weight: entry.weight,
            matches: self.matches(FilterRef::Host(at), entry),
            action: entry.action.unwrap_or(HostAction::Permit),
        }
    }

    fn matches<A>(&mut self, place: FilterRef, entry: &FilterEntry<A>) -> Match {
        let conditions = &entry.conditions;
        let mut waits = false;
        let lookup = &mut self.lookup;
        let uids = condition(&conditions.uids, &mut waits, |user, _| lookup.users(user.get_ref(), user.span()));
        let gids = condition(&conditions.gids, &mut waits, |group, _| lookup.groups(group.get_ref(), group.span()));
        let exes = condition(&conditions.exes, &mut waits, |path, sense| {
            lookup.executable(path.get_ref(), path.span(), sense)
        });
        let cgroups = condition(&conditions.cgroups, &mut waits, |path, sense| {
            match lookup.cgroup(path.get_ref(), path.span(), sense) {
                Found::Is(at) => Some(at.line),
                Found::No | Found::Unknown => None,
            }
        });
        let netns =
            condition(&conditions.netns, &mut waits, |name, sense| lookup.netns(name.get_ref(), name.span(), sense));
        // A provider that does not exist has been told.
        let via = condition(&conditions.via, &mut waits, |via, _| self.file.provider_named(via.get_ref()));
        if waits {
            self.waiting.insert(place);
        }
        let missing = [
            ("not-exe", Id::NoExecutable, &conditions.exes),
            ("not-cgroup", Id::NoCgroup, &conditions.cgroups),
            ("not-netns", Id::NoNetns, &conditions.netns),
        ];
        for (key, kind, names) in missing {
            let names = &names.except;
            if let Some(first) = names.first()
                && names.iter().all(|name| self.lookup.lacks(kind, name.get_ref()))
            {
                self.unexcepted.push(Unexcepted { filter: place, key, span: first.span() });
            }
        }
        Match {
            protocol: conditions.protocol,
            remote: conditions.remote.clone(),
            ports: conditions.ports.clone(),
            uids,
            gids,
            exes,
            cgroups,
            netns,
            via,
        }
    }

    fn control(&mut self, entry: &ControlEntry) -> Control {
        let mut all = |entries: &Option<Vec<Spanned<PrincipalEntry>>>, default: Vec<Principal>| {
            let Some(entries) = entries else { return default };
            let lookup = &mut self.lookup;
            let found = entries.iter().filter_map(|entry| match entry.get_ref() {
                PrincipalEntry::User(user) => Some(Principal::Uid(*lookup.users(user, entry.span())?.start())),
                PrincipalEntry::Group(group) => Some(Principal::Gid(*lookup.groups(group, entry.span())?.start())),
            });
            found.collect()
        };
        let default = Control::default();
        Control {
            read: all(&entry.read, default.read),
            register: all(&entry.register, default.register),
            administer: all(&entry.administer, default.administer),
        }
    }

    /// For a provider without one, so that what is said of the others is true.
    fn free_rank(&self, at: usize) -> u16 {
        let taken = |rank: &u16| {
            self.file.providers.iter().any(|entry| entry.rank.as_ref().is_some_and(|own| own.get_ref() == rank))
        };
        let free = (0..=u16::MAX).rev().filter(|rank| !taken(rank));
        free.into_iter().nth(at).unwrap_or_default()
    }
}

impl PolicyFile {
    pub(super) fn provider_named(&self, name: &str) -> Option<usize> {
        self.providers.iter().position(|entry| entry.name.as_ref().is_some_and(|own| own.get_ref() == name))
    }
}

/// The condition on what the names stand for; `waits` where it would hold for something if all were there.
fn condition<T, U, F: IntoIterator<Item = U>>(
    names: &Names<T>,
    waits: &mut bool,
    mut look_up: impl FnMut(&Spanned<T>, Sense) -> F,
) -> Condition<U> {
    let only = names.only.as_ref().map(|names| {
        let found: Vec<_> = names.iter().flat_map(|name| look_up(name, Sense::Only)).collect();
        *waits |= found.is_empty() && !names.is_empty();
        vec![found.into()]
    });
    let except: Vec<_> = names.except.iter().flat_map(|name| look_up(name, Sense::Except)).collect();
    Condition { only, except: if except.is_empty() { Vec::new() } else { vec![except.into()] } }
}

/// What has come of looking something up.
#[derive(Clone, Copy, Debug)]
enum Found<T> {
    Is(T),
    No,
    /// It was not looked up, or what is wrong has been told.
    Unknown,
}
