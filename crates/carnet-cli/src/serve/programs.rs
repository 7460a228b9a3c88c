//! Programs that the policy names: held, so that nobody else gets their identity, and kept while processes run them.
//!
//! A policy knows a program by device and inode. Where the file at a path is replaced, as an upgrade does, the path means
//! the new one, and the old one too for as long as a process runs it. A descriptor keeps each old inode from being given
//! to another file before the policy has forgotten it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use carnet_policy::Executable;
use carnet_policy::file::Resolved;
use rustix::fs::{OFlags, major, minor};
use serde::{Deserialize, Serialize};

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
    /// Where links led, when it was there.
    real: PathBuf,
    /// Nobody else gets its inode while this is open. `None`: it could not be opened.
    _file: Option<File>,
}

/// One as the next daemon is told of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SavedProgram {
    path: String,
    real: PathBuf,
    dev: u32,
    ino: u64,
}

impl Programs {
    /// Those of the daemon before which are there no more, and which processes run still. While no daemon was there, nobody
    /// held them: so their processes have to say that theirs was at this place, too.
    pub fn left(saved: &[SavedProgram]) -> Self {
        let is_replaced = |saved: &&SavedProgram| {
            fs::metadata(&saved.path).map(|there| executable(&there)).ok() != Some(saved.executable())
        };
        let gone: Vec<_> = saved.iter().filter(is_replaced).collect();
        let mut replaced: Vec<(String, Held)> = Vec::new();
        for exe in if gone.is_empty() { Vec::new() } else { executables_of_processes() } {
            let place = fs::read_link(&exe).ok().and_then(|place| deleted(&place));
            let Some(saved) = gone.iter().find(|saved| Some(&saved.real) == place.as_ref()) else { continue };
            let held = Held::at(&exe.display().to_string(), saved.executable(), saved.real.clone());
            let is_it = held._file.is_some() && fs::metadata(&exe).is_ok_and(|own| executable(&own) == held.executable);
            if is_it && replaced.iter().all(|(path, own)| *path != saved.path || own.executable != held.executable) {
                replaced.push((saved.path.clone(), held));
            }
        }
        Self { replaced, ..Self::default() }
    }

    /// For the next daemon.
    pub fn saved(&self) -> Vec<SavedProgram> {
        let all = self.current.iter().chain(self.replaced.iter().map(|(path, held)| (path, held)));
        let saved = |(path, held): (&String, &Held)| {
            let Executable { dev, ino } = held.executable;
            SavedProgram { path: path.clone(), real: held.real.clone(), dev, ino }
        };
        all.map(saved).collect()
    }

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
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        Self::at(path, executable, real)
    }

    fn at(path: &str, executable: Executable, real: PathBuf) -> Self {
        let file = OpenOptions::new().read(true).custom_flags(OFlags::PATH.bits() as i32).open(path).ok();
        // Replaced in this very moment: the next look sees it.
        let file = file.filter(|file| file.metadata().is_ok_and(|there| there.ino() == executable.ino));
        Self { executable, real, _file: file }
    }

    fn is_at(&self, path: &str) -> bool {
        fs::metadata(path).is_ok_and(|there| executable(&there) == self.executable)
    }
}

/// What the processes of this host run, by what `stat()` tells. Where that is another device than the kernel's own, as
/// on btrfs, none is found.
fn running() -> HashSet<Executable> {
    let metadata = executables_of_processes().into_iter().filter_map(|exe| fs::metadata(exe).ok());
    metadata.map(|own| executable(&own)).collect()
}

fn executables_of_processes() -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = processes.filter(|entry| entry.file_name().to_str().is_some_and(is_process));
    processes.map(|process| process.path().join("exe")).collect()
}

/// Where the file was that a process runs and that is there no more.
fn deleted(place: &Path) -> Option<PathBuf> {
    place.to_str()?.strip_suffix(" (deleted)").map(PathBuf::from)
}

impl SavedProgram {
    fn executable(&self) -> Executable {
        Executable { dev: self.dev, ino: self.ino }
    }
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
        fn load(&self, _: &Path) -> std::io::Result<String> {
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
        let mut next = Programs::left(&programs.saved());
        assert_eq!((next.replaced.len(), follow(&mut next)), (1, (0, 2)), "the next daemon knows it, too");
        drop(child);
        assert_eq!(follow(&mut programs), (0, 1));
        assert!(programs.replaced.is_empty());
        assert!(Programs::left(&next.saved()).replaced.is_empty());
    }
}
