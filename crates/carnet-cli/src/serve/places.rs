//! To which cgroups programs are attached: the governed one, and those in which services are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use carnet_engine::Engine;
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_policy::{Owner, Policy};

use super::health::Listening;

/// Cgroups that hold services, outermost ones only, and whether each is in the governed one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Places(BTreeMap<PathBuf, bool>);

impl Places {
    /// Of all providers' owners. A uid owns no cgroup: where it listens is asked of the kernel, and so it is of listeners
    /// that were passed, whose inodes are `marked`.
    ///
    /// Also returns cgroups in which services are and which hold the governed one too: nothing is attached there, since
    /// that would be wider than asked.
    pub fn of(
        policy: &Policy,
        listening: &Listening,
        marked: &BTreeSet<u32>,
        hierarchy: &Hierarchy,
        governed: &Path,
    ) -> (Self, Vec<PathBuf>) {
        let mut ids = BTreeSet::new();
        for provider in &policy.providers {
            let at = listening.at(&provider.listeners);
            ids.extend(at.filter(|listener| marked.contains(&listener.inode)).map(|listener| listener.cgroup_id));
            for owner in &provider.owners {
                match *owner {
                    Owner::Cgroup { id, .. } => {
                        ids.insert(id);
                    }
                    Owner::Uid(uid) => {
                        let at = listening.at(&provider.listeners);
                        ids.extend(at.filter(|listener| listener.uid == uid).map(|listener| listener.cgroup_id));
                    }
                    // Those to come.
                    #[allow(unreachable_patterns)]
                    _ => {}
                }
            }
        }
        let (above, places): (Vec<_>, Vec<_>) =
            (hierarchy.paths_of(&ids).into_values()).partition(|path| path != governed && governed.starts_with(path));
        (Self::outermost(places, governed), above)
    }

    fn outermost(mut all: Vec<PathBuf>, governed: &Path) -> Self {
        all.sort();
        let mut places = BTreeMap::new();
        for path in all {
            if !places.keys().any(|above: &PathBuf| path.starts_with(above)) {
                let is_inside = path.starts_with(governed);
                places.insert(path, is_inside);
            }
        }
        Self(places)
    }

    /// Attaches what is not attached yet. One that has gone meanwhile is left out: its service has gone with it.
    pub fn attach(&self, engine: &mut Engine, hierarchy: &Hierarchy) -> Result<()> {
        for (path, is_inside) in &self.0 {
            let Ok(cgroup) = Cgroup::open(hierarchy, path) else { continue };
            match is_inside {
                true => engine.attach_services(&cgroup)?,
                false => engine.attach_outside_service(&cgroup)?,
            }
        }
        Ok(())
    }

    /// Takes programs off cgroups that are neither among these nor the governed one.
    pub fn detach_others(&self, engine: &mut Engine, hierarchy: &Hierarchy, governed: u64) -> Result<()> {
        let mut kept = BTreeSet::from([governed]);
        for path in self.0.keys() {
            kept.extend(Cgroup::open(hierarchy, path).map(|cgroup| cgroup.id()));
        }
        let there: BTreeSet<u64> = engine.attachments().map(|at| at.cgroup).collect();
        for &cgroup in there.difference(&kept) {
            engine.detach(cgroup)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_cgroups_are_one_place() {
        let path = |path: &str| PathBuf::from("/cgroup").join(path);
        let all = ["a/b", "a", "c/d", "a/bc", "cd"].map(path).to_vec();
        let places = Places::outermost(all, &path("c"));
        let expected = [("a", false), ("c/d", true), ("cd", false)];
        assert_eq!(places, Places(expected.map(|(at, is_inside)| (path(at), is_inside)).into()));
    }
}
