//! Programs that the tests run, and directories for their files.

use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use crate::command::finish;
use crate::sockets::until;

/// curl's exit codes where the destination refuses: a service has accepted the connection, and then it is reset. That may
/// be before curl sees that it is connected (7), before it has sent its request (55), or later, with or without a FIN.
pub const CURL_GOT_NOTHING: [i32; 4] = [7, 52, 55, 56];

/// The path on which programs are looked for: what `scripts/install-deps.sh` has put below the target directory, the
/// caller's, and where the system's daemons are.
pub fn path() -> OsString {
    let test = env::current_exe().expect("the test has a file");
    let tools = test.ancestors().nth(3).expect("target/debug/deps/TEST").join("tools/bin");
    let own = env::var_os("PATH").unwrap_or_default();
    let all = [tools].into_iter().chain(env::split_paths(&own)).chain(["/usr/sbin".into(), "/sbin".into()]);
    env::join_paths(all).expect("directories without colons")
}

/// Fails with what to do about it where one of these programs is missing.
pub fn require(programs: &[&str]) {
    let path = path();
    let is_there = |program: &str| env::split_paths(&path).any(|directory| directory.join(program).is_file());
    let missing: Vec<_> = programs.iter().filter(|program| !is_there(program)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}. Run scripts/install-deps.sh build test");
}

/// A command with [`path`] set.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", path());
    command
}

/// Runs a command to its end, which must be a good one. What it wrote to standard output.
pub fn succeed(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let ended = finish(command);
    assert_eq!(ended.code, 0, "{shown}\n{}\n{}", ended.output, ended.errors);
    ended.output
}

/// A file in this crate's directory `foreign`: services, clients and origins in other languages.
pub fn foreign(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign").join(file)
}

/// Compiles BPF programs in C, a file of this crate. The object.
pub fn compile_bpf(source: &str) -> Vec<u8> {
    let scratch = Scratch::new();
    let object = scratch.file("object");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let machine = Path::new("/usr/include").join(format!("{}-linux-gnu", env::consts::ARCH));
    let mut clang = Command::new(env::var_os("CLANG").unwrap_or_else(|| "clang".into()));
    clang.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-idirafter"]).arg(machine);
    succeed(clang.arg("-c").arg(source).arg("-o").arg(&object));
    fs::read(&object).expect("clang has written it")
}

/// A process that a test has started. Killed when dropped.
#[derive(Debug)]
pub struct Started(Child);

impl Started {
    /// Starts it.
    pub fn by(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end, which must be a good one.
    pub fn ends_well(mut self) {
        let ended = until("a process to end", || self.ended());
        assert!(ended.success(), "{ended}; its error is above");
    }

    /// SIGKILL, and waits until it is gone, its sockets too.
    pub fn kill(&mut self) {
        // Fails where it has ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory that goes away with this.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one. Everybody may look into it: some services are other users.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("carnet-e2e-{}-{count}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
