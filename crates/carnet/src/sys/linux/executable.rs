//! From a process and its executable's device and inode to a path, by `/proc`.

use std::{
    fs::{self, Metadata, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::PathBuf,
    time::Duration,
};

use crate::Executable;

/// The path which leads to the executable of the process `pid` that began at `start_time`, if it is `executable`.
pub(crate) fn path(pid: u32, start_time: Duration, executable: Executable) -> Option<PathBuf> {
    // O_PATH holds the file itself, so the path read below is this file's even if the process calls exec() meanwhile;
    // and it needs no permission to read the file.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(format!("/proc/{pid}/exe")).ok()?;

    // After the open: if the process with our start time has this pid now, it had it then, for it is older than both.
    if start_ticks(&fs::read(format!("/proc/{pid}/stat")).ok()?)? != to_ticks(start_time) {
        return None;
    }
    if identity(&file.metadata().ok()?) != executable {
        return None;
    }
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;

    // A deleted file's link ends in " (deleted)", and one of another mount namespace is a path in that namespace.
    (identity(&fs::metadata(&path).ok()?) == executable).then_some(path)
}

fn identity(metadata: &Metadata) -> Executable {
    let device = libc::major(metadata.dev()) << MINOR_BITS | libc::minor(metadata.dev());
    Executable { device, inode: metadata.ino() }
}

/// Field 22 of `/proc/<pid>/stat`. Field 2 is the process's name in parentheses, which may hold spaces and parentheses.
fn start_ticks(stat: &[u8]) -> Option<u128> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields_from_3 = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    fields_from_3.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn to_ticks(time: Duration) -> u128 {
    time.as_nanos() / (1_000_000_000 / TICKS_PER_SECOND)
}

/// `USER_HZ`, the unit of `/proc`: part of the kernel's ABI and 100 wherever Rust's standard library runs.
const TICKS_PER_SECOND: u128 = 100;

/// `MINORBITS` of the kernel's `dev_t`.
const MINOR_BITS: u32 = 20;

#[cfg(test)]
mod tests {
    use std::{
        env, io,
        path::Path,
        process::{self, Child, Command, Stdio},
    };

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_running_process_is_found_at_tick_granularity() {
        let executable = identity(&fs::metadata("/proc/self/exe").unwrap());
        let (pid, start) = (process::id(), start_time(process::id()));
        let expected = Some(env::current_exe().unwrap());

        assert_eq!(path(pid, start, executable), expected);
        assert_eq!(path(pid, start + Duration::from_nanos(9_999_999), executable), expected);
        assert_eq!(path(pid, start + Duration::from_millis(10), executable), None, "a later process with this pid");
        assert_eq!(path(pid, start - Duration::from_nanos(1), executable), None, "an earlier process with this pid");
    }

    #[test]
    fn another_file_is_not_the_executable() {
        let executable = identity(&fs::metadata("/proc/self/exe").unwrap());
        let (pid, start) = (process::id(), start_time(process::id()));

        assert_eq!(path(pid, start, Executable { inode: executable.inode ^ 1, ..executable }), None);
        assert_eq!(path(pid, start, Executable { device: executable.device ^ 1, ..executable }), None);
    }

    /// Moved: the new path. Deleted, or another file put in its place: none.
    #[test]
    fn the_path_leads_to_the_file() {
        let directory = env::temp_dir().join(format!("carnet-executable-{}", process::id()));
        fs::create_dir(&directory).unwrap();
        let (first, second) = (directory.join("first"), directory.join("second"));
        fs::copy("/bin/sleep", &first).unwrap();
        let child = Killed(spawn(&first));
        let executable = identity(&fs::metadata(&first).unwrap());
        let found = || path(child.0.id(), start_time(child.0.id()), executable);

        assert_eq!(found(), Some(first.canonicalize().unwrap()));
        fs::rename(&first, &second).unwrap();
        assert_eq!(found(), Some(second.canonicalize().unwrap()));
        fs::copy("/bin/sleep", &first).unwrap();
        fs::rename(&first, &second).unwrap();
        assert_eq!(found(), None, "replaced");
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found(), None, "deleted");
    }

    proptest! {
        #[test]
        fn no_name_hides_the_start_time(name in proptest::collection::vec(any::<u8>(), 0..16), start in any::<u64>()) {
            let mut stat = b"7 (".to_vec();
            stat.extend(&name);
            stat.extend(format!(") S 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 {start} 9 9").as_bytes());
            prop_assert_eq!(start_ticks(&stat), Some(u128::from(start)));
        }

        #[test]
        fn no_bytes_panic(stat in proptest::collection::vec(any::<u8>(), 0..200)) {
            start_ticks(&stat);
        }
    }

    /// What a record holds is finer; this is the tick's beginning.
    fn start_time(pid: u32) -> Duration {
        let ticks = start_ticks(&fs::read(format!("/proc/{pid}/stat")).unwrap()).unwrap();
        Duration::from_millis(u64::try_from(ticks).unwrap() * 10)
    }

    /// `exec` fails with ETXTBSY while a child which another test's thread just forked holds the copy open for writing.
    fn spawn(program: &Path) -> Child {
        for _ in 0..1000 {
            match Command::new(program).arg("60").stdin(Stdio::null()).spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                result => return result.unwrap(),
            }
        }
        panic!("{} stays busy", program.display());
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            self.0.kill().and_then(|()| self.0.wait()).unwrap();
        }
    }
}
