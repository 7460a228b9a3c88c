//! The two tables of routes in the kernel program's map, and which of them is in force.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use carnet_abi::{RouteKey, Routing};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, IntoBytes};

use super::prefix::Prefix;
use super::table::Entry;
use crate::{Engine, Error};

/// Writes routes for the kernel program. It is the only writer, so it knows what is there once it has looked.
pub struct Tables {
    routes: MapHandle,
    routing: MapHandle,
    netns: u64,
    written: [HashMap<Prefix, u32>; 2],
    in_force: usize,
}

impl Tables {
    /// Those of the engine, for this network namespace: empty, or what the process has left that had the engine before.
    pub fn of(engine: &Engine, netns: u64) -> Result<Self, Error> {
        let [routes, routing] = [engine.map_handle("carnet_routes")?, engine.map_handle("carnet_routing")?];
        let failed = |error| Error::bpf("cannot read the routes that are in force", error);
        let now = routing.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).map_err(failed)?;
        let now = now.and_then(|now| Routing::read_from_bytes(&now).ok());
        let in_force = now.map_or(0, |now| now.slot as usize & 1);
        let mut written: [HashMap<Prefix, u32>; 2] = Default::default();
        for key in routes.keys() {
            let errno = routes.lookup(&key, MapFlags::ANY).map_err(failed)?.and_then(|errno| errno.try_into().ok());
            if let (Ok(key), Some(errno)) = (RouteKey::read_from_bytes(&key), errno) {
                let length = u8::try_from(key.prefix_len.saturating_sub(32)).unwrap_or(u8::MAX);
                let prefix = Prefix::new(Ipv6Addr::from(key.prefix).into(), length);
                written[key.slot as usize & 1].insert(prefix, u32::from_ne_bytes(errno));
            }
        }
        Ok(Self { routes, routing, netns, written, in_force })
    }

    /// How many entries one of them may have.
    pub fn room(&self) -> usize {
        self.routes.max_entries() as usize / 2
    }

    /// Puts these in force, at once and as a whole.
    pub fn replace(&mut self, entries: &[Entry]) -> Result<(), Error> {
        let slot = 1 - self.in_force;
        let wanted: HashMap<Prefix, u32> = entries.iter().copied().collect();
        let stale: Vec<Prefix> =
            self.written[slot].keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();
        for prefix in stale {
            let gone = self.routes.delete(key(prefix, slot).as_bytes());
            gone.map_err(|error| Error::bpf("cannot remove an old route", error))?;
            self.written[slot].remove(&prefix);
        }
        for (prefix, errno) in wanted {
            if self.written[slot].get(&prefix) != Some(&errno) {
                let noted = self.routes.update(key(prefix, slot).as_bytes(), errno.as_bytes(), MapFlags::ANY);
                noted.map_err(|error| Error::bpf("cannot write a route", error))?;
                self.written[slot].insert(prefix, errno);
            }
        }
        self.in_force = slot;
        self.point_at(self.netns)
    }

    /// From now on nothing is known, so everything can be reached.
    pub fn forget(&self) -> Result<(), Error> {
        self.point_at(0)
    }

    fn point_at(&self, netns: u64) -> Result<(), Error> {
        let routing = Routing { netns, slot: self.in_force as u32, pad: 0 };
        self.routing
            .update(&0_u32.to_ne_bytes(), routing.as_bytes(), MapFlags::ANY)
            .map_err(|error| Error::bpf("cannot put the routes in force", error))
    }
}

fn key(prefix: Prefix, slot: usize) -> RouteKey {
    RouteKey { prefix_len: 32 + u32::from(prefix.length()), slot: slot as u32, prefix: prefix.address().octets() }
}
