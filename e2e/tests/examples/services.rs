//! The services in all languages, built and started by the lines that docs/languages.md shows.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use carnet_e2e::programs::{program, require, succeed};

/// One of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    Rust,
    C,
    Python,
    Go,
    Node,
    Java,
}

impl Service {
    pub const ALL: [Self; 6] = [Self::Rust, Self::C, Self::Python, Self::Go, Self::Node, Self::Java];

    /// As the flow log calls it, when it is the first of its kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "service",
            Self::C => "c-service",
            Self::Python => "python3",
            Self::Go => "go-service",
            Self::Node => "node",
            Self::Java => "java",
        }
    }

    /// What the document gives to `--through`. To be run in [`directory`].
    pub fn through(self) -> String {
        let lines = self.lines();
        let run = lines.iter().find(|line| line.starts_with(RUN)).unwrap_or_else(|| panic!("{self:?}: no {RUN}"));
        run.strip_prefix(RUN).and_then(|rest| rest.split('\'').next()).expect("a quoted command").to_owned()
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::C => "C and C++",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::Node => "Node",
            Self::Java => "Java",
        }
    }

    /// The shell lines of its section, those that go on in the next line made one.
    fn lines(self) -> Vec<String> {
        let mut sections = DOCUMENT.split("\n## ");
        let section = sections.find(|section| section.lines().next() == Some(self.heading()));
        let blocks = section.unwrap_or_else(|| panic!("no heading {}", self.heading())).split("\n```sh\n");
        let block = blocks.skip(1).map(|block| block.split("\n```").next().unwrap_or(block)).next();
        block
            .unwrap_or_else(|| panic!("{self:?}: no shell lines"))
            .replace("\\\n", " ")
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// Where the lines are run: the examples, and what else the lines name, as at the top of the repository.
pub fn directory() -> PathBuf {
    built("top")
}

/// Runs the lines that build. Once, whatever tests run at the same time; cargo sees for itself what has changed.
pub fn build() {
    assert_eq!(DOCUMENT.matches("\n```sh\n").count(), Service::ALL.len(), "shell lines that nothing runs");
    require(&["cargo", "gcc", "go", "java", "javac", "node", "python3"]);
    fs::create_dir_all(built("")).expect("a directory below the target directory");
    let lock = File::create(built("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let state = sources();
    let is_current = fs::read_to_string(built("sources")).is_ok_and(|built| built == state);
    if !is_current {
        lay_out();
    }
    for service in Service::ALL {
        for line in service.lines().iter().filter(|line| !line.starts_with(RUN)) {
            if line.starts_with("cargo ") {
                run(line, root());
            } else if !is_current {
                run(line, &directory());
            }
        }
    }
    fs::write(built("sources"), state).expect("what was built is noted");
}

/// A new directory with a copy of the examples, so that nothing is written into the repository.
fn lay_out() {
    let directory = directory();
    if directory.exists() {
        fs::remove_dir_all(&directory).expect("what was built before is removed");
    }
    fs::create_dir_all(directory.join("target")).expect("a directory");
    succeed(program("cp").arg("-R").arg(root().join("examples")).arg(&directory));
    symlink(root().join("crates"), directory.join("crates")).expect("a link");
    symlink(target().join("debug"), directory.join("target/debug")).expect("a link");
}

fn run(line: &str, directory: &Path) {
    let mut shell = program("sh");
    compile(go(shell.args(["-ec", line]).current_dir(directory).env("CARGO_TARGET_DIR", target())));
}

/// Runs a command to a good end, which may be minutes away: from scratch, on a busy machine. What it wrote.
pub fn compile(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// With what Go is to see of the environment: nothing is looked up or downloaded. The cache is that of the tests with foreign
/// programs, so that Go's own packages are compiled once.
pub fn go(command: &mut Command) -> &mut Command {
    command.env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "").env("CGO_ENABLED", "0");
    command.env("GOCACHE", built("../foreign/go-cache")).env("GOPATH", built("go-path"))
}

/// All that the lines read, but for Rust's.
fn sources() -> String {
    let header = root().join("crates/carnet-abi/include/carnet_abi.h");
    let mut left = vec![root().join("examples"), header];
    let mut all = DOCUMENT.to_owned();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory of the repository");
            let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
            paths.sort();
            left.extend(paths);
        } else {
            all += &fs::read_to_string(&path).unwrap_or_default();
        }
    }
    all
}

/// Of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in it")
}

fn target() -> PathBuf {
    let test = env::current_exe().expect("the test has a file");
    test.ancestors().nth(3).expect("target/debug/deps/TEST").to_owned()
}

fn built(file: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples").join(file)
}

const DOCUMENT: &str = include_str!("../../../docs/languages.md");

/// What the line that starts a service begins with.
const RUN: &str = "carnet run --through '";
