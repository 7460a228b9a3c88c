//! The run's cgroups: what they are called, who is in which, and what earlier runs have left.
//!
//! ```text
//! <mount>/carnet.run-<pid>-<start time>-<pid namespace>/
//!     app/            the command
//!     services/0, 1   what the command goes through
//! ```

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use carnet_engine::cgroup::{Cgroup, Hierarchy, remove_tree};

/// The cgroups of this run.
pub struct Place {
    /// Everything of the run is in it.
    pub root: Cgroup,
    /// The command.
    pub app: Cgroup,
    /// All services that are started.
    pub services: Cgroup,
}

impl Place {
    /// Makes the cgroup `name` and those in it. The guardian knows the name by now.
    pub fn create(hierarchy: &Hierarchy, name: &Name) -> Result<Self> {
        let root = Cgroup::create(hierarchy, &name.to_string())?;
        let app = root.child("app")?;
        let services = root.child("services")?;
        Ok(Self { root, app, services })
    }
}

/// The name of a run's cgroup says whose it is, so that it can be seen whether that process is still there. The pid
/// namespace is in it because hierarchies are shared with containers, where numbers mean other processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Name {
    pid: u32,
    /// Clock ticks since boot.
    start_time: u64,
    pid_namespace: u64,
}

impl Name {
    /// Of the run of the calling process.
    pub fn own() -> Result<Self> {
        let pid = std::process::id();
        let start_time = start_time(pid).context("cannot read /proc/self/stat")?;
        let pid_namespace = fs::metadata("/proc/self/ns/pid").context("cannot read /proc/self/ns/pid")?.ino();
        Ok(Self { pid, start_time, pid_namespace })
    }

    fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.strip_prefix(PREFIX)?.split('-');
        let name = Self {
            pid: numbers.next()?.parse().ok()?,
            start_time: numbers.next()?.parse().ok()?,
            pid_namespace: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", self.pid, self.start_time, self.pid_namespace)
    }
}

/// Ends and removes what runs have left whose `carnet run` and guardian were both killed. Returns what could not be.
pub fn sweep(hierarchy: &Hierarchy, own: &Name) -> Vec<anyhow::Error> {
    let Ok(entries) = fs::read_dir(hierarchy.mount()) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    let left = names
        .filter_map(|name| Name::parse(name.to_str()?))
        .filter(|name| name.pid_namespace == own.pid_namespace && start_time(name.pid) != Some(name.start_time));
    let remove = |name: Name| remove_tree(&hierarchy.mount().join(name.to_string()), SWEEP_DEADLINE).err();
    left.filter_map(remove)
        .map(|error| anyhow::Error::new(error).context("cannot remove what an earlier run has left"))
        .collect()
}

/// Clock ticks from boot to the start of a process. `None`: there is none.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have anything in it, parentheses and spaces too.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(START_TIME_AFTER_NAME)?.parse().ok()
}

/// The calling process's cgroup as a directory.
pub fn own_cgroup(hierarchy: &Hierarchy) -> Result<std::path::PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    Ok(hierarchy.mount().join(Path::new(path).strip_prefix("/").unwrap_or(Path::new(""))))
}

const PREFIX: &str = "carnet.run-";

/// Field 22 of proc(5)'s stat; the first after the name is field 3.
const START_TIME_AFTER_NAME: usize = 22 - 3;

const SWEEP_DEADLINE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let own = Name::own().unwrap();
        assert_eq!(Name::parse(&own.to_string()), Some(own));
        assert_eq!(start_time(own.pid), Some(own.start_time));
    }

    #[test]
    fn other_directories_are_none_of_ours() {
        for name in [
            "carnet.run-",
            "carnet.run-1-2",
            "carnet.run-1-2-3-4",
            "carnet.run-x-2-3",
            "carnet.test-1-2-3",
            "system.slice",
        ] {
            assert_eq!(Name::parse(name), None, "{name}");
        }
    }

    #[test]
    fn no_process_has_no_start_time() {
        assert_eq!(start_time(u32::MAX), None);
    }
}
