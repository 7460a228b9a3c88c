//! Which processes keep BPF programs in the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A process that has a descriptor of a program, or of a link with it.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// The name it goes by.
    pub name: String,
}

/// Program ids and who holds them, as far as `/proc` shows. A program that nobody holds is attached without a link, or
/// pinned.
pub fn holders() -> BTreeMap<u32, Vec<Holder>> {
    let mut holders: BTreeMap<u32, Vec<Holder>> = BTreeMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return holders };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for program in programs_of(&process.path()) {
            let of_program = holders.entry(program).or_default();
            if of_program.iter().all(|holder| holder.pid != pid) {
                of_program.push(Holder { pid, name: name_of(&process.path()) });
            }
        }
    }
    holders
}

/// The program's id in a descriptor's `fdinfo`, as BPF programs and links have it.
fn program_of_descriptor(fdinfo: &str) -> Option<u32> {
    fdinfo.lines().find_map(|line| line.strip_prefix("prog_id:")).and_then(|id| id.trim().parse().ok())
}

/// Processes end and descriptors are closed while this looks, and some are not to be looked at; those have none.
fn programs_of(process: &Path) -> Vec<u32> {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return Vec::new() };
    let is_bpf = |path: &Path| {
        fs::read_link(path).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"anon_inode:bpf"))
    };
    let of_bpf = descriptors.flatten().filter(|descriptor| is_bpf(&descriptor.path()));
    let fdinfo = of_bpf.map(|descriptor| process.join("fdinfo").join(descriptor.file_name()));
    fdinfo.filter_map(|path| program_of_descriptor(&fs::read_to_string(path).ok()?)).collect()
}

fn name_of(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn programs_and_links_tell_their_program() {
        let program =
            "pos:\t0\nflags:\t02000002\nprog_type:\t18\nprog_jited:\t1\nprog_tag:\t3918c82a5f4c0360\nprog_id:\t77\n";
        assert_eq!(program_of_descriptor(program), Some(77));
        let link =
            "pos:\t0\nlink_type:\tcgroup\nlink_id:\t5\nprog_tag:\t3918c82a5f4c0360\nprog_id:\t78\ncgroup_id:\t1\n";
        assert_eq!(program_of_descriptor(link), Some(78));
        assert_eq!(program_of_descriptor("pos:\t0\nflags:\t02\nmap_type:\t1\nmap_id:\t9\n"), None);
    }

    proptest! {
        #[test]
        fn anything_can_be_in_a_descriptor(before in ".*", id in any::<u32>(), after in "[^0-9]*") {
            let text = format!("{before}\nprog_id:\t{id}\n{after}");
            prop_assume!(!before.lines().any(|line| line.starts_with("prog_id:")));
            prop_assert_eq!(program_of_descriptor(&text), Some(id));
            let _ = program_of_descriptor(&before);
        }
    }
}
