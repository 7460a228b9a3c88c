//! The command `carnet`, as people start it: its own process, its streams, its cgroup, and what it leaves behind.

mod traces;

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use carnet_engine::cgroup::{Cgroup, Hierarchy};

pub use self::traces::{Process, Traces};
use crate::programs::Started;
use crate::sockets::{PATIENCE, until};

/// The program: `$CARNET`, else the one that cargo has built beside the tests.
pub fn carnet() -> PathBuf {
    if let Some(path) = env::var_os("CARNET") {
        return path.into();
    }
    let test = env::current_exe().expect("the test has a file");
    let built = test.ancestors().nth(2).expect("target/debug/deps/TEST").join("carnet");
    assert!(built.exists(), "there is no {}: cargo build -p carnet-cli, or set CARNET", built.display());
    built
}

/// `carnet run` with these arguments, in an environment that changes nothing.
pub fn carnet_run(arguments: &[&str]) -> Command {
    let mut command = Command::new(carnet());
    undisturbed(&mut command).arg("run").args(arguments);
    command
}

/// Takes out of a command's environment what `carnet` heeds.
pub fn undisturbed(command: &mut Command) -> &mut Command {
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

/// Starts a command and waits for its end.
pub fn finish(command: &mut Command) -> Ended {
    let mut run = Run::start(command);
    run.close_input();
    run.end()
}

/// A running `carnet run`. Killed when dropped; what it runs ends with it.
pub struct Run {
    child: Started,
    input: Option<ChildStdin>,
    output: Stream,
    errors: Stream,
    mount: PathBuf,
}

/// How one ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; 128 and the number of the signal that killed it.
    pub code: i32,
    /// What it and its command wrote to standard output, without lines that were read before.
    pub output: String,
    /// What they wrote to standard error.
    pub errors: String,
}

impl Run {
    /// Starts a command with all three streams connected to the test.
    pub fn start(command: &mut Command) -> Self {
        let mount = Hierarchy::find().expect("a cgroup2 hierarchy").mount().to_owned();
        let mut child = Started::by(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let input = child.stdin.take();
        let output = Stream::new(child.stdout.take().expect("piped"));
        let errors = Stream::new(child.stderr.take().expect("piped"));
        Self { child, input, output, errors, mount }
    }

    /// A run whose command does nothing until its input ends, for tests that use its cgroups: see [`Run::in_app`].
    pub fn idle(arguments: &[&str]) -> Self {
        let mut run = Self::start(&mut carnet_run(&[arguments, &["--", "sh", "-c", "echo ready; exec cat"]].concat()));
        assert_eq!(run.line(), "ready");
        run
    }

    /// Process id of `carnet run`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output. Panics when there is none in time.
    pub fn line(&mut self) -> String {
        self.line_within(PATIENCE)
    }

    /// The same, of something that may take longer.
    pub fn line_within(&mut self, patience: Duration) -> String {
        let end = Instant::now() + patience;
        loop {
            let over = self.output.has_ended() || Instant::now() > end;
            if let Some(line) = self.output.next_line() {
                return line;
            }
            assert!(!over, "there is no line after {patience:?}, or no more: {}", self.errors.text());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it has written to standard error until now.
    pub fn errors(&self) -> String {
        self.errors.text()
    }

    /// Writes a line to the command's standard input.
    pub fn say(&mut self, line: &str) {
        self.write(&[line.as_bytes(), b"\n"].concat());
    }

    /// Writes bytes to its standard input.
    pub fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().expect("its input is open").write_all(bytes).expect("it reads");
    }

    /// Ends the command's standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Whether `carnet run` has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.ended().is_some()
    }

    /// Waits for its end, and sees that its cgroup has gone by then, unless it was killed and could not see to that.
    pub fn end(mut self) -> Ended {
        self.wait()
    }

    fn wait(&mut self) -> Ended {
        let end = Instant::now() + END_PATIENCE;
        while !self.has_ended() {
            if Instant::now() > end {
                let (output, errors) = (self.output.text(), self.errors.text());
                panic!("carnet run has not ended after {END_PATIENCE:?}:\n{output}\n{errors}");
            }
            thread::sleep(Duration::from_millis(1));
        }
        let status = self.child.wait().expect("a child can be waited for");
        if status.signal().is_none() {
            assert_eq!(self.cgroup_now(), None, "the run is over and its cgroup is still there");
        }
        for stream in [&mut self.output, &mut self.errors] {
            stream.wait_for_end();
        }
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("it has ended");
        Ended { code, output: self.output.rest(), errors: self.errors.text() }
    }

    /// The run's cgroup, once there is one.
    pub fn cgroup(&self) -> PathBuf {
        until("the run's cgroup", || self.cgroup_now())
    }

    /// The run's cgroup, where there is one.
    pub fn cgroup_now(&self) -> Option<PathBuf> {
        let prefix = format!("carnet.run-{}-", self.pid());
        let entries = fs::read_dir(&self.mount).expect("the hierarchy is readable");
        let own = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
        entries.flatten().find(own).map(|entry| entry.path())
    }

    /// Processes of the command.
    pub fn command_processes(&self) -> Vec<u32> {
        self.members("app")
    }

    /// Processes of the service in this place of the order.
    pub fn service_processes(&self, place: usize) -> Vec<u32> {
        self.members(&format!("services/{place}"))
    }

    /// None where the run has not come that far, or is over.
    fn members(&self, cgroup: &str) -> Vec<u32> {
        let procs = self.cgroup_now().map(|run| run.join(cgroup).join("cgroup.procs"));
        let text = procs.and_then(|procs| fs::read_to_string(procs).ok()).unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// The guardian, once it is one.
    pub fn guardian(&self) -> Option<Process> {
        let is_guardian = |process: &Process| {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            line.split(|&byte| byte == 0).nth(1) == Some(b"__guardian")
        };
        Traces::of(self).processes.into_iter().find(is_guardian)
    }

    /// Does something in the command's cgroup: sockets made there are the command's. Moves the whole test process, so
    /// tests that use it take [`turn`]s.
    pub fn in_app<T>(&self, act: impl FnOnce() -> T) -> T {
        let hierarchy = Hierarchy::find().expect("a cgroup2 hierarchy");
        let back = Back(own_cgroup(&hierarchy));
        Cgroup::open(&hierarchy, &self.cgroup().join("app")).and_then(|app| app.add_self()).expect("it can be joined");
        let result = act();
        drop(back);
        result
    }
}

/// Held by a test that moves its process, or minds that others do.
pub fn turn() -> impl Drop {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cgroup of the calling process.
fn own_cgroup(hierarchy: &Hierarchy) -> PathBuf {
    let own = fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup2 is mounted");
    hierarchy.mount().join(path)
}

/// Moves the process back where it was, also when the test panics: it would be killed with the run otherwise.
struct Back(PathBuf);

impl Drop for Back {
    fn drop(&mut self) {
        fs::write(self.0.join("cgroup.procs"), "0").expect("the test process can be moved back");
    }
}

/// What comes from one of a process's streams, read on a thread so that the process never waits.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    taken: usize,
    reader: JoinHandle<()>,
}

impl Stream {
    fn new(mut from: impl Read + Send + 'static) -> Self {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = bytes.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, taken: 0, reader }
    }

    fn has_ended(&self) -> bool {
        self.reader.is_finished()
    }

    /// Everything, once whoever has the other end has closed it. Not later than a deadline: somebody else may have it.
    fn wait_for_end(&self) {
        until("the end of a stream of carnet's", || self.has_ended().then_some(()));
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn rest(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes[self.taken..]).into_owned()
    }

    fn next_line(&mut self) -> Option<String> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = &bytes[self.taken..];
        let length = rest.iter().position(|&byte| byte == b'\n')?;
        self.taken += length + 1;
        Some(String::from_utf8_lossy(&rest[..length]).trim_end().to_owned())
    }
}

/// Ids that a process's descriptors of this kind of BPF object have (`prog_id`, `link_id`, `map_id`).
fn bpf_ids(pid: u32, field: &str) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return ids };
    for entry in entries.flatten() {
        let mut text = String::new();
        // The process may close it, or end, meanwhile.
        let _ = File::open(entry.path()).and_then(|mut file| file.read_to_string(&mut text));
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        ids.extend(value.and_then(|value| value.trim().parse::<u32>().ok()));
    }
    ids
}

/// Loading the engine takes less than a second, clearing up may take ten.
const END_PATIENCE: Duration = Duration::from_secs(30);
