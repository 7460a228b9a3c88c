//! The services, and how they are built and started.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use carnet_e2e::carried::{Carrier, Chain, who_goes_where};
use carnet_e2e::programs::{Scratch, program, require, succeed};

use self::Service::{C, Python, Rust, Windows};

/// One place in a chain. All of them are the services which the documentation shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    /// The one in Rust as a Windows program.
    Windows,
    Rust,
    Python,
    C,
}

impl Service {
    /// As the flow log calls it, when it is the first of its kind.
    fn name(self) -> &'static str {
        match self {
            Windows => "windows-service",
            Rust => "service",
            Python => "python3",
            C => "c-service",
        }
    }
}

/// What is built, and the directories in which Windows programs run.
pub struct Services {
    scratch: Scratch,
    library: PathBuf,
}

/// Which of the libraries of `e2e/wine` a Windows program gets.
#[derive(Clone, Copy, Debug)]
pub enum Library {
    /// Answers the three codes.
    Shim,
    /// Does not.
    Plain,
}

impl Services {
    /// Builds all of them; once, whatever tests run at the same time.
    pub fn build(library: Library) -> Self {
        require(&["cargo", "gcc", "python3", "x86_64-w64-mingw32-gcc"]);
        fs::create_dir_all(built("")).unwrap();
        let lock = File::create(built("lock")).unwrap();
        lock.lock().unwrap();
        let mut cargo = program(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "carnet", "--example", "service", "--target-dir"]).arg(target());
        succeed(cargo.current_dir(root()));
        let mut gcc = program("gcc");
        gcc.args(["-O2", "-pthread", "-I", "crates/carnet-abi/include", "examples/c/service.c", "-o"]);
        // In one step, for another test may be starting it.
        let new = built(&format!("c-service.{}", std::process::id()));
        succeed(gcc.arg(&new).current_dir(root()));
        fs::rename(new, built("c-service")).unwrap();
        succeed(program("e2e/wine/build.sh").arg(built("")).current_dir(root()));

        let library = built(match library {
            Library::Shim => "shim/bcryptprimitives.dll",
            Library::Plain => "plain/bcryptprimitives.dll",
        });
        Self { scratch: Scratch::new(), library }
    }

    /// These services in their order, each ready to be started.
    pub fn chain(&self, order: &[Service]) -> Chain {
        Chain::of(order.iter().zip(0..).map(|(&service, place)| Carrier {
            name: service.name(),
            through: self.through(service, place),
            line: who_goes_where,
        }))
    }

    /// The words of `--through` for the service in this place. A Windows program has a Wine of its own.
    pub fn through(&self, service: Service, place: usize) -> String {
        match service {
            Windows => self.windows(&windows_service(), place),
            Rust => format!("'{}' {{port}}", target().join("debug/examples/service").display()),
            Python => format!("python3 '{}' {{port}}", root().join("examples/python/service.py").display()),
            C => format!("'{}' {{port}}", built("c-service").display()),
        }
    }

    /// The same of any Windows program.
    pub fn windows(&self, exe: &Path, place: usize) -> String {
        format!("'{}' {{port}}", self.prepare(exe, place).join("windows-service").display())
    }

    /// A directory with a Wine for this program.
    pub fn prepare(&self, exe: &Path, place: usize) -> PathBuf {
        let directory = self.scratch.file(&place.to_string());
        let arguments = [directory.as_os_str(), exe.as_os_str(), self.library.as_os_str()];
        succeed(program("e2e/wine/prepare.sh").args(arguments).current_dir(root()));
        directory
    }

    /// A Windows program in C, of `e2e/wine`.
    pub fn compile(&self, source: &str) -> PathBuf {
        let exe = self.scratch.file(source).with_extension("exe");
        let mut gcc = program("x86_64-w64-mingw32-gcc");
        gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-I", "e2e/wine", "-I", "crates/carnet-abi/include", "-o"]);
        gcc.arg(&exe).arg(Path::new("e2e/wine").join(source)).arg(&self.library).args(["-lws2_32"]);
        succeed(gcc.current_dir(root()));
        exe
    }

    /// A file that goes with this.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }
}

/// The service in Rust as a Windows program: `$CARNET_WINDOWS_SERVICE`, else the one that cargo has built for Windows.
pub fn windows_service() -> PathBuf {
    if let Some(path) = env::var_os("CARNET_WINDOWS_SERVICE") {
        return path.into();
    }
    let built = target().join("x86_64-pc-windows-gnu/debug/examples/service.exe");
    assert!(built.exists(), "there is no {}: make test-wine builds it, or set CARNET_WINDOWS_SERVICE", built.display());
    built
}

/// Of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn target() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

fn built(file: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("wine").join(file)
}
