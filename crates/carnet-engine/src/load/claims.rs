//! The one map that all engines on a host share, by which they leave each other's redirects alone.

use std::fs::File;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use carnet_abi::Claim;
use libbpf_rs::query::MapInfoIter;
use libbpf_rs::{MapCore, MapHandle, MapType, OpenObject};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::cgroup::Hierarchy;
use crate::{Error, ErrorKind};

const NAME: &str = "carnet_claims";

/// Has the object use the map of the engines that are there already, where there is one and this process may look. The
/// result keeps others from looking for it until this engine's programs are loaded.
pub fn share(object: &mut OpenObject) -> Result<Option<Flock<File>>, Error> {
    let turn = turn()?;
    let Some(theirs) = MapInfoIter::default().filter(|map| map.name.to_str() == Some(NAME)).find_map(|map| {
        // One that goes away at this moment is nobody's any more.
        MapHandle::from_map_id(map.id).ok().filter(is_claims)
    }) else {
        return Ok(turn);
    };
    let mut ours = object
        .maps_mut()
        .find(|map| map.name() == NAME)
        .ok_or_else(|| Error::new(ErrorKind::Io, format!("the kernel object has no map {NAME}")))?;
    ours.reuse_fd(theirs.as_fd())
        .map_err(|error| Error::bpf("cannot share a map with the engines there are", error))?;
    Ok(turn)
}

/// Whether this process may look for the map of the engines that are there: asking for a map by its id takes
/// `CAP_SYS_ADMIN`. The list of maps does not tell having none from not being shown any, so a map is asked for that never
/// is: whether the kernel then says that there is none is what is wanted.
pub fn may_look() -> bool {
    const NO_MAP: u32 = 0;
    match MapHandle::from_map_id(NO_MAP) {
        Ok(_) => true,
        Err(error) => error.kind() != libbpf_rs::ErrorKind::PermissionDenied,
    }
}

/// Anybody may call a map so.
fn is_claims(map: &MapHandle) -> bool {
    map.map_type() == MapType::SkStorage && map.key_size() == 4 && map.value_size() as usize == size_of::<Claim>()
}

/// A lock that needs no file of its own: everybody who governs cgroups has the hierarchy in common. Anybody can hold it,
/// so it is not waited for without end; `None` where it was not had.
fn turn() -> Result<Option<Flock<File>>, Error> {
    let at = Hierarchy::find()?;
    let failed = |error| Error::io(format!("cannot lock {}", at.mount().display()), error);
    let mut mount = File::open(at.mount()).map_err(failed)?;
    let end = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(mount, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => return Ok(Some(turn)),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() > end => return Ok(None),
            Err((file, Errno::EWOULDBLOCK)) => mount = file,
            Err((_, error)) => return Err(failed(error.into())),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
