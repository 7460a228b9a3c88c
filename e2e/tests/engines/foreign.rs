//! Programs of somebody else, `foreign.bpf.c`: compiled once, attached where a test wants them, gone when dropped.

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd};

use carnet_e2e::programs::compile_bpf;
use carnet_e2e::{Ground, Sandbox, raw};
use carnet_engine::cgroup::Cgroup;
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder};

use crate::walk::Party;

/// Loaded programs with their maps, and where they are attached.
pub struct Foreign {
    object: Object,
    links: Vec<Link>,
}

/// What they count: the places of `enum place` in the same order.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Seen {
    Connects,
    Unknown,
    Translated,
    Peers,
    Names,
    Gets,
    Sets,
    Connecting,
    States,
    Rtts,
}

/// Where programs are attached: what runs first is the first attached of one cgroup, and a child's before its ancestors'.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// At the same cgroup as Carnet's, before them.
    Before,
    /// At the same cgroup, behind them.
    After,
    /// Above.
    Ancestor,
    /// Below.
    Child,
}

impl Place {
    pub const ALL: [Self; 4] = [Self::Before, Self::After, Self::Ancestor, Self::Child];
}

/// An engine, and these programs at, above or below the cgroup that it governs. Below is the application.
pub fn beside(place: Place, names: &[&str]) -> (Foreign, Party) {
    let ground = Ground::with_ancestor();
    attached(ground, place, names, |ground| &ground.governed, |ground| clone(ground, &ground.app))
}

/// The same at, above or below the services' cgroup. Below is the first service.
pub fn beside_services(place: Place, names: &[&str]) -> (Foreign, Party) {
    let ground = Ground::with_ancestor();
    attached(ground, place, names, |ground| &ground.services, |ground| ground.service(0))
}

fn attached(
    ground: Ground,
    place: Place,
    names: &[&str],
    same: impl Fn(&Ground) -> &Cgroup,
    child: impl Fn(&Ground) -> Cgroup,
) -> (Foreign, Party) {
    let attach = |ground: &Ground| match place {
        Place::Before | Place::After => Foreign::attached(same(ground), names),
        Place::Ancestor => Foreign::attached(&ground.ancestor(), names),
        Place::Child => Foreign::attached(&child(ground), names),
    };
    if place == Place::After {
        let party = Party::of(Sandbox::on(ground));
        (attach(party.sandbox.ground()), party)
    } else {
        (attach(&ground), Party::of(Sandbox::on(ground)))
    }
}

fn clone(ground: &Ground, cgroup: &Cgroup) -> Cgroup {
    Cgroup::open(&ground.hierarchy, cgroup.path()).unwrap()
}

impl Foreign {
    /// Loads the programs with these names, and attaches them to the cgroup as one of several.
    pub fn attached(cgroup: &Cgroup, names: &[&str]) -> Self {
        let mut foreign = Self::loaded(names);
        for name in names {
            foreign.attach(cgroup, name);
        }
        foreign
    }

    fn loaded(names: &[&str]) -> Self {
        let object = compile_bpf("tests/engines/foreign.bpf.c");
        let mut open = ObjectBuilder::default().open_memory(&object).expect("an object");
        for mut program in open.progs_mut() {
            let wanted = names.iter().any(|name| program.name() == *name);
            program.set_autoload(wanted);
        }
        Self { object: open.load().expect("the programs load"), links: Vec::new() }
    }

    fn attach(&mut self, cgroup: &Cgroup, name: &str) {
        let program = self.object.progs_mut().find(|program| program.name() == name).expect("a program of that name");
        self.links.push(program.attach_cgroup(cgroup.as_fd().as_raw_fd()).expect("attach"));
    }

    /// The same as was done before there were links, with `BPF_PROG_ATTACH`. They stay until the cgroup goes.
    pub fn attached_without_links(cgroup: &Cgroup, programs: &[(&str, u32)]) -> Self {
        let names: Vec<_> = programs.iter().map(|(name, _)| *name).collect();
        let foreign = Self::loaded(&names);
        for (name, hook) in programs {
            let program =
                foreign.object.progs().find(|program| program.name() == *name).expect("a program of that name");
            raw::attach_without_link(&program, cgroup, *hook, MULTI).expect("attach");
        }
        foreign
    }

    /// Has `vip` stand for `real`.
    pub fn translate(&self, vip: SocketAddrV4, real: SocketAddrV4) {
        let words = [u32::from(vip.port()), (*real.ip()).into(), u32::from(real.port()), (*vip.ip()).into()];
        let value: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        self.map("vips").update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY).expect("update");
    }

    /// How often something happened.
    pub fn seen(&self, what: Seen) -> u64 {
        let value = self.map("seen").lookup(&(what as u32).to_ne_bytes(), MapFlags::ANY).expect("lookup");
        u64::from_ne_bytes(value.expect("an array has all places")[..].try_into().expect("eight bytes"))
    }

    fn map(&self, name: &str) -> impl MapCore + '_ {
        self.object.maps().find(|map| map.name() == name).expect("a map of that name")
    }
}

/// `BPF_F_ALLOW_MULTI`: others may attach, too.
const MULTI: u32 = 2;

/// The level of the option that `own_getsockopt` answers and `own_setsockopt` takes.
pub const LEVEL: i32 = 0x7777;
/// What it answers.
pub const VALUE: u32 = 0x5ca1_ab1e;
/// With what `refuse_connect4` refuses.
pub const REFUSED: i32 = libc::EHOSTDOWN;
