//! Taking an engine off the host.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::{Link, MapCore, MapHandle};

use super::folder::{self, Folder};
use crate::attach::{Attached, Attachment, place_of, redirects};
use crate::{Engine, Error};

/// What has been removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Removed {
    /// Links that have been detached.
    pub links: usize,
    /// Whether it was whole. Otherwise a process had ended in the middle of pinning or removing it.
    pub was_whole: bool,
}

/// Takes the engine that is pinned at `folder` off this host: detaches all its links, those first which redirect, and
/// removes all pins and the folder. `None`: there is nothing. Half of an engine is removed too.
///
/// Connections on which services have asked for what they need go on. Those that are on their way to a service when this
/// is called get two seconds to arrive.
///
/// It fails with [`ErrorKind::Held`](crate::ErrorKind::Held) where a process has the engine: that one is to end first, or
/// to call [`Engine::take_down`](crate::Engine::take_down).
pub fn remove(folder: &Path) -> Result<Option<Removed>, Error> {
    Folder::open(folder)?.map(remove_all).transpose()
}

pub fn remove_all(folder: Folder) -> Result<Removed, Error> {
    folder.check_is_ours()?;
    let was_whole = folder.is_whole()?;
    // Whoever comes after a crash knows that this was under way.
    folder.unstamp()?;
    let mut links = folder::links(folder.path())?;
    links.sort_by_key(|(program, _)| std::cmp::Reverse(place_of(program)));
    let (redirecting, others): (Vec<_>, Vec<_>) = links.iter().partition(|(program, _)| redirects(program));
    for link in &redirecting {
        detach(&folder, link)?;
    }
    if !redirecting.is_empty()
        && let Ok(map) = MapHandle::from_pinned_path(folder.map(HANDOVERS))
    {
        wait_for_handovers(&map);
    }
    for link in &others {
        detach(&folder, link)?;
    }
    folder.clear()?;
    Ok(Removed { links: links.len(), was_whole })
}

/// The same for an engine without pins.
pub fn detach_all(engine: &Engine) -> Result<Removed, Error> {
    let mut links: Vec<_> = engine.links.iter().collect();
    links.sort_by_key(|attached| std::cmp::Reverse(place_of(attached.at.program)));
    let (redirecting, others): (Vec<_>, Vec<_>) =
        links.into_iter().partition(|attached| redirects(attached.at.program));
    let detach = |Attached { at: Attachment { program, cgroup }, link }: &Attached| {
        link.detach().map_err(|error| Error::bpf(format!("cannot take {program} off the cgroup {cgroup}"), error))
    };
    redirecting.iter().try_for_each(|attached| detach(attached))?;
    if !redirecting.is_empty() {
        wait_for_handovers(&engine.map(HANDOVERS)?);
    }
    others.iter().try_for_each(|attached| detach(attached))?;
    Ok(Removed { links: redirecting.len() + others.len(), was_whole: true })
}

fn detach(folder: &Folder, (program, cgroup): &(String, u64)) -> Result<(), Error> {
    let path = folder.link(program, *cgroup);
    let failed = |error| Error::bpf(format!("cannot detach {}", path.display()), error);
    // Detached rather than unpinned alone: another process may have a descriptor of it.
    Link::open(&path).map_err(failed)?.detach().map_err(failed)?;
    folder.unpin(&path)
}

/// Connections between their SYN and the service's taking them. Those to a service that stands still are not waited for.
fn wait_for_handovers(map: &impl MapCore) {
    let end = Instant::now() + PATIENCE;
    while map.keys().next().is_some() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
}

const HANDOVERS: &str = "carnet_handovers";
const PATIENCE: Duration = Duration::from_secs(2);
