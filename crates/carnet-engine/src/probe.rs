//! Looks at the host for `carnet doctor`: what the kernel can do, and whose programs are on which cgroup.
//!
//! Everything here only looks. Programs are loaded, to hear what the verifier says and to walk the kernel's lists, but
//! none is attached to a cgroup, and nothing is left when a call returns.

mod attached;
mod features;
mod holders;

use std::path::Path;

use libbpf_rs::{ObjectBuilder, OpenObject};

pub use self::attached::{Attached, Hook, Mode, Program, attached};
pub use self::features::{Feature, Need, features};
pub use self::holders::{Holder, holders};
use crate::cgroup::{Cgroup, Hierarchy};
pub use crate::load::{knows_other_engines, missing_capabilities};
use crate::{Engine, Error, Options, load};

/// Loads Carnet's programs and lets go of them. Makes nothing: the cgroup that an engine is told to govern is, here, the
/// root of the hierarchy, of which only the id is used.
pub fn load(hierarchy: &Hierarchy) -> Result<(), Error> {
    Engine::load(&Cgroup::open(hierarchy, hierarchy.mount())?, &Options::default()).map(drop)
}

/// Whether the kernel offers its types, without which no program of Carnet's finds its way.
pub fn has_btf() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// The object `bpf/probe.bpf.c` with only these programs to be loaded, and these maps to be made.
fn open(programs: &[&str], maps: &[&str]) -> Result<OpenObject, Error> {
    load::collect_log();
    let open = ObjectBuilder::default().open_memory(OBJECT);
    let mut open = open.map_err(|error| Error::bpf("cannot read the probes' object", error))?;
    for mut program in open.progs_mut() {
        let wanted = programs.iter().any(|name| program.name() == *name);
        program.set_autoload(wanted);
    }
    for mut map in open.maps_mut() {
        let wanted = maps.iter().any(|name| map.name() == *name);
        map.set_autocreate(wanted).map_err(|error| Error::bpf("cannot choose the probes' maps", error))?;
    }
    Ok(open)
}

/// Aligned, because libbpf reads its headers in place.
static OBJECT: &[u8] = {
    #[repr(align(8))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/probe.bpf.o")));
    &ALIGNED.0
};
