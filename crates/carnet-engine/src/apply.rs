mod tables;

use std::collections::HashMap;

use carnet_abi::{Address, OWNER_CGROUP, OWNER_UID, Policy, Rule, ValueKey};
use carnet_policy::Image;
use libbpf_rs::{MapCore, MapFlags};
use zerocopy::{Immutable, IntoBytes};

use crate::{Engine, Error, ErrorKind};

pub(crate) use tables::Tables;

/// Twin of `struct carnet_owner_key` in bpf/maps.h.
#[derive(Clone, Copy, Eq, Hash, Immutable, IntoBytes, PartialEq)]
#[repr(C)]
struct OwnerKey {
    id: u64,
    kind: u32,
    slot: u32,
}

/// Twin of `struct carnet_listener_key` in bpf/maps.h.
#[derive(Clone, Copy, Eq, Hash, Immutable, IntoBytes, PartialEq)]
#[repr(C)]
struct ListenerKey {
    at: Address,
    slot: u32,
}

/// Twin of `struct carnet_port_key` in bpf/maps.h.
#[derive(Clone, Copy, Eq, Hash, Immutable, IntoBytes, PartialEq)]
#[repr(C)]
struct PortKey {
    slot: u32,
    port: u32,
}

/// Twin of `OWNER_HANDLE` in bpf/maps.h.
const OWNER_HANDLE: u32 = 3;

/// C name, size, and each field with its offset and size.
#[doc(hidden)]
pub type Twin = (&'static str, usize, &'static [(&'static str, usize, usize)]);

/// The twins of this file, for the test that compares them with the kernel object's BTF.
#[doc(hidden)]
pub const PRIVATE_TWINS: &[Twin] = &[
    (
        "carnet_owner_key",
        size_of::<OwnerKey>(),
        &[
            ("id", std::mem::offset_of!(OwnerKey, id), size_of::<u64>()),
            ("kind", std::mem::offset_of!(OwnerKey, kind), size_of::<u32>()),
            ("slot", std::mem::offset_of!(OwnerKey, slot), size_of::<u32>()),
        ],
    ),
    (
        "carnet_listener_key",
        size_of::<ListenerKey>(),
        &[
            ("at", std::mem::offset_of!(ListenerKey, at), size_of::<Address>()),
            ("slot", std::mem::offset_of!(ListenerKey, slot), size_of::<u32>()),
        ],
    ),
    (
        "carnet_port_key",
        size_of::<PortKey>(),
        &[
            ("slot", std::mem::offset_of!(PortKey, slot), size_of::<u32>()),
            ("port", std::mem::offset_of!(PortKey, port), size_of::<u32>()),
        ],
    ),
];

/// How deep in the hierarchy, where the root is 0, an owner's cgroup may be: the kernel program looks at so many of a
/// socket's cgroups and no more (LINEAGE_LEVELS in bpf/owner.h). [`Engine::apply`] refuses a policy with a deeper one.
pub const DEEPEST_OWNER: u32 = 11;

impl Engine {
    /// Puts a policy in force, as a whole: it is written to the slot that is not in use, then that slot is named. A
    /// connect() sees the old policy or the new one, never parts of both, however many policies follow each other. On an
    /// error the policy before stays in force, and another one can be tried.
    ///
    /// Its generation must be another one than that of the policy in force, and not 0: count up from
    /// [`Engine::generation`]. By the generation a flow finds the context that it was redirected with, and a UDP socket is
    /// judged anew.
    pub fn apply(&mut self, image: &Image) -> Result<(), Error> {
        let slot = 1 - self.config.policy_slot;
        check_depth(&image.policy)?;
        check_generation(&image.policy, self.generation()?)?;
        self.wait_for_deciders()?;
        self.clear_slot("carnet_owners", std::mem::offset_of!(OwnerKey, slot), slot.as_bytes())?;
        self.clear_slot("carnet_listeners", std::mem::offset_of!(ListenerKey, slot), slot.as_bytes())?;
        self.clear_slot("carnet_ports", std::mem::offset_of!(PortKey, slot), slot.as_bytes())?;
        self.clear_slot("carnet_values", std::mem::offset_of!(ValueKey, slot), (slot as u16).as_bytes())?;
        for (key, provider) in owners(&image.policy, slot) {
            self.update("carnet_owners", key.as_bytes(), provider.as_bytes())?;
        }
        for (key, provider) in listeners(&image.policy, slot) {
            self.update("carnet_listeners", key.as_bytes(), provider.as_bytes())?;
        }
        for (key, providers) in ports(&image.policy, slot) {
            self.update("carnet_ports", key.as_bytes(), providers.as_bytes())?;
        }
        self.replace_contexts(image, slot)?;
        for (key, class) in &image.values {
            let key = ValueKey { slot: slot as u16, ..*key };
            self.update("carnet_values", key.as_bytes(), u32::from(*class).as_bytes())?;
        }
        self.write_rules(&image.rules, slot)?;
        self.write_tables(image, slot)?;
        self.update("carnet_policies", slot.as_bytes(), image.policy.as_bytes())?;
        let before = std::mem::replace(&mut self.config.policy_slot, slot);
        if let Err(error) = self.write_config() {
            self.config.policy_slot = before;
            return Err(error);
        }
        self.tables.left_at_work();
        // It is in force. What cannot be given back now is used again or given back by the next one.
        let _ = self.free_tables(before);
        Ok(())
    }

    fn write_rules(&self, rules: &[Rule], slot: u32) -> Result<(), Error> {
        let first = slot * carnet_abi::MAX_RULES as u32;
        let keys: Vec<u32> = (first..).take(rules.len()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let map = self.map("carnet_rules")?;
        map.update_batch(keys.as_bytes(), rules.as_bytes(), keys.len() as u32, MapFlags::ANY, MapFlags::ANY)
            .map_err(|error| Error::bpf("cannot write the policy's rules", error))
    }

    /// Contexts of the policy before the one in force make room. A flow that was redirected by it and is not asked for
    /// its context until two policies later has none any more; the map would grow without end otherwise.
    fn replace_contexts(&mut self, image: &Image, slot: u32) -> Result<(), Error> {
        let new = image.contexts.iter().map(|(id, _)| *id).collect();
        let old = std::mem::replace(&mut self.contexts[slot as usize], new);
        let map = self.map("carnet_contexts")?;
        for id in old.iter().filter(|id| !self.contexts.iter().flatten().any(|kept| kept == *id)) {
            match map.delete(id.as_bytes()) {
                // An earlier call failed before it was written.
                Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => {}
                deleted => deleted.map_err(|error| Error::bpf("cannot remove an old context", error))?,
            }
        }
        for (id, context) in &image.contexts {
            self.update("carnet_contexts", id.as_bytes(), context.as_bytes())?;
        }
        Ok(())
    }

    fn clear_slot(&self, map: &str, slot_at: usize, slot: &[u8]) -> Result<(), Error> {
        let map = self.map(map)?;
        let is_stale = |key: &Vec<u8>| key.get(slot_at..).is_some_and(|rest| rest.starts_with(slot));
        let stale = map.keys().filter(is_stale).collect::<Vec<_>>();
        for key in stale {
            map.delete(&key).map_err(|error| Error::bpf("cannot clear the policy slot", error))?;
        }
        Ok(())
    }
}

fn check_depth(policy: &Policy) -> Result<(), Error> {
    for provider in &policy.provider[..policy.providers as usize] {
        for owner in &provider.owner[..provider.owners as usize] {
            if owner.kind != OWNER_UID && owner.cgroup_level > DEEPEST_OWNER {
                let what = format!(
                    "the cgroup that owns provider {} is {} levels deep, at most {DEEPEST_OWNER} are looked at. Name one above it",
                    provider.handle, owner.cgroup_level
                );
                return Err(Error::new(ErrorKind::Policy, what));
            }
        }
    }
    Ok(())
}

fn check_generation(policy: &Policy, in_force: u64) -> Result<(), Error> {
    let generation = policy.generation;
    // Contexts know a generation by so much of it.
    if generation != 0 && generation % Image::GENERATIONS != in_force % Image::GENERATIONS {
        return Ok(());
    }
    let what = match generation == 0 {
        true => "the policy has the generation 0: the first one is 1".into(),
        false => {
            format!("the policy has the generation {generation}, that of the one in force ({in_force}): count it up")
        }
    };
    Err(Error::new(ErrorKind::Policy, what))
}

fn providers(policy: &Policy) -> impl Iterator<Item = (u32, &carnet_abi::Provider)> {
    (0..).zip(&policy.provider[..policy.providers as usize])
}

/// Owner or handle -> provider.
fn owners(policy: &Policy, slot: u32) -> HashMap<OwnerKey, u32> {
    let mut owners = HashMap::new();
    for (index, provider) in providers(policy) {
        owners.insert(OwnerKey { id: provider.handle.into(), kind: OWNER_HANDLE, slot }, index);
        for owner in &provider.owner[..provider.owners as usize] {
            let (id, kind) = match owner.kind {
                OWNER_UID => (owner.uid.into(), OWNER_UID),
                _ => (owner.cgroup_id, OWNER_CGROUP),
            };
            owners.insert(OwnerKey { id, kind, slot }, index);
        }
    }
    owners
}

/// Listener's address -> provider.
fn listeners(policy: &Policy, slot: u32) -> HashMap<ListenerKey, u32> {
    let of = |(index, provider): (u32, &'_ carnet_abi::Provider)| {
        provider.listener[..provider.listeners as usize]
            .iter()
            .map(move |&at| (ListenerKey { at, slot }, index))
            .collect()
    };
    providers(policy).flat_map::<Vec<_>, _>(of).collect()
}

/// Listeners' ports -> bitmap of providers.
fn ports(policy: &Policy, slot: u32) -> HashMap<PortKey, [u64; 4]> {
    let mut ports = HashMap::<PortKey, [u64; 4]>::new();
    for (ListenerKey { at, .. }, index) in listeners(policy, slot) {
        ports.entry(PortKey { slot, port: at.port.into() }).or_default()[index as usize / 64] |= 1 << (index % 64);
    }
    ports
}
