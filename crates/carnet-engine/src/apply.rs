use std::collections::HashMap;

use carnet_abi::{Address, OWNER_UID, Policy};
use carnet_policy::Image;
use libbpf_rs::MapCore;
use zerocopy::{Immutable, IntoBytes};

use crate::{Engine, Error, ErrorKind};

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
];

/// How deep in the hierarchy, where the root is 0, an owner's cgroup may be: the kernel program looks at so many of a
/// socket's cgroups and no more (LINEAGE_LEVELS in bpf/owner.h). [`Engine::apply`] refuses a policy with a deeper one.
pub const DEEPEST_OWNER: u32 = 11;

impl Engine {
    /// Puts a policy in force, as a whole: it is written to the slot that is not in use, then that slot is named. A
    /// connect() sees the old policy or the new one. Only where a second policy follows while it is under way may it find
    /// its own half rewritten, and be refused.
    pub fn apply(&mut self, image: &Image) -> Result<(), Error> {
        let slot = 1 - self.config.policy_slot;
        check_depth(&image.policy)?;
        self.clear_slot("carnet_owners", std::mem::offset_of!(OwnerKey, slot), slot)?;
        self.clear_slot("carnet_listeners", std::mem::offset_of!(ListenerKey, slot), slot)?;
        for (key, providers) in owners(&image.policy, slot) {
            self.update("carnet_owners", key.as_bytes(), providers.as_bytes())?;
        }
        for (key, providers) in listeners(&image.policy, slot) {
            self.update("carnet_listeners", key.as_bytes(), providers.as_bytes())?;
        }
        self.replace_contexts(image, slot)?;
        self.update("carnet_policies", slot.as_bytes(), image.policy.as_bytes())?;
        self.config.policy_slot = slot;
        self.write_config()
    }

    /// Contexts of the policy before the one in force make room. A flow that was redirected by it and is not asked for
    /// its context until two policies later has none any more; the map would grow without end otherwise.
    fn replace_contexts(&mut self, image: &Image, slot: u32) -> Result<(), Error> {
        let new = image.contexts.iter().map(|(id, _)| *id).collect();
        let old = std::mem::replace(&mut self.contexts[slot as usize], new);
        let map = self.map("carnet_contexts")?;
        for id in old.iter().filter(|id| !self.contexts.iter().flatten().any(|kept| kept == *id)) {
            map.delete(id.as_bytes()).map_err(|error| Error::bpf("cannot remove an old context", error))?;
        }
        for (id, context) in &image.contexts {
            self.update("carnet_contexts", id.as_bytes(), context.as_bytes())?;
        }
        Ok(())
    }

    fn clear_slot(&self, map: &str, slot_at: usize, slot: u32) -> Result<(), Error> {
        let map = self.map(map)?;
        let stale = map.keys().filter(|key| key.get(slot_at..slot_at + 4) == Some(slot.as_bytes())).collect::<Vec<_>>();
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

/// Owner -> bitmap of providers.
fn owners(policy: &Policy, slot: u32) -> HashMap<OwnerKey, u32> {
    let mut owners = HashMap::new();
    for (index, provider) in policy.provider[..policy.providers as usize].iter().enumerate() {
        for owner in &provider.owner[..provider.owners as usize] {
            let id = if owner.kind == OWNER_UID { owner.uid.into() } else { owner.cgroup_id };
            *owners.entry(OwnerKey { id, kind: owner.kind, slot }).or_default() |= 1 << index;
        }
    }
    owners
}

/// Listener's address, and its port alone with a zero address -> bitmap of providers.
fn listeners(policy: &Policy, slot: u32) -> HashMap<ListenerKey, u32> {
    let mut listeners = HashMap::new();
    for (index, provider) in policy.provider[..policy.providers as usize].iter().enumerate() {
        for at in &provider.listener[..provider.listeners as usize] {
            let port_alone = Address { port: at.port, ..Address::default() };
            for at in [*at, port_alone] {
                *listeners.entry(ListenerKey { at, slot }).or_default() |= 1 << index;
            }
        }
    }
    listeners
}
