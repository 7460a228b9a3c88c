//! Programs that conditions name, and who could run something else as them.

use crate::file::Resolved;
use crate::file::finding::Id;
use crate::file::host::Writers;
use crate::file::source::shown;
use crate::file::warnings::Warnings;

pub fn look(warnings: &mut Warnings, resolved: &Resolved) {
    for program in &resolved.programs {
        let (path, at) = program.get_ref();
        let path = shown(path);
        if let Some(why) = forgeable(&at.file_system) {
            let what = format!("{path:?} is on {}: {why}", shown(&at.file_system));
            let action = "use a condition on uid or cgroup, too, or put the program on another file system";
            warnings.add(Id::ForgeableExecutable, program.span(), what, action);
        }
        if let Some(open) = at.open_to.first() {
            let who = match open.writers {
                Writers::Uid(uid) => format!("the user with uid {uid}"),
                Writers::Gid(gid) => format!("the group with gid {gid}"),
                Writers::Everybody => "everybody".to_owned(),
            };
            let more = match at.open_to.len() {
                1 => String::new(),
                2 => ", and so is one more file or folder of its path".to_owned(),
                count => format!(", and so are {} more files and folders of its path", count - 1),
            };
            let what = format!(
                "{who} can put another program in the place of {path:?}: {:?} is open to them{more}",
                shown(&open.path)
            );
            warnings.add(Id::ForgeableExecutable, program.span(), what, "let root alone write there");
        }
        if at.is_script {
            let what = format!(
                "{path:?} is a script: what runs is the interpreter in its first line, so this holds for nothing"
            );
            warnings.add(Id::Script, program.span(), what, "use a condition on uid or cgroup");
        }
    }
}

/// Why device and inode do not tell one program on such a file system.
fn forgeable(file_system: &str) -> Option<&'static str> {
    match file_system {
        "btrfs" | "bcachefs" => Some("subvolumes share a device, so another file can have the same device and inode"),
        "overlay" | "aufs" => Some("its inodes can be another layer's, and change when a file is copied up"),
        "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "virtiofs" | "afs" => {
            Some("whoever serves it chooses the inodes")
        }
        fuse if fuse.starts_with("fuse") => Some("whoever has mounted it chooses the inodes"),
        _ => None,
    }
}
