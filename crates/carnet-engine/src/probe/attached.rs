use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libbpf_rs::{CgroupIterOpts, CgroupIterOrder, Iter, IterOpts};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::open;
use crate::cgroup::{Cgroup, Hierarchy};
use crate::{Error, ErrorKind, load};

/// Programs on one hook of one cgroup, in the order in which they were attached.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Attached {
    /// Id of the cgroup.
    pub cgroup_id: u64,
    /// Where it is. `None`: above the mount, in a host of which this is a container.
    pub cgroup: Option<PathBuf>,
    /// On which hook.
    pub hook: Hook,
    /// What the first of them allows to others.
    pub mode: Mode,
    /// At least one.
    pub programs: Vec<Program>,
}

/// A program in the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Program {
    /// Its id.
    pub id: u32,
    /// The name it was loaded with: at most 15 bytes. Empty where it has none.
    pub name: String,
    /// Who loaded it.
    pub uid: Option<u32>,
    /// Id of the link it is attached with. `None`: without one.
    pub link: Option<u32>,
    /// It runs before those of cgroups below (`BPF_F_PREORDER`).
    pub preorder: bool,
}

/// Where programs can meet Carnet's.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
#[expect(missing_docs, reason = "they are called what the kernel calls them")]
pub enum Hook {
    Connect4,
    Connect6,
    Sendmsg4,
    Sendmsg6,
    Recvmsg4,
    Recvmsg6,
    Getpeername4,
    Getpeername6,
    Getsockname4,
    Getsockname6,
    Getsockopt,
    Setsockopt,
    SockOps,
    SockCreate,
    SockRelease,
    Egress,
}

impl Hook {
    /// As the kernel's tools call it.
    pub fn name(self) -> &'static str {
        HOOKS.iter().find(|(hook, ..)| *hook == self).map_or("?", |(_, _, name)| name)
    }
}

/// What a cgroup's programs allow on their hook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// Nobody else may attach here or below (no flag).
    Exclusive,
    /// Whoever attaches below takes its place there (`BPF_F_ALLOW_OVERRIDE`).
    Override,
    /// Others may attach, and all run (`BPF_F_ALLOW_MULTI`, and every link).
    Multi,
}

impl Mode {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Override => "override",
            Self::Multi => "multi",
        }
    }
}

impl Attached {
    /// Programs on a hook of this cgroup which others may join.
    pub fn new(cgroup_id: u64, hook: Hook, programs: Vec<Program>) -> Self {
        Self { cgroup_id, cgroup: None, hook, mode: Mode::Multi, programs }
    }
}

/// The programs on the cgroup at `path` and on all those above it, the root's first. An iterator in the kernel lists
/// them, so those without a link are among them.
pub fn attached(hierarchy: &Hierarchy, path: &Path) -> Result<Vec<Attached>, Error> {
    if let Some(missing) = load::missing_capabilities() {
        let what = format!("cannot list attached programs: the process lacks {missing}");
        return Err(Error::new(ErrorKind::NoPrivilege, what));
    }
    let cgroup = Cgroup::open(hierarchy, path)?;
    let bytes = listing(&cgroup)?;
    let entries: Vec<Entry> =
        bytes.chunks_exact(size_of::<Entry>()).filter_map(|entry| Entry::read_from_bytes(entry).ok()).collect();
    Ok(grouped(&entries, &paths(hierarchy, path)))
}

fn listing(cgroup: &Cgroup) -> Result<Vec<u8>, Error> {
    let object = open(&[LIST], &[])?.load().map_err(|error| {
        let cause = load::cause_in_log().unwrap_or_else(|| "the kernel gave no reason".into());
        Error::missing("cannot list attached programs", cause, error)
    })?;
    let failed = |error| Error::bpf("cannot list attached programs", error);
    let program = load::program(&object, LIST)?;
    let mut options = CgroupIterOpts::from_fd(cgroup.as_fd());
    options.order = CgroupIterOrder::AncestorsUp;
    let link = program.attach_iter_with_opts(IterOpts::Cgroup(options)).map_err(failed)?;
    // The kernel cannot go on in the middle of a hierarchy: a read that has less room than it has to say is the last one
    // that succeeds. It says 32 KiB at most.
    let (mut bytes, mut room) = (Vec::new(), vec![0; 64 * 1024]);
    let mut walk = Iter::new(&link).map_err(failed)?;
    loop {
        match walk.read(&mut room) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&room[..length]),
            Err(error) => return Err(Error::io("cannot read the list of attached programs", error)),
        }
    }
    Ok(bytes)
}

/// Ids of the cgroups from `path` up to the mount.
fn paths(hierarchy: &Hierarchy, path: &Path) -> BTreeMap<u64, PathBuf> {
    let up = path.ancestors().take_while(|path| path.starts_with(hierarchy.mount()));
    up.filter_map(|path| Some((fs::metadata(path).ok()?.ino(), path.to_owned()))).collect()
}

fn grouped(entries: &[Entry], paths: &BTreeMap<u64, PathBuf>) -> Vec<Attached> {
    let mut groups: Vec<Attached> = Vec::new();
    for entry in entries {
        let Some(&(hook, ..)) = HOOKS.iter().find(|(_, number, _)| *number == entry.hook) else { continue };
        let program = Program {
            id: entry.program,
            name: entry.name(),
            uid: Some(entry.uid).filter(|&uid| uid != NOBODY),
            link: Some(entry.link).filter(|&link| link != 0),
            preorder: entry.flags & PREORDER != 0,
        };
        match groups.last_mut() {
            Some(last) if (last.cgroup_id, last.hook) == (entry.cgroup, hook) => last.programs.push(program),
            _ => groups.push(Attached {
                cgroup_id: entry.cgroup,
                cgroup: paths.get(&entry.cgroup).cloned(),
                hook,
                mode: match entry.mode {
                    mode if mode & ALLOW_MULTI != 0 => Mode::Multi,
                    mode if mode & ALLOW_OVERRIDE != 0 => Mode::Override,
                    _ => Mode::Exclusive,
                },
                programs: vec![program],
            }),
        }
    }
    // The iterator goes up. A stable sort keeps the hooks of a cgroup together and in order.
    let mut order: Vec<u64> = groups.iter().map(|group| group.cgroup_id).collect();
    order.dedup();
    groups.sort_by_key(|group| std::cmp::Reverse(order.iter().position(|&id| id == group.cgroup_id)));
    groups
}

/// `struct entry` of `bpf/probe.bpf.c`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Entry {
    cgroup: u64,
    hook: u32,
    mode: u32,
    program: u32,
    link: u32,
    flags: u32,
    uid: u32,
    name: [u8; 16],
}

const _: () = assert!(size_of::<Entry>() == 48);

impl Entry {
    fn name(&self) -> String {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

/// The kernel does not say who.
const NOBODY: u32 = u32::MAX;

/// The program that lists.
const LIST: &str = "carnet_attached";

const ALLOW_OVERRIDE: u32 = 1;
const ALLOW_MULTI: u32 = 2;
const PREORDER: u32 = 1 << 6;

/// Each with its number in `enum bpf_attach_type`.
const HOOKS: [(Hook, u32, &str); 16] = [
    (Hook::Egress, 1, "egress"),
    (Hook::SockCreate, 2, "sock_create"),
    (Hook::SockOps, 3, "sock_ops"),
    (Hook::Connect4, 10, "connect4"),
    (Hook::Connect6, 11, "connect6"),
    (Hook::Sendmsg4, 14, "sendmsg4"),
    (Hook::Sendmsg6, 15, "sendmsg6"),
    (Hook::Recvmsg4, 19, "recvmsg4"),
    (Hook::Recvmsg6, 20, "recvmsg6"),
    (Hook::Getsockopt, 21, "getsockopt"),
    (Hook::Setsockopt, 22, "setsockopt"),
    (Hook::Getpeername4, 29, "getpeername4"),
    (Hook::Getpeername6, 30, "getpeername6"),
    (Hook::Getsockname4, 31, "getsockname4"),
    (Hook::Getsockname6, 32, "getsockname6"),
    (Hook::SockRelease, 34, "sock_release"),
];

#[cfg(test)]
mod tests {
    use libbpf_rs::ProgramAttachType as Type;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hooks_have_the_kernels_numbers() {
        for (hook, number, _) in HOOKS {
            let type_of_hook = match hook {
                Hook::Connect4 => Type::CgroupInet4Connect,
                Hook::Connect6 => Type::CgroupInet6Connect,
                Hook::Sendmsg4 => Type::CgroupUdp4Sendmsg,
                Hook::Sendmsg6 => Type::CgroupUdp6Sendmsg,
                Hook::Recvmsg4 => Type::CgroupUdp4Recvmsg,
                Hook::Recvmsg6 => Type::CgroupUdp6Recvmsg,
                Hook::Getpeername4 => Type::CgroupInet4Getpeername,
                Hook::Getpeername6 => Type::CgroupInet6Getpeername,
                Hook::Getsockname4 => Type::CgroupInet4Getsockname,
                Hook::Getsockname6 => Type::CgroupInet6Getsockname,
                Hook::Getsockopt => Type::CgroupGetsockopt,
                Hook::Setsockopt => Type::CgroupSetsockopt,
                Hook::SockOps => Type::CgroupSockOps,
                Hook::SockCreate => Type::CgroupInetSockCreate,
                Hook::SockRelease => Type::CgroupInetSockRelease,
                Hook::Egress => Type::CgroupInetEgress,
            };
            assert_eq!(number, type_of_hook as u32, "{hook:?}");
        }
    }

    #[test]
    fn programs_are_grouped_from_the_root_down() {
        let entry = |cgroup, hook, mode, program| Entry { cgroup, hook, mode, program, ..Entry::default() };
        let second = Entry { link: 3, flags: PREORDER, name: *b"cil_sock4\0remain", ..entry(7, 10, 2, 2) };
        let below = [entry(7, 10, 2, 1), second, Entry { uid: NOBODY, ..entry(7, 21, 1, 3) }];
        let above = [entry(1, 10, 0, 4), entry(1, 99, 2, 5)];
        let paths = BTreeMap::from([(7, "/c/a".into())]);
        let groups = grouped(&[&below[..], &above[..]].concat(), &paths);

        let seen: Vec<_> = groups
            .iter()
            .map(|group| (group.cgroup.as_deref(), group.hook, group.mode, group.programs.len()))
            .collect();
        let place = Some(Path::new("/c/a"));
        assert_eq!(
            seen,
            [
                (None, Hook::Connect4, Mode::Exclusive, 1),
                (place, Hook::Connect4, Mode::Multi, 2),
                (place, Hook::Getsockopt, Mode::Override, 1)
            ]
        );
        let second = Program { id: 2, name: "cil_sock4".into(), uid: Some(0), link: Some(3), preorder: true };
        assert_eq!(groups[1].programs[1], second);
        assert_eq!(groups[1].programs[0].link, None);
        assert_eq!((groups[2].programs[0].uid, &groups[2].programs[0].name[..]), (None, ""));
    }

    proptest! {
        #[test]
        fn no_program_is_lost(numbers in prop::collection::vec((0..4_u64, 0..HOOKS.len(), 0..8_u32), 0..40)) {
            let of = |&(cgroup, hook, program): &(u64, usize, u32)| {
                Entry { cgroup, hook: HOOKS[hook].1, program, ..Entry::default() }
            };
            let entries: Vec<_> = numbers.iter().map(of).collect();
            let groups = grouped(&entries, &BTreeMap::new());
            prop_assert_eq!(groups.iter().map(|group| group.programs.len()).sum::<usize>(), entries.len());
        }
    }
}
