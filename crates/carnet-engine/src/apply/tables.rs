//! The parts of an image that are as large as the policy needs: classes and trees' nodes.
//!
//! They are arrays inside of arrays. An array that is large enough for the next policy is written anew; else it is
//! replaced. Nobody may be reading it then: see [`Engine::wait_for_deciders`].

use std::os::fd::{AsFd, AsRawFd};

use carnet_abi::{Class, Node32, Node128};
use carnet_policy::Image;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use zerocopy::IntoBytes;

use crate::{Engine, Error};

/// What this process knows of the arrays in use.
#[derive(Default)]
pub(crate) struct Tables {
    /// By slot.
    held: [[Option<MapHandle>; KINDS.len()]; 2],
    /// Whether a program may still be deciding by the policy that is not in force any more.
    deciders: bool,
}

impl Tables {
    /// In the place of a process that has left them, perhaps a moment ago.
    pub(crate) fn of_another() -> Self {
        Self { deciders: true, ..Self::default() }
    }

    /// Another policy is in force now than at the beginning of connect() calls which are not over.
    pub(crate) fn left_at_work(&mut self) {
        self.deciders = true;
    }
}

/// An array of maps of the kernel object, and the size of its elements.
const KINDS: [(&str, usize); 3] = [
    ("carnet_classes", size_of::<Class>()),
    ("carnet_nodes32", size_of::<Node32>()),
    ("carnet_nodes128", size_of::<Node128>()),
];

/// An array smaller than this is kept for a later policy, also where it is much larger than needed.
const KEPT_BYTES: usize = 1 << 20;

impl Engine {
    /// Waits until no program is deciding by the slot that is not in force. Without that, one which began before the
    /// policy was last exchanged could find the next one half written.
    pub(crate) fn wait_for_deciders(&mut self) -> Result<(), Error> {
        if self.tables.deciders {
            // The kernel lets the programs that are running end before it returns from such an update.
            self.install("carnet_grace", 0, &table(1, 4)?)?;
            self.tables.deciders = false;
        }
        Ok(())
    }

    pub(crate) fn write_tables(&mut self, image: &Image, slot: u32) -> Result<(), Error> {
        let contents = [image.classes.as_bytes(), image.nodes32.as_bytes(), image.nodes128.as_bytes()];
        for (kind, bytes) in contents.into_iter().enumerate() {
            let (name, size) = KINDS[kind];
            let entries = bytes.len() / size;
            let held = self.tables.held[slot as usize][kind].take();
            let table = match held {
                Some(table) if table.max_entries() as usize >= entries => table,
                _ => {
                    let table = table(entries.next_power_of_two().max(16), size)?;
                    self.install(name, slot, &table)?;
                    table
                }
            };
            fill(&table, bytes, entries)?;
            self.tables.held[slot as usize][kind] = Some(table);
        }
        Ok(())
    }

    /// The policy that was in force until now is not needed any more: gives back what it had, where that is much.
    pub(crate) fn free_tables(&mut self, slot: u32) -> Result<(), Error> {
        for (kind, (name, size)) in KINDS.into_iter().enumerate() {
            let held = &self.tables.held[slot as usize][kind];
            if held.as_ref().is_some_and(|table| table.max_entries() as usize * size > KEPT_BYTES) {
                self.wait_for_deciders()?;
                self.install(name, slot, &table(1, size)?)?;
                self.tables.held[slot as usize][kind] = None;
            }
        }
        Ok(())
    }

    fn install(&self, name: &str, slot: u32, table: &MapHandle) -> Result<(), Error> {
        self.update(name, slot.as_bytes(), table.as_fd().as_raw_fd().as_bytes())
    }
}

/// An array as the kernel object describes it, but for its length.
fn table(entries: usize, size: usize) -> Result<MapHandle, Error> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: libbpf_sys::BPF_F_INNER_MAP | libbpf_sys::BPF_F_RDONLY_PROG,
        ..Default::default()
    };
    let entries = u32::try_from(entries).unwrap_or(u32::MAX);
    MapHandle::create(MapType::Array, Some("carnet_table"), size_of::<u32>() as u32, size as u32, entries, &options)
        .map_err(|error| Error::bpf(format!("no memory for {entries} entries of the policy"), error))
}

fn fill(table: &MapHandle, bytes: &[u8], entries: usize) -> Result<(), Error> {
    let keys: Vec<u32> = (0..).take(entries).collect();
    if keys.is_empty() {
        return Ok(());
    }
    table
        .update_batch(keys.as_bytes(), bytes, keys.len() as u32, MapFlags::ANY, MapFlags::ANY)
        .map_err(|error| Error::bpf("cannot write the policy's tables", error))
}
