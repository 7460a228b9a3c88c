//! Commands that ask `carnet serve`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use carnet_e2e::command::{Ended, finish};
use carnet_e2e::programs::Scratch;
use carnet_e2e::sockets::until;
use carnet_e2e::{Ground, Running};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::ask;

#[test]
fn a_daemon_is_asked_stopped_and_taken_down() {
    let served = Served::new("default = \"permit\"\n");
    let mut daemon = served.start();
    let file = served.scratch.file("policy.toml");
    let status = served.told(&["status"]);
    assert!(status.contains(&format!("process {}, version ", daemon.pid())), "{status}");
    assert!(status.contains("0 providers, 0 filters, 0 prefixes; what no filter"), "{status}");

    fs::write(served.scratch.file("ours"), "192.0.2.0/24\n198.51.100.0/24\n").unwrap();
    let text =
        "[sets.ours]\nfile = \"ours\"\n[[filter]]\nname = \"a\"\nmatch = { remote = \"@ours\" }\naction = \"block\"\n";
    fs::write(&file, text).unwrap();
    let told = served.told(&["apply", file.to_str().unwrap()]);
    assert!(told.ends_with(" is in force: 0 providers, 1 filter, 2 prefixes\n"), "{told}");
    assert!(served.told(&["policy"]).contains("prefixes = [\"192.0.2.0/24\", \"198.51.100.0/24\"]"));

    fs::write(&file, "default = \"blok\"\n").unwrap();
    let reloaded = served.ask(&["reload"]);
    assert_eq!(reloaded.code, 1, "{reloaded:?}");
    assert!(
        reloaded.output.contains(":1:11: mistake[unknown-word]") && reloaded.output.contains("^^^^^^"),
        "{reloaded:?}"
    );

    daemon.stop();
    let begun = Instant::now();
    for command in [&["status"][..], &["down"]] {
        let ended = served.ask(command);
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(ended.errors.contains(&format!("kill -CONT {}", daemon.pid())), "{ended:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "it is not waited for");
    daemon.resume();
    let down = served.told(&["down"]);
    assert!(down.ends_with("carnet is down\n"), "{down}");
    until("the daemon to end", || daemon.ended());
    assert!(!served.bpffs.join("carnet").exists());
}

/// Where a daemon can be.
struct Served {
    ground: Ground,
    bpffs: PathBuf,
    scratch: Scratch,
}

impl Served {
    fn new(policy: &str) -> Self {
        let ground = Ground::new();
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace; needs root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let scratch = Scratch::new();
        let (bpffs, run) = (scratch.file("bpf"), scratch.file("run"));
        fs::create_dir(&bpffs).unwrap();
        fs::create_dir(&run).unwrap();
        fs::set_permissions(run, fs::Permissions::from_mode(0o755)).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpf file system");
        fs::write(scratch.file("policy.toml"), policy).unwrap();
        Self { ground, bpffs, scratch }
    }

    /// Until it answers.
    fn start(&self) -> Running {
        let governed = self.ground.governed.path().strip_prefix(self.ground.hierarchy.mount()).unwrap();
        let mut command = ask(&["serve", "--cgroup"]);
        command.arg(governed).arg("--socket").arg(self.scratch.file("run/control.sock"));
        command.arg("--pins").arg(self.bpffs.join("carnet")).arg("--state").arg(self.scratch.file("state"));
        let daemon = Running::start(command.arg("--policy").arg(self.scratch.file("policy.toml")));
        until("the daemon to answer", || (self.ask(&["status"]).code == 0).then_some(()));
        daemon
    }

    fn ask(&self, arguments: &[&str]) -> Ended {
        finish(ask(arguments).arg("--socket").arg(self.scratch.file("run/control.sock")))
    }

    fn told(&self, arguments: &[&str]) -> String {
        let Ended { code, output, errors } = self.ask(arguments);
        assert_eq!((code, &errors[..]), (0, ""), "{arguments:?}: {output}");
        output
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.bpffs, MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount: {error}");
        }
    }
}
