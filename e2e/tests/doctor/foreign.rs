use std::os::fd::{AsFd, AsRawFd};

use carnet_e2e::programs::compile_bpf;
use carnet_e2e::raw;
use carnet_engine::cgroup::Cgroup;
use libbpf_rs::{CgroupIterOpts, CgroupIterOrder, Iter, IterOpts, Link, Object, ObjectBuilder};

/// Programs of somebody else, loaded: `foreign.bpf.c`. Gone when dropped, but for those without a link, which go with
/// their cgroup.
pub struct Foreign {
    object: Object,
    links: Vec<Link>,
}

impl Foreign {
    /// Compiles and loads them.
    pub fn load() -> Self {
        let object = compile_bpf("tests/doctor/foreign.bpf.c");
        let open = ObjectBuilder::default().open_memory(&object).expect("an object");
        Self { object: open.load().expect("the programs load"), links: Vec::new() }
    }

    /// Attaches one with a link. Returns its id.
    pub fn link(&mut self, name: &str, cgroup: &Cgroup) -> u32 {
        let program = self.object.progs_mut().find(|program| program.name() == name).expect("a program of that name");
        let link = program.attach_cgroup(cgroup.as_fd().as_raw_fd()).expect("attach");
        let id = link_program(&link);
        self.links.push(link);
        id
    }

    /// Attaches one without a link, with these flags: `BPF_F_*`, or none.
    pub fn attach(&self, name: &str, hook: u32, cgroup: &Cgroup, flags: u32) {
        let program = self.object.progs().find(|program| program.name() == name).expect("a program of that name");
        raw::attach_without_link(&program, cgroup, hook, flags).expect("attach");
    }

    /// A walk from this cgroup up to the root with the program that writes [`LISTED_BYTES`] for each.
    pub fn listing(&self, from: &Cgroup) -> Iter {
        let program = self.object.progs_mut().find(|program| program.name() == "own_listing").expect("the iterator");
        let mut options = CgroupIterOpts::from_fd(from.as_fd());
        options.order = CgroupIterOrder::AncestorsUp;
        let link = program.attach_iter_with_opts(IterOpts::Cgroup(options)).expect("attach");
        Iter::new(&link).expect("a walk")
    }
}

fn link_program(link: &Link) -> u32 {
    link.info().expect("a link tells its program").prog_id
}

pub const LISTED_BYTES: usize = 64;

pub const CONNECT4: u32 = 10;
pub const GETSOCKOPT: u32 = 21;
pub const GETSOCKNAME4: u32 = 31;
pub const EXCLUSIVE: u32 = 0;
pub const OVERRIDE: u32 = 1;
pub const MULTI: u32 = 2;
