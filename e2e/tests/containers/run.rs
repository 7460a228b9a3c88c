//! `carnet run` and namespaces: commands that leave for another network namespace, and `carnet run` in one.

use std::path::Path;
use std::process::Command;

use carnet_e2e::command::{Ended, carnet, carnet_run, finish, undisturbed};
use carnet_e2e::flow_log::FlowLog;
use carnet_e2e::programs::{Scratch, require};

use crate::container::{NETWORK, ROOTLESS};

/// Nobody listens where the command is, and the service is closed when dead: it is refused, and the log says why.
#[test]
fn a_command_that_leaves_for_a_namespace_without_the_service_is_refused() {
    for leaves in [NETWORK, ROOTLESS, BY_IP] {
        let (ended, log) = logged(&[], leaves);
        assert_eq!((ended.code, &ended.output[..]), (1, ""), "{leaves:?} {ended:?}");
        assert!(ended.errors.contains("Connection refused"), "{ended:?}");
        let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        assert_eq!((flow.text("decision"), flow.text("reason")), (Some("refused"), Some("dead")));
        assert_eq!((flow.at(), flow.text("error")), (Some("inspect"), Some("ECONNREFUSED")));
    }
    let ended = finish(&mut run(&[], ROOTLESS));
    let line = "refused by carnet (inspect: nobody listens there)";
    assert!(ended.errors.lines().any(|said| said.contains(line)), "{ended:?}");
}

#[test]
fn with_open_it_goes_its_way_and_the_log_says_so() {
    for leaves in [NETWORK, ROOTLESS, BY_IP] {
        let (ended, log) = logged(&["--open"], leaves);
        assert_eq!((ended.code, &ended.output[..]), (0, "hello\n"), "{leaves:?} {ended:?}");
        let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        assert_eq!((flow.text("ended"), flow.chain()), (Some("closed"), vec![]), "{flow:?}");
        assert_eq!(flow.bytes(), (6, 6));
    }
}

/// There its services are in that namespace too. Process ids in its log are those of the initial namespace.
#[test]
fn in_namespaces_of_its_own_carnet_run_works() {
    for namespaces in
        ["unshare --net", "unshare --net --pid --fork --kill-child --mount-proc", "unshare --net --cgroup --ipc --uts"]
    {
        let scratch = Scratch::new();
        let file = scratch.file("log");
        let words: Vec<_> = namespaces.split(' ').collect();
        let inner =
            [carnet().to_str().unwrap(), "run", "--json", "--log", file.to_str().unwrap(), "--"].map(str::to_owned);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).args(inner);
        let ended = finish(at_home(undisturbed(&mut command)).args(["bash", "-c", EXCHANGE]));
        assert_eq!((ended.code, &ended.output[..]), (0, "hello\n"), "{namespaces}: {ended:?}");
        let log = FlowLog::read(&file);
        let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        assert_eq!((flow.text("ended"), flow.chain()), (Some("closed"), vec![("inspect", false)]), "{flow:?}");
        assert!(flow.number("pid") > 100, "no process of the host's has so low a number as those in there: {flow:?}");
    }
}

/// `ip netns exec` mounts over the hierarchy. What to do instead is said, and works.
#[test]
fn by_ip_netns_exec_carnet_run_says_what_to_use_instead() {
    let carnet = carnet();
    let run = [carnet.to_str().unwrap(), "run", "--", "bash", "-c", EXCHANGE];
    let ended = finish(at_home(undisturbed(&mut named(&["ip", "netns", "exec", "there"]))).args(run));
    assert_said(&ended, "no cgroup2 hierarchy is mounted");
    assert!(ended.errors.contains("nsenter --net=/run/netns/NAME"), "{ended:?}");
    let ended = finish(at_home(undisturbed(&mut named(&["nsenter", "--net=/run/netns/there"]))).args(run));
    assert_eq!((ended.code, &ended.output[..]), (0, "hello\n"), "{ended:?}");
}

/// Root of a user namespace may not load programs into the kernel, whoever it is outside.
#[test]
fn in_a_user_namespace_carnet_run_says_that_it_may_not() {
    let scratch = Scratch::new();
    let program = scratch.file("carnet");
    std::fs::copy(carnet(), &program).unwrap();
    for (namespaces, said) in
        [(ROOTLESS, "Run it as root (sudo)"), (ROOT_IN_NAMESPACES, "CAP_BPF outside its user namespace")]
    {
        let mut command = Command::new(namespaces[0]);
        command.args(&namespaces[1..]).arg(&program).args(["run", "--", "echo", "started"]);
        let ended = finish(undisturbed(&mut command));
        assert_said(&ended, said);
        assert!(ended.errors.contains("Permission denied") || ended.errors.contains("not permitted"), "{ended:?}");
    }
}

/// `carnet run` of an exchange in a namespace that these words make, and its log.
fn logged(options: &[&str], leaves: &[&str]) -> (Ended, FlowLog) {
    let scratch = Scratch::new();
    let file = scratch.file("log");
    let log = ["--json", "--log", file.to_str().unwrap()];
    let ended = finish(&mut run(&[options, &log].concat(), leaves));
    (ended, FlowLog::read(&file))
}

fn run(options: &[&str], leaves: &[&str]) -> Command {
    let exchange = format!("ip link set lo up && {EXCHANGE}");
    let mut command = if leaves == BY_IP {
        let mut command = named(&[carnet().to_str().unwrap(), "run"]);
        undisturbed(&mut command).args(options);
        command
    } else {
        carnet_run(options)
    };
    at_home(&mut command).arg("--").args(leaves).args(["bash", "-c", &exchange]);
    command
}

/// A command in a mount namespace where a network namespace has the name `there`. Both end with it.
fn named(words: &[&str]) -> Command {
    require(&["ip", "nsenter", "unshare"]);
    let mut command = Command::new("unshare");
    let make = "mount -t tmpfs none /run && ip netns add there && ip -n there link set lo up && exec \"$@\"";
    command.args(["--mount", "sh", "-c", make, "sh"]).args(words);
    command
}

/// In the directory of the tests' programs: users who may not look into those above can start them from there.
fn at_home(command: &mut Command) -> &mut Command {
    command.current_dir(Path::new(RELAY).parent().unwrap())
}

/// Exit code 3, one line, and no command was started.
fn assert_said(ended: &Ended, words: &str) {
    assert_eq!((ended.code, &ended.output[..], ended.errors.lines().count()), (3, "", 1), "{ended:?}");
    assert!(ended.errors.starts_with("carnet: ") && ended.errors.contains(words), "{ended:?}");
}

const BY_IP: &[&str] = &["ip", "netns", "exec", "there"];
const ROOT_IN_NAMESPACES: &[&str] = &["unshare", "--user", "--map-root-user", "--net"];
const RELAY: &str = env!("CARGO_BIN_EXE_carnet-e2e-relay");
/// A server and a client of it, both in there.
const EXCHANGE: &str = r#"
    coproc ./carnet-e2e-relay server
    read -r v4 v6 <&"${COPROC[0]}"
    exec 3<>"/dev/tcp/${v4%:*}/${v4##*:}" || exit 1
    echo hello >&3
    head -n 1 <&3
    exec 3>&-
"#;
