//! A host and a folder that are always the same.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use carnet_policy::file::{
    Account, Answer, CgroupAt, ExecutableAt, Finding, Host, Loader, OpenTo, PolicyFile, Resolved, Writers,
};
use carnet_policy::{Executable, Line};

/// Files by their names.
pub struct Folder(pub BTreeMap<&'static str, String>);

impl Folder {
    pub fn of(files: &[(&'static str, &str)]) -> Self {
        Self(files.iter().map(|(name, text)| (*name, (*text).to_owned())).collect())
    }
}

impl Loader for Folder {
    fn load(&self, path: &Path) -> io::Result<String> {
        let name = path.to_str().unwrap();
        self.0.get(name).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }
}

/// The files that the tests' policies name.
pub fn folder() -> Folder {
    Folder::of(&[
        ("private.txt", "# ours\r\n10.0.0.0/8\r\nfd00::/8 # v6\r\n"),
        ("wrong.txt", "10.0.0.0/8\n\n  10.0.0.1/8 # host bits\n"),
        ("ports.txt", "443\n8000-8999\n"),
    ])
}

/// A file with this text, and what it is on the host of the tests.
pub fn read(text: &str) -> Result<(PolicyFile, Resolved), Vec<Finding>> {
    PolicyFile::read("policy.toml", text, &folder(), &Somewhere).map_err(|mistakes| mistakes.findings().to_vec())
}

/// Everything that is said about a text.
pub fn findings(text: &str) -> Vec<Finding> {
    match read(text) {
        Err(mistakes) => mistakes,
        Ok((file, resolved)) => [file.warnings(&resolved, &Somewhere), resolved.notes].concat(),
    }
}

/// A host with a few users, programs and cgroups.
pub struct Somewhere;

const USERS: [(&str, u32, &str); 5] = [
    ("root", 0, "/bin/sh"),
    ("www-data", 33, "/usr/sbin/nologin"),
    ("dlp", 990, "/usr/sbin/nologin"),
    ("av", 991, ""),
    ("alice", 1000, "/bin/bash"),
];

const GROUPS: [(&str, u32); 3] = [("root", 0), ("adm", 4), ("staff", 50)];

/// Paths, ids of theirs and of those above, the highest first.
const CGROUPS: [(&str, &[u64]); 6] = [
    ("/", &[]),
    ("/system.slice", &[10]),
    ("/system.slice/dlp.service", &[10, 100]),
    ("/system.slice/dlp.service/av", &[10, 100, 101]),
    ("/user.slice", &[20]),
    ("/1/2/3/4/5/6/7/8/9/10/11/12", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
];

impl Host for Somewhere {
    fn uid(&self, name: &str) -> Answer<u32> {
        match USERS.iter().find(|(user, _, _)| *user == name) {
            Some((_, uid, _)) => Answer::Is(*uid),
            None => Answer::No,
        }
    }

    fn gid(&self, name: &str) -> Answer<u32> {
        match GROUPS.iter().find(|(group, _)| *group == name) {
            Some((_, gid)) => Answer::Is(*gid),
            None => Answer::No,
        }
    }

    fn executable(&self, path: &str) -> Answer<ExecutableAt> {
        let at = |ino, file_system: &str, open_to, is_script| {
            let file_system = file_system.to_owned();
            Answer::Is(ExecutableAt {
                executable: Executable { dev: 8 << 20 | 1, ino },
                file_system,
                open_to,
                is_script,
            })
        };
        match path {
            "/usr/bin/curl" => at(1, "ext4", vec![], false),
            "/usr/bin/wget" => at(2, "ext4", vec![], false),
            "/usr/bin/script" => at(3, "ext4", vec![], true),
            "/data/tool" => at(4, "btrfs", vec![], false),
            "/home/alice/tool" => {
                let folder = OpenTo { path: "/home/alice".into(), writers: Writers::Uid(1000) };
                let file = OpenTo { path: "/home/alice/tool".into(), writers: Writers::Everybody };
                at(5, "ext4", vec![folder, file], false)
            }
            "/secret/tool" => Answer::Unasked("cannot look at the program: permission denied".into()),
            _ => Answer::No,
        }
    }

    fn cgroup(&self, path: &str) -> Answer<CgroupAt> {
        let Some((_, ids)) = CGROUPS.iter().find(|(cgroup, _)| *cgroup == path) else { return Answer::No };
        let mut line = Line::default();
        line.0.iter_mut().zip(*ids).for_each(|(slot, id)| *slot = *id);
        Answer::Is(CgroupAt { line, id: ids.last().copied().unwrap_or(1), level: ids.len() as u32 })
    }

    fn netns(&self, name: &str) -> Answer<u64> {
        match name {
            "blue" | "/run/netns/blue" => Answer::Is(7),
            _ => Answer::No,
        }
    }

    fn account(&self, uid: u32) -> Option<Account> {
        let (name, _, shell) = USERS.iter().find(|(_, user, _)| *user == uid)?;
        Some(Account { name: (*name).to_owned(), shell: (*shell).to_owned(), gid: uid })
    }

    fn users(&self) -> Vec<String> {
        USERS.iter().map(|(name, _, _)| (*name).to_owned()).collect()
    }

    fn groups(&self) -> Vec<String> {
        GROUPS.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}
