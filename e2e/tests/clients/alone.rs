//! Where no daemon answers.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use carnet_e2e::command::{Ended, finish};
use carnet_e2e::programs::Scratch;
use carnet_e2e::sockets::until;
use carnet_e2e::{Ground, Running};
use carnet_engine::cgroup::Cgroup;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::ask;

#[test]
fn without_a_daemon_it_is_said_what_to_do() {
    let scratch = Scratch::new();
    let socket = scratch.file("control.sock");
    let policy = scratch.file("policy.toml");
    fs::write(&policy, "").unwrap();
    let policy = policy.to_str().unwrap();
    for arguments in
        [&["status"][..], &["providers"], &["flows"], &["events"], &["policy"], &["reload"], &["apply", policy]]
    {
        let ended = finish(ask(arguments).arg("--socket").arg(&socket));
        assert_eq!((ended.code, &ended.output[..]), (3, ""), "{arguments:?}");
        let expected = format!("carnet: no daemon listens at {}. Start one with `carnet serve`", socket.display());
        assert!(ended.errors.starts_with(&expected), "{arguments:?}: {}", ended.errors);
        assert_eq!(ended.errors.lines().count(), 1, "{arguments:?}: {}", ended.errors);
    }
    let ended = finish(ask(&["apply", "/nowhere"]).arg("--socket").arg(&socket));
    assert_eq!(ended.code, 3);
    assert!(ended.errors.starts_with("carnet: cannot read /nowhere: "), "{}", ended.errors);
}

#[test]
fn down_removes_what_a_killed_daemon_has_left_and_doctor_knows_of_it() {
    let left = Left::new();
    assert_eq!(left.doctor("pins-none")["level"], "ok");
    let down = left.down();
    let expected = "carnet was down: no daemon, and nothing in the kernel\n";
    assert_eq!((down.code, &down.output[..]), (0, expected), "{down:?}");

    let mut daemon = left.daemon();
    let served = left.doctor("engine-served");
    assert_eq!(served["details"]["held_by"], daemon.pid());

    // Its socket is another one: that it is to be told.
    let down = left.down();
    assert_eq!((down.code, &down.output[..]), (3, ""));
    assert!(down.errors.contains(&format!("process {} runs the engine", daemon.pid())), "{}", down.errors);
    assert!(down.errors.contains("--socket PATH"), "{}", down.errors);

    daemon.stop();
    assert_eq!(left.doctor("engine-stopped")["level"], "warning");
    let down = left.down();
    assert_eq!((down.code, &down.output[..]), (3, ""));
    assert!(down.errors.contains(&format!("kill -CONT {}", daemon.pid())), "{}", down.errors);

    daemon.kill();
    let unattended = left.doctor("engine-unattended");
    assert_eq!((&unattended["level"], &unattended["details"]["policy"]), (&"warning".into(), &1.into()));
    let down = left.down();
    assert_eq!((down.code, &down.errors[..]), (0, ""), "{down:?}");
    assert!(down.output.starts_with("removed engine ") && down.output.contains(", policy 1, "), "{}", down.output);
    assert!(down.output.ends_with("carnet is down, without a daemon\n"), "{}", down.output);
    assert!(!left.folder.exists());
    assert_eq!(left.doctor("pins-none")["level"], "ok");
}

#[test]
fn half_an_engine_is_removed_too() {
    let left = Left::new();
    let mut daemon = left.daemon();
    daemon.kill();
    fs::remove_file(left.folder.join("stamp")).unwrap();
    assert_eq!(left.doctor("pins-half-made")["level"], "warning");
    let down = left.down();
    assert_eq!(down.code, 0, "{down:?}");
    assert!(down.output.starts_with("removed what was left half made at "), "{}", down.output);
    assert!(!left.folder.exists());
}

/// Cgroups, and a bpf file system of the test's own.
struct Left {
    folder: PathBuf,
    ground: Ground,
    service: Cgroup,
    bpffs: PathBuf,
    scratch: Scratch,
}

impl Left {
    fn new() -> Self {
        let ground = Ground::new();
        // Nobody else sees what is mounted here, and it goes with this thread at the latest.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace; needs root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let scratch = Scratch::new();
        let bpffs = scratch.file("bpf");
        fs::create_dir(&bpffs).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpf file system");
        let service = ground.service(0);
        Self { folder: bpffs.join("carnet"), ground, service, bpffs, scratch }
    }

    /// A process that has pinned and attached an engine, and listens nowhere.
    fn daemon(&self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carnet-e2e-pinned"));
        command.arg("pinned").arg(&self.folder).arg(self.ground.governed.path()).arg(self.service.path());
        let mut daemon = Running::start(command.arg("127.0.0.1:9"));
        assert_eq!(daemon.line(), "attached");
        daemon
    }

    fn down(&self) -> Ended {
        let socket = self.scratch.file("control.sock");
        finish(ask(&["down", "--pins"]).arg(&self.folder).arg("--socket").arg(socket))
    }

    /// The one finding with this id. The file with the lock of a process that was killed goes a moment after it.
    fn doctor(&self, id: &str) -> Value {
        until(id, || {
            let ended = finish(ask(&["doctor", "--json", "--pins"]).arg(&self.folder));
            let report: Value = serde_json::from_str(&ended.output).unwrap();
            report["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id).cloned()
        })
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.bpffs, MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount: {error}");
        }
    }
}
