//! A service that runs already: whose it is, and whether it can be told from everything else.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::{Listener, listeners};

/// Finds the cgroup of the service that listens at `address`.
pub fn owner_of(address: SocketAddr, hierarchy: &Hierarchy, own_cgroup: &Path) -> Result<Cgroup> {
    let mut cgroups: Vec<u64> = listeners(address.port())?
        .iter()
        .filter(|listener| serves(listener, address))
        .map(|found| found.cgroup_id)
        .collect();
    cgroups.sort_unstable();
    cgroups.dedup();
    let id = match cgroups[..] {
        [id] => id,
        [] => {
            bail!("nothing listens on {address}. Start the service first, or have it started: --through 'CMD {{port}}'")
        }
        [..] => bail!("processes of {} cgroups listen on {address}. A service needs one of its own", cgroups.len()),
    };
    let Some(path) = hierarchy.find_by_id(id) else {
        bail!(
            "the cgroup of the service on {address} (id {id}) is not below {}. Is it in another container?",
            hierarchy.mount().display()
        );
    };
    check(address, &path, hierarchy, own_cgroup)?;
    Ok(Cgroup::open(hierarchy, &path)?)
}

/// A connection of the service's own must not look like one of the command's, and nothing is attached to more than the
/// service.
fn check(address: SocketAddr, service: &Path, hierarchy: &Hierarchy, own_cgroup: &Path) -> Result<()> {
    let what = "its own connections cannot be told from others'. Start it in a cgroup of its own \
                (systemd-run --scope CMD, or a unit), or have it started: --through 'CMD {port}'";
    if service == hierarchy.mount() {
        bail!("the service on {address} runs in the root cgroup, so {what}");
    }
    if own_cgroup.starts_with(service) {
        bail!("the service on {address} runs in {}, which carnet itself is in, so {what}", service.display());
    }
    Ok(())
}

/// Whether a listener takes connections to this address.
pub fn serves(listener: &Listener, address: SocketAddr) -> bool {
    let wildcard = match (listener.address.ip(), address.ip().to_canonical()) {
        (IpAddr::V4(at), IpAddr::V4(_)) => at.is_unspecified(),
        (IpAddr::V6(at), IpAddr::V6(_)) => at.is_unspecified(),
        (IpAddr::V6(at), IpAddr::V4(_)) => at.is_unspecified() && !listener.v6_only,
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    };
    listener.address.port() == address.port()
        && (wildcard || listener.address.ip().to_canonical() == address.ip().to_canonical())
}

/// Without cgroups that are in another one of the list: what is attached there holds for them as well.
pub fn outermost(cgroups: Vec<Cgroup>) -> Vec<Cgroup> {
    let mut kept: Vec<Cgroup> = Vec::new();
    let mut by_depth = cgroups;
    by_depth.sort_by_key(Cgroup::level);
    for cgroup in by_depth {
        let covered = |outer: &PathBuf| cgroup.path().starts_with(outer);
        if !kept.iter().map(|kept| kept.path().to_owned()).any(|outer| covered(&outer)) {
            kept.push(cgroup);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_serves_its_family() {
        for (listening, v6_only, address, expected) in [
            ("127.0.0.1:80", false, "127.0.0.1:80", true),
            ("127.0.0.1:80", false, "127.0.0.2:80", false),
            ("0.0.0.0:80", false, "127.0.0.2:80", true),
            ("0.0.0.0:80", false, "[::1]:80", false),
            ("[::]:80", false, "127.0.0.1:80", true),
            ("[::]:80", true, "127.0.0.1:80", false),
            ("[::]:80", true, "[::1]:80", true),
            ("[::]:81", true, "[::1]:80", false),
            ("[::ffff:127.0.0.1]:80", false, "127.0.0.1:80", true),
        ] {
            let mut listener = Listener::new(listening.parse().unwrap());
            listener.v6_only = v6_only;
            assert_eq!(serves(&listener, address.parse().unwrap()), expected, "{listening} {v6_only} {address}");
        }
    }
}
