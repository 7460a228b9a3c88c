//! The systemd unit: systemd's own check of it, and the daemon under the restrictions it names that can be had without
//! systemd: its capabilities, no new privileges, and a read-only file system.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use carnet_e2e::Ground;
use carnet_e2e::command::carnet;
use carnet_e2e::daemon::{Daemon, Table};
use carnet_e2e::programs::{Scratch, Started, program, require, succeed};
use carnet_e2e::sockets::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn systemd_finds_no_mistake_in_the_unit_and_little_exposed() {
    require(&["systemd-analyze"]);
    let scratch = Scratch::new();
    let unit = scratch.file("carnet.service");
    fs::write(&unit, text().replace("/usr/local/bin/carnet", carnet().to_str().unwrap())).unwrap();
    // The manual page is not installed here.
    succeed(program("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
    let threshold = format!("--threshold={MOST_EXPOSED}");
    succeed(program("systemd-analyze").args(["security", "--offline=true", "--no-pager", &threshold]).arg(&unit));
}

#[test]
fn with_the_units_restrictions_the_daemon_does_all_its_work() {
    require(&["setpriv", "unshare", "ip"]);
    let ground = Ground::new();
    let service = ground.service(0);
    let table = Table::new("dlp", 10, &ground, &service, &["127.0.0.1:15001".parse().unwrap()]);
    let namespace = Namespace::add(format!("carnet-unit-{}", std::process::id()));
    let daemon = Daemon::prepare(&ground.name_of(&ground.governed), "");
    let tool = daemon.file("tool");
    put(&tool);
    let blocked = |key: &str, value: &str| {
        format!("[[filter]]\nname = \"{key}\"\naction = \"block\"\nmatch = {{ {key} = {value:?} }}\n")
    };
    let policy = table.redirecting("web", "remote-port = 443");
    // The namespace is made again by name where this thread's mounts are, which are the daemon's, too.
    namespace.again();
    let filters = blocked("exe", tool.to_str().unwrap()) + &blocked("netns", &namespace.0);
    daemon.write_policy(&(policy.clone() + &filters));
    let told = UnixDatagram::bind(daemon.file("notify")).unwrap();

    let mut first = start(&daemon);
    assert_eq!(next(&told), "READY=1");
    let links = fs::read_dir(daemon.pins().join("links")).unwrap().count();
    assert!(links > 0, "it says that it is ready before anything is attached");
    assert!(!daemon.status().adopted);

    put(&tool);
    wait_for(&daemon, "is another file now");
    let before = in_force(&daemon);
    namespace.again();
    until("the namespace to be followed", || (in_force(&daemon) > before).then_some(()));
    daemon.apply(&policy);

    first.kill();
    let mut second = start(&daemon);
    assert_eq!(next(&told), "READY=1");
    assert!(daemon.status().adopted);
    succeed(&mut daemon.ask(&["reload"]));
    kill(Pid::from_raw(second.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(next(&told), "STOPPING=1");
    assert!(until("its end", || second.ended()).success());
    assert!(daemon.pins().exists(), "what governs stays when the daemon is stopped");

    let mut third = start(&daemon);
    assert_eq!(next(&told), "READY=1");
    succeed(daemon.ask(&["down"]).arg("--pins").arg(daemon.pins()));
    assert!(until("its end", || third.ended()).success());
    assert!(!daemon.pins().exists());
}

/// As the unit has it, as far as that can be had. The process is the daemon's own: each command becomes the next.
fn start(daemon: &Daemon) -> Started {
    let serve = daemon.command();
    let log = File::options().append(true).create(true).open(log(daemon)).unwrap();
    let mut command = program("unshare");
    command.args(["--mount", "--propagation", "slave", "sh", "-ec", READ_ONLY, "sh"]).arg(daemon.state());
    command.args(["setpriv", "--no-new-privs", "--inh-caps", "-all", "--bounding-set", &bounding_set()]);
    command.arg(serve.get_program()).args(serve.get_args()).env("NOTIFY_SOCKET", daemon.file("notify"));
    Started::by(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log))
}

/// The set of the unit in setpriv's words.
fn bounding_set() -> String {
    let unit = text();
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let names = set.split_whitespace().map(|name| name.strip_prefix("CAP_").unwrap().to_lowercase());
    let set = names.fold("-all".to_owned(), |set, name| set + ",+" + &name);
    assert!(unit.contains("\nNoNewPrivileges=yes\n") && unit.contains("\nProtectSystem=strict\n") && set != "-all");
    set
}

fn text() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd/carnet.service")).unwrap()
}

fn log(daemon: &Daemon) -> PathBuf {
    daemon.file("unit.log")
}

fn wait_for(daemon: &Daemon, words: &str) {
    until(words, || fs::read_to_string(log(daemon)).unwrap().contains(words).then_some(()));
}

fn in_force(daemon: &Daemon) -> usize {
    fs::read_to_string(log(daemon)).unwrap().matches("is in force: ").count()
}

fn next(told: &UnixDatagram) -> String {
    told.set_read_timeout(Some(carnet_e2e::sockets::PATIENCE)).unwrap();
    let mut buffer = [0; 256];
    let length = told.recv(&mut buffer).expect("the daemon tells the service manager");
    String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
}

/// A program, in the place of the one that is there.
fn put(path: &Path) {
    let new = path.with_extension("new");
    fs::copy("/bin/true", &new).unwrap();
    fs::rename(new, path).unwrap();
}

/// A network namespace with a name. Removed when dropped.
struct Namespace(String);

impl Namespace {
    fn add(name: String) -> Self {
        succeed(program("ip").args(["netns", "add", &name]));
        Self(name)
    }

    /// Another one with this name.
    fn again(&self) {
        let _ = program("ip").args(["netns", "del", &self.0]).status();
        succeed(program("ip").args(["netns", "add", &self.0]));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The state's folder first: it stays what it is.
const READ_ONLY: &str = "state=$1; shift; mount --bind \"$state\" \"$state\"; mount -o remount,bind,ro /; exec \"$@\"";
/// Of 10, by systemd's count; a unit that restricts nothing has 9.6.
const MOST_EXPOSED: u32 = 40;
