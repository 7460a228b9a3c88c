//! As whom things run, and what carnet says where it may not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use carnet_e2e::command::{Ended, Run, carnet, carnet_run, finish, undisturbed};

use crate::{Scratch, THROUGH};

#[test]
fn under_sudo_the_command_is_the_users() {
    let service = reachable(THROUGH);
    let through = format!("{} {{port}}", service.path());
    let script = r#"echo ready; read line; id -u; id -g; id -G; echo "${SUDO_UID-none} ${SUDO_USER-none}""#;
    let mut command = carnet_run(&["--through", "inspect", "--through", &through, "--", "sh", "-c", script]);
    command.env("SUDO_UID", "12345").env("SUDO_GID", "23456").env("SUDO_USER", "somebody");
    let mut run = Run::start(&mut command);
    assert_eq!(run.line(), "ready");

    let [inspect] = run.service_processes(0)[..] else { panic!("the built-in service is one process") };
    let [through] = run.service_processes(1)[..] else { panic!("the other service is one process") };
    for (pid, uid, gid, what) in [(inspect, 65534, 65534, "inspect"), (through, 12345, 23456, "the service")] {
        assert_eq!(status(pid, "Uid"), [uid; 4], "{what}");
        assert_eq!(status(pid, "Gid"), [gid; 4], "{what}");
        assert!(status(pid, "Groups").is_empty(), "{what}");
        for capabilities in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(status(pid, capabilities), [0], "{capabilities} of {what}");
        }
    }
    assert_eq!(status(inspect, "NoNewPrivs"), [1]);

    run.say("go on");
    let ended = run.end();
    assert_eq!((ended.code, &ended.output[..]), (0, "12345\n23456\n23456\nnone none\n"), "{ended:?}");
}

#[test]
fn without_sudo_it_is_the_callers() {
    let mut run = Run::idle(&["--through", "inspect", "--through", &format!("'{THROUGH}' {{port}}")]);
    let [inspect] = run.service_processes(0)[..] else { panic!("the built-in service is one process") };
    let [through] = run.service_processes(1)[..] else { panic!("the other service is one process") };
    let [command] = run.command_processes()[..] else { panic!("the command is one process") };
    assert_eq!((status(inspect, "Uid"), status(inspect, "CapPrm")), (vec![65534; 4], vec![0]));
    assert_eq!(status(through, "Uid"), [0; 4]);
    assert_eq!(status(command, "Uid"), [0; 4]);
    run.close_input();
    assert_eq!(run.end().code, 0);
}

#[test]
fn a_sudo_uid_that_is_no_number() {
    let ended = finish(carnet_run(&["--", "echo", "started"]).env("SUDO_UID", "me").env("SUDO_GID", "0"));
    assert_said(&ended, "SUDO_UID");
}

#[test]
fn without_privilege() {
    let program = reachable(carnet().to_str().unwrap());
    let run = [program.path(), "run", "--", "echo", "started"];
    for (privileges, said) in [
        (&["--reuid=65534", "--regid=65534", "--clear-groups"][..], "Permission denied"),
        // As root of a container.
        (&["--bounding-set=-sys_admin,-net_admin,-bpf,-perfmon", "--inh-caps=-all"], "CAP_BPF"),
    ] {
        let ended = finish(undisturbed(Command::new("setpriv").args(privileges).args(run)));
        assert_said(&ended, said);
        assert!(ended.errors.contains("as root (sudo)"), "what to do: {ended:?}");
    }
}

#[test]
fn without_cgroup2() {
    // In a mount namespace of its own, so that nobody else misses it.
    let script = r#"awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts | xargs -n1 umount -l && exec "$0" "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(carnet());
    let ended = finish(undisturbed(command.args(["run", "--", "echo", "started"])));
    assert_said(&ended, "cgroup2");
    assert!(ended.errors.contains("mount -t cgroup2"), "what to do: {ended:?}");
}

/// Exit code 3, one line, and no command was started.
fn assert_said(ended: &Ended, words: &str) {
    assert_eq!((ended.code, &ended.output[..], ended.errors.lines().count()), (3, "", 1), "{ended:?}");
    assert!(ended.errors.starts_with("carnet: ") && ended.errors.contains(words), "{ended:?}");
}

/// A copy of a program where every user may run it; the directories above the original may be closed.
fn reachable(program: &str) -> Scratch {
    let copy = Scratch::new();
    fs::copy(program, copy.path()).unwrap();
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

/// A field of proc(5)'s status: numbers, capabilities as the hexadecimal ones they are.
fn status(pid: u32, field: &str) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    let radix = if field.starts_with("Cap") { 16 } else { 10 };
    value.split_ascii_whitespace().map(|number| u64::from_str_radix(number, radix).unwrap()).collect()
}
