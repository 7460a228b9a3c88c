//! To which cgroups programs are attached: the governed one, and those in which services are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use carnet_engine::Engine;
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_policy::{Owner, Policy};

use super::health::Listening;

/// Cgroups that hold services.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Places {
    /// Outermost ones only, and whether each is in the governed one.
    outermost: BTreeMap<PathBuf, bool>,
    /// Ids of those in which a provider's listeners have been seen that none of its cgroups tells.
    seen: BTreeMap<String, BTreeSet<u64>>,
}

/// What places are found by.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Who listens now.
    pub listening: &'a Listening,
    /// Inodes of listeners that were passed.
    pub marked: &'a BTreeSet<u32>,
}

impl Places {
    /// Of all providers' owners. A uid owns no cgroup: where it listens is asked of the kernel, and so it is of listeners
    /// that were passed. Where they have been seen `before` stays theirs as long as there is such a provider: a service
    /// that listens again gets connections at once.
    ///
    /// Also returns cgroups in which services are and which hold the governed one too: nothing is attached there, since
    /// that would be wider than asked.
    pub fn of(
        policy: &Policy,
        seen: Seen,
        before: &Self,
        hierarchy: &Hierarchy,
        governed: &Path,
    ) -> Result<(Self, Vec<PathBuf>)> {
        let mut ids = BTreeSet::new();
        let mut seen_now = BTreeMap::<String, BTreeSet<u64>>::new();
        for provider in &policy.providers {
            ids.extend(provider.owners.iter().filter_map(Owner::cgroup));
            let is_owner = |uid| provider.owners.contains(&Owner::Uid(uid));
            let at = seen.listening.at(&provider.listeners);
            let at = at.filter(|listener| is_owner(listener.uid) || seen.marked.contains(&listener.inode));
            let mut own: BTreeSet<u64> = at.map(|listener| listener.cgroup_id).collect();
            own.extend(before.seen.get(&provider.name).into_iter().flatten());
            ids.extend(&own);
            seen_now.insert(provider.name.clone(), own);
        }
        let paths = hierarchy.paths_of(&ids)?;
        seen_now.values_mut().for_each(|own| own.retain(|id| paths.contains_key(id)));
        let (above, places): (Vec<_>, Vec<_>) =
            paths.into_values().partition(|path| path != governed && governed.starts_with(path));
        Ok((Self { outermost: outermost(places, governed), seen: seen_now }, above))
    }

    /// Attaches what is not attached yet. One that has gone meanwhile is left out: its service has gone with it.
    pub fn attach(&self, engine: &mut Engine, hierarchy: &Hierarchy) -> Result<()> {
        for (path, is_inside) in &self.outermost {
            let Ok(cgroup) = Cgroup::open(hierarchy, path) else { continue };
            match is_inside {
                true => engine.attach_services(&cgroup)?,
                false => engine.attach_outside_service(&cgroup)?,
            }
        }
        Ok(())
    }

    /// Takes programs off cgroups that have been neither among these nor the governed one for a while: what is on its way
    /// to a service has to arrive, and what it has accepted to go on. Those that are not to be seen stay as they are: they
    /// have been removed, and programs are at work on them as long as there are sockets of theirs.
    ///
    /// `unneeded` is since when each has not been needed.
    pub fn detach_others(
        &self,
        engine: &mut Engine,
        hierarchy: &Hierarchy,
        governed: u64,
        unneeded: &mut BTreeMap<u64, Instant>,
    ) -> Result<()> {
        engine.forget_removed()?;
        let there: BTreeSet<u64> = engine.attachments().map(|at| at.cgroup).filter(|id| *id != governed).collect();
        let paths = hierarchy.paths_of(&there)?;
        unneeded.retain(|cgroup, _| paths.get(cgroup).is_some_and(|path| !self.outermost.contains_key(path)));
        for (cgroup, path) in paths {
            match self.outermost.get(&path) {
                None if unneeded.entry(cgroup).or_insert_with(Instant::now).elapsed() < LINGERING => {}
                None => _ = engine.detach(cgroup)?,
                // It was outside before.
                Some(true) => _ = engine.narrow_to_services(cgroup)?,
                Some(false) => {}
            }
        }
        Ok(())
    }
}

fn outermost(mut all: Vec<PathBuf>, governed: &Path) -> BTreeMap<PathBuf, bool> {
    all.sort();
    let mut places = BTreeMap::new();
    for path in all {
        if !places.keys().any(|above: &PathBuf| path.starts_with(above)) {
            let is_inside = path.starts_with(governed);
            places.insert(path, is_inside);
        }
    }
    places
}

/// As long as a records blob may be set after it was queried.
const LINGERING: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_cgroups_are_one_place() {
        let path = |path: &str| PathBuf::from("/cgroup").join(path);
        let all = ["a/b", "a", "c/d", "a/bc", "cd"].map(path).to_vec();
        let places = outermost(all, &path("c"));
        let expected = [("a", false), ("c/d", true), ("cd", false)];
        assert_eq!(places, expected.map(|(at, is_inside)| (path(at), is_inside)).into());
    }
}
