//! What an engine that goes on with another one's maps has to read back: all that [`Engine`] keeps in memory.

use std::mem;

use carnet_abi::{Config, Policy};
use carnet_policy::Image;
use libbpf_rs::{MapCore, MapFlags, OpenObject};
use zerocopy::FromBytes;

use super::{claims, load};
use crate::apply::Tables;
use crate::{Engine, Error, ErrorKind, Options};

impl Engine {
    /// An engine that goes on with the maps of one before it, which `open` uses already. It has no links yet.
    pub(crate) fn go_on(open: OpenObject, options: &Options) -> Result<Self, Error> {
        let mut engine = Self {
            object: load(open)?,
            links: Vec::new(),
            config: Config::default(),
            contexts: Default::default(),
            tables: Tables::of_another(),
            knows_others: claims::may_look(),
            pins: None,
        };
        let config = engine.lookup("carnet_config", &0_u32.to_ne_bytes())?;
        engine.config = config.ok_or_else(|| Error::new(ErrorKind::Io, "the map carnet_config is empty"))?;
        engine.contexts = engine.contexts_by_slot()?;
        engine.begin(options)?;
        Ok(engine)
    }

    /// Generation of the policy in force; 0 where there has been none. The next one is to have a higher one.
    pub fn generation(&self) -> Result<u64, Error> {
        self.generation_in(self.config.policy_slot)
    }

    /// The highest redirect handle of the policy in force and the one before; 0 where there is none. Records of flows
    /// may name providers by it.
    pub fn newest_handle(&self) -> Result<u32, Error> {
        let mut newest = 0;
        for slot in [0_u32, 1] {
            let policy = self.map("carnet_policies")?.lookup(&slot.to_ne_bytes(), MapFlags::ANY);
            let policy = policy.map_err(|error| Error::bpf("cannot read the policy in force", error))?;
            let Some(Ok(policy)) = policy.as_deref().map(Policy::ref_from_bytes) else { continue };
            let providers = policy.provider.iter().take(policy.providers as usize);
            newest = providers.map(|provider| provider.handle).fold(newest, u32::max);
        }
        Ok(newest)
    }

    fn generation_in(&self, slot: u32) -> Result<u64, Error> {
        let policy = self.map("carnet_policies")?.lookup(&slot.to_ne_bytes(), MapFlags::ANY);
        let policy = policy.map_err(|error| Error::bpf("cannot read the policy in force", error))?;
        Ok(policy.as_deref().and_then(generation_of).unwrap_or_default())
    }

    /// Keys of the contexts that are there, those of the policy in force under its slot and all others under the other
    /// one: what a policy left behind that was being written when its engine ended goes with that slot too.
    fn contexts_by_slot(&self) -> Result<[Vec<u32>; 2], Error> {
        let slot = self.config.policy_slot & 1;
        let in_force = self.generation_in(slot)? % Image::GENERATIONS;
        let filter_bits = u32::BITS - Image::GENERATIONS.ilog2();
        let mut contexts: [Vec<u32>; 2] = Default::default();
        for key in self.map("carnet_contexts")?.keys() {
            let Ok(key) = key.try_into().map(u32::from_ne_bytes) else { continue };
            let is_in_force = u64::from(key) >> filter_bits == in_force;
            contexts[if is_in_force { slot } else { 1 - slot } as usize].push(key);
        }
        Ok(contexts)
    }
}

/// The generation in the bytes of a policy.
pub(crate) fn generation_of(policy: &[u8]) -> Option<u64> {
    const AT: usize = mem::offset_of!(Policy, generation);
    let bytes = policy.get(AT..AT + size_of::<u64>())?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}
