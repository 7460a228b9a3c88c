//! Programs that the policy names: held, so that nobody else gets their identity, and kept while processes run them.
//!
//! A policy knows a program by device and inode. Where the file at a path is replaced, as an upgrade does, the path means
//! the new one, and the old one too for as long as a process runs it. A descriptor keeps each old inode from being given
//! to another file before the policy has forgotten it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use carnet_policy::Executable;
use carnet_policy::file::Resolved;
use rustix::fs::{OFlags, major, minor};

/// Those that the policy in force names.
#[derive(Debug, Default)]
pub struct Programs {
    /// By path; the file that is there now.
    current: BTreeMap<String, Held>,
    /// Those which were there before, and are run still.
    replaced: Vec<(String, Held)>,
}

#[derive(Debug)]
struct Held {
    executable: Executable,
    /// Nobody else gets its inode while this is open. `None`: it could not be opened.
    _file: Option<File>,
}

impl Programs {
    /// Replaced ones that are to mean what their paths mean. Those that no process runs any more are left out, and
    /// forgotten with the next [`Programs::follow`].
    pub fn kept(&self) -> Vec<(String, Executable)> {
        // What has been replaced since the last look, too: nobody who runs it is to be without it until the next one.
        let just_now = self.current.iter().filter(|(path, held)| !held.is_at(path));
        let before = self.replaced.iter().map(|(path, held)| (path, held));
        let all: Vec<_> = before.chain(just_now).collect();
        if all.is_empty() {
            return Vec::new();
        }
        let run = running();
        let kept = all.into_iter().filter(|(_, held)| run.contains(&held.executable));
        kept.map(|(path, held)| (path.clone(), held.executable)).collect()
    }

    /// After the policy `resolved` has come into force, with `kept` in it. Returns the paths of programs that have been
    /// replaced since the last one.
    pub fn follow(&mut self, resolved: &Resolved, kept: &[(String, Executable)]) -> Vec<String> {
        let mut replaced = Vec::new();
        let mut current = BTreeMap::new();
        for (path, executable) in resolved.executables() {
            let held = match self.current.remove(path) {
                Some(held) if held.executable == executable => held,
                Some(before) => {
                    replaced.push(path.to_owned());
                    self.replaced.push((path.to_owned(), before));
                    Held::open(path, executable)
                }
                None => Held::open(path, executable),
            };
            current.insert(path.to_owned(), held);
        }
        // What is not there any more may be run still.
        let named: BTreeSet<&str> = resolved.watched.executables.iter().map(|(path, _)| &path[..]).collect();
        let gone = std::mem::replace(&mut self.current, current).into_iter();
        let new = self.replaced.split_off(self.replaced.len() - replaced.len());
        self.replaced.retain(|(path, held)| kept.iter().any(|(name, own)| name == path && *own == held.executable));
        self.replaced.extend(new);
        self.replaced.extend(gone.filter(|(path, _)| named.contains(&path[..])));
        replaced
    }
}

impl Held {
    fn open(path: &str, executable: Executable) -> Self {
        let file = OpenOptions::new().read(true).custom_flags(OFlags::PATH.bits() as i32).open(path).ok();
        // Replaced in this very moment: the next look sees it.
        let file = file.filter(|file| file.metadata().is_ok_and(|there| there.ino() == executable.ino));
        Self { executable, _file: file }
    }

    fn is_at(&self, path: &str) -> bool {
        fs::metadata(path).is_ok_and(|there| executable(&there) == self.executable)
    }
}

/// What the processes of this host run, by what `stat()` tells. Where that is another device than the kernel's own, as
/// on btrfs, none is found.
fn running() -> HashSet<Executable> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = processes.filter(|entry| entry.file_name().to_str().is_some_and(is_process));
    let metadata = processes.filter_map(|process| fs::metadata(process.path().join("exe")).ok());
    metadata.map(|own| executable(&own)).collect()
}

fn executable(file: &Metadata) -> Executable {
    Executable { dev: major(file.dev()) << 20 | minor(file.dev()), ino: file.ino() }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use carnet_policy::file::{Loader, PolicyFile};

    use super::*;
    use crate::host::ThisHost;

    struct NoFiles;

    impl Loader for NoFiles {
        fn load(&self, _: &std::path::Path) -> std::io::Result<String> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_replaced_program_is_kept_while_it_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cat");
        let put = || {
            fs::copy("/bin/cat", folder.path().join("new")).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
        };
        put();
        let text = format!("[[filter]]\nname = \"cat\"\naction = \"block\"\nmatch = {{ exe = {path:?} }}\n");
        let file = PolicyFile::parse("test", &text, &NoFiles).unwrap();
        let mut programs = Programs::default();
        let follow = |programs: &mut Programs| {
            let kept = programs.kept();
            let resolved = file.resolve_keeping(&ThisHost::new(), &kept).unwrap();
            let exes = resolved.policy.filters[0].matches.exes.only.as_ref().unwrap()[0].len();
            (programs.follow(&resolved, &kept).len(), exes)
        };
        assert_eq!(follow(&mut programs), (0, 1));
        let child = Command::new(&path).stdin(Stdio::piped()).spawn().unwrap();
        let child = Killed(child);
        put();
        assert_eq!(follow(&mut programs), (1, 2), "the new one, and the old one, which is run");
        assert_eq!(follow(&mut programs), (0, 2));
        drop(child);
        assert_eq!(follow(&mut programs), (0, 1));
        assert!(programs.replaced.is_empty());
    }
}
