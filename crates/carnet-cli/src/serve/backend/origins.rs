//! Whose flows a session is told of beside those that its providers have had.

use std::collections::HashMap;
use std::path::PathBuf;

use carnet_engine::cgroup::Hierarchy;

/// Applications in some cgroups and below.
pub struct Origins {
    cgroups: Vec<PathBuf>,
    hierarchy: Hierarchy,
    /// By the ids of cgroups, as far as they have been asked for.
    known: HashMap<u64, bool>,
}

impl Origins {
    /// `cgroups` as policies name them.
    pub fn below(cgroups: Vec<String>, hierarchy: Hierarchy) -> Self {
        let path = |name: String| hierarchy.mount().join(name.trim_start_matches('/'));
        Self { cgroups: cgroups.into_iter().map(path).collect(), hierarchy, known: HashMap::new() }
    }

    /// Whether this cgroup is one of them. One that has gone before it is asked for is not.
    pub fn has(&mut self, id: u64) -> bool {
        if self.cgroups.is_empty() {
            return false;
        }
        if self.known.len() > MOST_KNOWN {
            self.known.clear();
        }
        *self.known.entry(id).or_insert_with(|| {
            let path = self.hierarchy.find_by_id(id);
            path.is_some_and(|path| self.cgroups.iter().any(|cgroup| path.starts_with(cgroup)))
        })
    }
}

const MOST_KNOWN: usize = 4096;
