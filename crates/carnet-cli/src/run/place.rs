//! The run's cgroups: what they are called, who is in which, and what earlier runs have left.
//!
//! ```text
//! <mount>/carnet.run-<pid>-<start time>-<pid namespace>/
//!     app/            the command
//!     services/0, 1   what the command goes through
//! ```
//!
//! A run that is started by another run's command, or by one of its services, is not at the top but in that process's
//! cgroup. At the top its command would have left the run that it is part of. One that a daemon governs is in the cgroup
//! that the daemon governs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carnet_engine::DEEPEST_OWNER;
use carnet_engine::cgroup::{Cgroup, Hierarchy, remove_tree};
use nix::unistd::geteuid;

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
    /// Makes the cgroup `name` in the cgroup `above`, and those in it. The guardian knows of it by now.
    pub fn create(hierarchy: &Hierarchy, above: &Path, name: &Name) -> Result<Self> {
        let root = Cgroup::open(hierarchy, above)?.child(&name.to_string())?;
        let app = root.child("app")?;
        let services = root.child("services")?;
        Ok(Self { root, app, services })
    }
}

/// The cgroup in which the calling process's run is to be.
pub fn above(hierarchy: &Hierarchy) -> Result<PathBuf> {
    let own = own_cgroup(hierarchy)?;
    if !is_in_a_run(&own) {
        return Ok(hierarchy.mount().into());
    }
    if let Some(level) = too_deep(hierarchy, &own) {
        bail!(
            "this is run by other carnet runs, one in another, and its services would be in cgroups {level} levels deep, \
             of which the kernel program looks at {DEEPEST_OWNER}. Name all services in one run: --through A --through B"
        );
    }
    Ok(own)
}

/// The same where a daemon governs `governed`, and the caller with it. `None`: it does not govern the caller.
pub fn above_governed(hierarchy: &Hierarchy, governed: &Path) -> Result<Option<PathBuf>> {
    let own = own_cgroup(hierarchy)?;
    if !is_governed(&own, governed) {
        return Ok(None);
    }
    // Owners that are not administrators have to be in the caller's own.
    let stays = is_in_a_run(&own) || !geteuid().is_root();
    let above = if stays { own } else { governed.into() };
    if let Some(level) = too_deep(hierarchy, &above) {
        bail!(
            "services of a run in {} would be in cgroups {level} levels deep, of which the kernel program looks at \
             {DEEPEST_OWNER}. Start it in a cgroup further up",
            above.display()
        );
    }
    Ok(Some(above))
}

/// A path that leads out of the hierarchy as it is seen here is of another container.
fn is_governed(own: &Path, governed: &Path) -> bool {
    own.starts_with(governed) && !own.components().any(|component| component == Component::ParentDir)
}

/// The level of services' cgroups in there, where that is too deep.
fn too_deep(hierarchy: &Hierarchy, above: &Path) -> Option<u32> {
    let level = hierarchy.level_of(above).unwrap_or_default() + LEVELS_OF_A_SERVICE;
    (level > DEEPEST_OWNER).then_some(level)
}

/// A path that leads out of the hierarchy as it is seen here is none: nothing can be made there.
fn is_in_a_run(cgroup: &Path) -> bool {
    let mut of_a_run = false;
    for component in cgroup.components() {
        match component {
            Component::ParentDir => return false,
            Component::Normal(name) => of_a_run |= name.to_str().and_then(Name::parse).is_some(),
            _ => {}
        }
    }
    of_a_run
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

    /// Its `carnet run` is there, and not another process that has got its number since.
    fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", self.pid, self.start_time, self.pid_namespace)
    }
}

/// Ends and removes what runs in the cgroup `above` have left whose `carnet run` and guardian were both killed. Returns
/// what could not be.
pub fn sweep(above: &Path, own: &Name) -> Vec<anyhow::Error> {
    let left = runs(above, own.pid_namespace).filter(|run| !run.is_alive());
    let remove = |name: Name| remove_tree(&above.join(name.to_string()), SWEEP_DEADLINE).err();
    left.filter_map(remove)
        .map(|error| anyhow::Error::new(error).context("cannot remove what an earlier run has left"))
        .collect()
}

/// Cgroups of runs at the top that were started in the caller's pid namespace, and whether their `carnet run` is still there.
pub fn runs_here(hierarchy: &Hierarchy) -> Result<Vec<(PathBuf, bool)>> {
    let own = Name::own()?;
    let place = |name: &Name| hierarchy.mount().join(name.to_string());
    Ok(runs(hierarchy.mount(), own.pid_namespace).map(|name| (place(&name), name.is_alive())).collect())
}

fn runs(above: &Path, pid_namespace: u64) -> impl Iterator<Item = Name> {
    let entries = fs::read_dir(above).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| Name::parse(entry.file_name().to_str()?));
    names.filter(move |name| name.pid_namespace == pid_namespace)
}

/// Clock ticks from boot to the start of a process. `None`: there is none.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have anything in it, parentheses and spaces too.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(START_TIME_AFTER_NAME)?.parse().ok()
}

/// The calling process's cgroup as a directory.
pub fn own_cgroup(hierarchy: &Hierarchy) -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    // Its components: joining the root's empty path would leave a slash behind.
    Ok(hierarchy.mount().join(path.trim_start_matches('/')).components().collect())
}

const PREFIX: &str = "carnet.run-";

/// `carnet.run-*`, `services`, and the service's own.
const LEVELS_OF_A_SERVICE: u32 = 3;

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
    fn a_run_in_a_run_is_seen_by_its_cgroup() {
        for (path, expected) in [
            ("/cg", false),
            ("/cg/system.slice/carnet.service", false),
            ("/cg/carnet.run-1-2-3/app", true),
            ("/cg/carnet.run-1-2-3/services/0/build", true),
            ("/cg/pod/carnet.run-1-2-3/app/carnet.run-4-5-6/app", true),
            ("/cg/../carnet.run-1-2-3/app", false),
        ] {
            assert_eq!(is_in_a_run(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn what_is_in_the_governed_cgroup_is_governed() {
        for (own, governed, expected) in [
            ("/cg", "/cg", true),
            ("/cg/a/b", "/cg/a", true),
            ("/cg/a", "/cg/a/b", false),
            ("/cg/ab", "/cg/a", false),
            ("/cg/../a", "/cg", false),
        ] {
            assert_eq!(is_governed(Path::new(own), Path::new(governed)), expected, "{own} {governed}");
        }
    }

    #[test]
    fn no_process_has_no_start_time() {
        assert_eq!(start_time(u32::MAX), None);
    }
}
