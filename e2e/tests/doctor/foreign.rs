use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;

use carnet_e2e::programs::{Scratch, succeed};
use carnet_e2e::raw;
use carnet_engine::cgroup::Cgroup;
use libbpf_rs::{Link, Object, ObjectBuilder};

/// Programs of somebody else, loaded: `foreign.bpf.c`. Gone when dropped, but for those without a link, which go with
/// their cgroup.
pub struct Foreign {
    object: Object,
    links: Vec<Link>,
}

impl Foreign {
    /// Compiles and loads them.
    pub fn load() -> Self {
        let scratch = Scratch::new();
        let object = scratch.file("foreign.bpf.o");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor/foreign.bpf.c");
        let machine = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        let mut clang = Command::new(std::env::var_os("CLANG").unwrap_or_else(|| "clang".into()));
        clang.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-idirafter", &machine]);
        succeed(clang.arg("-c").arg(source).arg("-o").arg(&object));
        let open = ObjectBuilder::default().open_file(&object).expect("an object");
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
}

fn link_program(link: &Link) -> u32 {
    link.info().expect("a link tells its program").prog_id
}

pub const CONNECT4: u32 = 10;
pub const GETSOCKOPT: u32 = 21;
pub const EXCLUSIVE: u32 = 0;
pub const OVERRIDE: u32 = 1;
pub const MULTI: u32 = 2;
