//! This host's own addresses, by which a wildcard listener can be dialled.

use std::collections::BTreeSet;
use std::net::IpAddr;

use carnet_abi::Address;
use libbpf_rs::{MapCore, MapFlags};

use crate::Error;

/// Puts those that there are now into the map, and takes out those that have gone. Returns for how many there is no room.
pub fn update(map: &impl MapCore) -> Result<usize, Error> {
    let mut wanted = addresses()?;
    let room = map.max_entries() as usize;
    let left_out = wanted.len().saturating_sub(room);
    wanted = wanted.into_iter().take(room).collect();

    let present: BTreeSet<Vec<u8>> = map.keys().collect();
    for gone in present.iter().filter(|key| !wanted.contains(&key[..])) {
        map.delete(gone).map_err(|error| Error::bpf("cannot forget an address of this host", error))?;
    }
    for new in wanted.iter().filter(|key| !present.contains(&key[..])) {
        map.update(new, &[1], MapFlags::ANY)
            .map_err(|error| Error::bpf("cannot note an address of this host", error))?;
    }
    Ok(left_out)
}

/// In the v4-mapped form. The kernel program knows the loopback ones.
fn addresses() -> Result<BTreeSet<Vec<u8>>, Error> {
    let interfaces =
        nix::ifaddrs::getifaddrs().map_err(|error| Error::io("cannot list the interfaces' addresses", error.into()))?;
    let mut addresses = BTreeSet::new();
    for address in interfaces.filter_map(|interface| interface.address) {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip()));
        if let Some(ip) = v4.or(v6).filter(|ip| !ip.is_loopback()) {
            addresses.insert(Address::from(ip).ip.to_vec());
        }
    }
    Ok(addresses)
}
