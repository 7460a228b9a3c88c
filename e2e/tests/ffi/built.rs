//! `make install` into a directory of the tests' own, and the examples, built against that as their first lines say.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use carnet_e2e::programs::{program, require, succeed};

/// Where `make install` is told to put the library: not where a compiler looks by itself.
const PREFIX: &str = "/opt/carnet";
const LIBDIR: &str = "/opt/carnet/lib/any-linux-gnu";

/// Against which of the two libraries a program is linked.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    Shared,
    /// Ours is in the program, and the system's are not.
    Static,
    /// Nothing is left to be found at run time. (valgrind cannot follow the memory of such a program.)
    AllStatic,
}

/// The languages, with the flags that both say they compile cleanly with.
#[derive(Clone, Copy, Debug)]
pub enum Language {
    C,
    Cpp,
}

impl Language {
    pub fn compiler(self) -> Command {
        let (compiler, standard) = match self {
            Self::C => ("gcc", "-std=c11"),
            Self::Cpp => ("g++", "-std=c++17"),
        };
        let mut command = program(compiler);
        command.args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g"]);
        command
    }
}

/// Compiles and links a program as pkg-config says.
pub fn build(language: Language, link: Link, source: &Path, output: &Path) {
    let mut compiler = language.compiler();
    compiler.args(pkg_config("--cflags")).arg("-pthread").arg("-o").arg(output).arg(source);
    match link {
        // No path of it is in the program: `environment` says where it is, as ldconfig does elsewhere.
        Link::Shared => compiler.args(pkg_config("--libs")),
        Link::Static => {
            let flags = pkg_config("--static --libs").into_iter();
            compiler.args(flags.map(|flag| if flag == "-lcarnet" { "-l:libcarnet.a".to_owned() } else { flag }))
        }
        Link::AllStatic => compiler.arg("-static").args(pkg_config("--static --libs")),
    };
    succeed(&mut compiler);
}

/// What a program that is linked with the shared library needs around it.
pub fn library_path() -> PathBuf {
    installed().join(&LIBDIR[1..])
}

pub fn pkg_config(arguments: &str) -> Vec<String> {
    let mut command = program("pkg-config");
    command.env("PKG_CONFIG_LIBDIR", library_path().join("pkgconfig")).env("PKG_CONFIG_SYSROOT_DIR", installed());
    let said = succeed(command.args(arguments.split(' ')).arg("carnet"));
    said.split_whitespace().map(str::to_owned).collect()
}

/// The tree that `make install` has made, once for each test process.
pub fn installed() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        require(&["cargo", "curl", "g++", "gcc", "make", "pkg-config", "python3", "valgrind"]);
        once("tree", |tree| {
            succeed(install(&mut program("make"), tree));
        })
    })
}

/// Gives `make`, or who calls it with its last arguments, those that put the library into a tree.
pub fn install<'c>(make: &'c mut Command, tree: &Path) -> &'c mut Command {
    make.args(["--silent", "install", "PROFILE=dev"]).env("CARGO_TARGET_DIR", target());
    make.arg(format!("PREFIX={PREFIX}")).arg(format!("LIBDIR={LIBDIR}"));
    make.arg(format!("DESTDIR={}", tree.display())).current_dir(root())
}

/// The service in C on the library.
pub fn c_service() -> PathBuf {
    once("c-library", |output| build(Language::C, Link::Static, &root().join("examples/c/library_service.c"), output))
}

/// The one in C++.
pub fn cpp_service() -> PathBuf {
    once("cpp-library", |output| build(Language::Cpp, Link::Static, &root().join("examples/cpp/service.cpp"), output))
}

/// The one on Winsock's calls.
pub fn winsock_service() -> PathBuf {
    once("winsock", |output| build(Language::C, Link::Static, &root().join("examples/winsock/service.c"), output))
}

/// Makes something, once for all tests of a run, whatever processes they are in.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    // Without nextest, a run is one process.
    let run = env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("{}", std::process::id()));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ffi").join(&run);
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let made = directory.join(name);
    if !made.exists() {
        let new = directory.join(format!("{name}.new"));
        make(&new);
        fs::rename(new, &made).unwrap();
        remove_others(&directory);
    }
    made
}

/// What earlier runs have left.
fn remove_others(directory: &Path) {
    for entry in fs::read_dir(directory.parent().unwrap()).unwrap().flatten() {
        if entry.path() != directory {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn target() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}
