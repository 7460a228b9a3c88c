//! What is pinned at a folder.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use carnet_abi::Config;
use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, ProgramHandle};
use zerocopy::FromBytes;

use super::stamp::Stamp;
use super::{folder, mount};
use crate::Error;
use crate::cgroup::Hierarchy;
use crate::load::generation_of;

/// What there is at a folder.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// Nothing.
    Absent,
    /// What a process left that ended while it pinned or removed, or is doing that now.
    HalfMade {
        /// The process that has it locked, where there is one and it can be seen.
        held_by: Option<u32>,
    },
    /// An engine.
    Whole(Found),
}

/// An engine that is pinned.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// The folder.
    pub folder: PathBuf,
    /// Version of the build that pinned it, or was the last to adopt it.
    pub version: String,
    /// Instance id. `None`: it is of a build that stores it in another way.
    pub engine: Option<u64>,
    /// Generation of the policy in force, likewise.
    pub generation: Option<u64>,
    /// Its links, by program and cgroup.
    pub links: Vec<FoundLink>,
    /// Its programs, by name.
    pub programs: Vec<FoundProgram>,
    /// The process that has it locked, where there is one and it can be seen: its daemon.
    pub held_by: Option<u32>,
}

/// A link that is pinned.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FoundLink {
    /// Name of the program that it was made with.
    pub program: String,
    /// Id of the cgroup that it was made for.
    pub cgroup: u64,
    /// That cgroup. `None`: it has been removed, or cannot be seen from here.
    pub path: Option<PathBuf>,
    /// Whether it is on the cgroup still. It is not where that has been removed.
    pub is_attached: bool,
}

/// A program that is pinned.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FoundProgram {
    /// Its name.
    pub name: String,
    /// The kernel's hash of its instructions.
    pub tag: [u8; 8],
}

/// Says what is pinned at `folder`. It loads nothing, changes nothing and locks nothing. Where the caller may not look
/// there, it fails with [`ErrorKind::NoPrivilege`](crate::ErrorKind::NoPrivilege).
pub fn inspect(path: &Path) -> Result<State, Error> {
    mount::check(path.parent().unwrap_or(path))?;
    // What may not be looked at may well be there.
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(State::Absent),
        Err(error) => return Err(Error::io(format!("cannot look at {}", path.display()), error)),
    }
    let held_by = folder::holder(path);
    match folder::stamp(path)? {
        None => Ok(State::HalfMade { held_by }),
        Some(stamp) => Ok(State::Whole(Found { held_by, ..Found::at(path, &stamp)? })),
    }
}

impl Found {
    /// What is there must not be about to change.
    pub(super) fn at(folder: &Path, stamp: &str) -> Result<Self, Error> {
        let mut links = Vec::new();
        for (program, cgroup) in folder::links(folder)? {
            let is_attached = is_attached(&folder::link(folder, &program, cgroup));
            links.push(FoundLink { program, cgroup, path: None, is_attached });
        }
        let ids = links.iter().map(|link| link.cgroup).collect();
        let paths = Hierarchy::find().and_then(|hierarchy| hierarchy.paths_of(&ids)).unwrap_or_default();
        for link in &mut links {
            link.path = paths.get(&link.cgroup).cloned();
        }
        let config = value(&folder.join(folder::MAPS).join("carnet_config"), 0);
        let config = config.and_then(|bytes| Config::read_from_bytes(&bytes).ok());
        let policy =
            config.and_then(|config| value(&folder.join(folder::MAPS).join("carnet_policies"), config.policy_slot));
        Ok(Self {
            folder: folder.into(),
            version: Stamp::parse(stamp).map_or_else(|| "unknown".into(), |stamp| stamp.version),
            engine: config.map(|config| config.engine),
            generation: policy.as_deref().and_then(generation_of),
            links,
            programs: programs(folder)?,
            held_by: None,
        })
    }

    /// How many links are on each cgroup.
    pub fn links_by_cgroup(&self) -> BTreeMap<u64, usize> {
        let mut count = BTreeMap::new();
        for link in self.links.iter().filter(|link| link.is_attached) {
            *count.entry(link.cgroup).or_default() += 1;
        }
        count
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.engine {
            Some(engine) => write!(f, "engine {engine:016x}")?,
            None => f.write_str("an engine")?,
        }
        write!(f, " of version {}", self.version)?;
        match self.generation {
            Some(0) => f.write_str(", no policy")?,
            Some(generation) => write!(f, ", policy {generation}")?,
            None => {}
        }
        let counts = self.links_by_cgroup();
        for (cgroup, count) in &counts {
            let path = self.links.iter().find(|link| link.cgroup == *cgroup).and_then(|link| link.path.as_ref());
            let s = if *count == 1 { "" } else { "s" };
            match path {
                Some(path) => write!(f, ", {count} link{s} on {}", path.display())?,
                None => write!(f, ", {count} link{s} on the cgroup {cgroup}, which is not to be seen")?,
            }
        }
        if counts.is_empty() {
            f.write_str(", attached nowhere")?;
        }
        match self.links.iter().filter(|link| !link.is_attached).count() {
            0 => Ok(()),
            gone => write!(f, ", {gone} of cgroups that have been removed"),
        }
    }
}

/// Programs that are pinned there, whichever can be opened.
pub fn programs(folder: &Path) -> Result<Vec<FoundProgram>, Error> {
    let open = |name: String| {
        let program = ProgramHandle::from_pinned_path(folder.join(folder::PROGRAMS).join(&name)).ok()?;
        Some(FoundProgram { name, tag: program.tag() })
    };
    Ok(folder::names(&folder.join(folder::PROGRAMS))?.into_iter().filter_map(open).collect())
}

/// Whether a link is on its cgroup still. The kernel takes it off one that is removed.
pub fn is_on_a_cgroup(link: &Link) -> bool {
    link.info().is_ok_and(|info| matches!(info.info, LinkTypeInfo::Cgroup(cgroup) if cgroup.cgroup_id != 0))
}

fn is_attached(path: &Path) -> bool {
    Link::open(path).is_ok_and(|link| is_on_a_cgroup(&link))
}

fn value(map: &Path, key: u32) -> Option<Vec<u8>> {
    let map = MapHandle::from_pinned_path(map).ok().filter(|map| map.key_size() == 4)?;
    map.lookup(&key.to_ne_bytes(), MapFlags::ANY).ok()?
}
