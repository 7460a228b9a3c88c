//! Containers made by the programs that people make them with: an OCI runtime as Podman and Kubernetes have it (`crun`),
//! and what desktops run applications in (`bwrap`). Root directories of their own, all namespaces, no network but loopback.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use carnet_e2e::enter;
use carnet_e2e::netns::{cookie, with_neighbour};
use carnet_e2e::programs::{Scratch, require};
use carnet_e2e::sockets::{accept, assert_joined, is_idle, listen};
use carnet_engine::cgroup::Cgroup;
use carnet_policy::Service as Kind;
use serde_json::{Value, json};

use crate::container::{ACTOR, AS_USER, Container, UID};
use crate::{at, decided, flow_of, listen_in, sandbox};

/// The service is on the host. The container's network leads nowhere, and its application reaches what the host reaches.
#[test]
fn an_application_in_a_container_of_a_runtime() {
    with_neighbour(
        || listen("10.99.0.2:0"),
        |server| {
            for (maker, uid) in [(Maker::CrunInAUserNamespace, FIRST_SUBORDINATE), (Maker::Bwrap, UID)] {
                let mut sandbox = sandbox();
                let service = sandbox.service(Kind::Aware);
                let runtime = Runtime::new();
                let cgroup = sandbox.app_cgroup().child("container").unwrap();
                let container = runtime.start(cgroup, maker);
                assert_eq!(decided(&mut sandbox, &container, at(&server)).0.unwrap_err(), libc::ECONNREFUSED);

                let inside = listen_in(&sandbox, &service, &container.namespace);
                let mut client = container.dial(at(&server)).expect("connect");
                let mut accepted = accept(&inside[0]);
                container.assert_is(flow_of(&accepted).origin(), &client);
                assert_eq!(flow_of(&accepted).origin().uid, uid);
                assert_joined(&mut client, &mut accepted);
                let mut onward = sandbox.in_service(0, || carnet::dial(&accepted)).expect("dial");
                assert_joined(&mut onward, &mut accept(&server));
                assert!(service.listeners.iter().all(is_idle));
            }
        },
    );
}

/// As in a pod: the service is a container of its own in the application's network namespace, and its cgroup is the owner.
#[test]
fn a_service_in_a_container_beside_the_application() {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    let runtime = Runtime::new();
    let application = runtime.start(sandbox.app_cgroup().child("application").unwrap(), Maker::Crun);
    let sidecar = runtime.start(sandbox.service_cgroup(0).child("sidecar").unwrap(), Maker::CrunBeside(&application));
    let listener = sidecar.listen(at(&service.listeners[0]));
    let server = application.namespace.within(|| listen("127.0.0.1:0"));
    let mut client = application.dial(at(&server)).expect("connect");
    let mut accepted = accept(&listener);
    application.assert_is(flow_of(&accepted).origin(), &client);
    assert_joined(&mut client, &mut accepted);
    let mut onward = sidecar.dial_on(&accepted, at(&server)).expect("connect");
    assert_eq!(cookie(&onward), cookie(&client));
    assert_joined(&mut onward, &mut accept(&server));
}

#[derive(Clone, Copy)]
enum Maker<'a> {
    /// As root, with a network namespace of its own.
    Crun,
    /// With the network namespace of another one.
    CrunBeside(&'a Container),
    /// Its root is a user who is nobody else outside.
    CrunInAUserNamespace,
    /// By a user who is not root.
    Bwrap,
}

/// A directory with what containers are made of.
struct Runtime(Scratch);

impl Runtime {
    fn new() -> Self {
        require(&["crun", "bwrap", "setpriv", "unshare"]);
        let scratch = Scratch::new();
        let program = scratch.file("program");
        fs::copy(ACTOR, &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        Self(scratch)
    }

    fn start(&self, cgroup: Cgroup, maker: Maker<'_>) -> Container {
        let bundle = self.0.file(cgroup.path().file_name().unwrap().to_str().unwrap());
        let program = self.0.file("program");
        match maker {
            Maker::Bwrap => {
                let mut command = enter(&cgroup, AS_USER[0]);
                command.args(&AS_USER[1..]).args(BWRAP.split_ascii_whitespace());
                Container::by(cgroup, command.arg("--ro-bind").arg(&program).args([PROGRAM, PROGRAM]))
            }
            _ => {
                write_bundle(&bundle, &program, maker);
                // Where a machine has version 1 of the hierarchies too, crun wants to see nothing of that.
                let mut command = enter(&cgroup, "unshare");
                command.args(["--mount", "sh", "-c", "mount -t cgroup2 none /sys/fs/cgroup && exec crun \"$@\"", "sh"]);
                // The cgroup is there already, and the runtime leaves the hierarchy alone.
                command.arg("--root").arg(self.0.file("state")).args(["--cgroup-manager=disabled", "run", "--bundle"]);
                let name = format!("carnet-{}", cgroup.id());
                Container::by(cgroup, command.arg(&bundle).arg(name))
            }
        }
    }
}

fn write_bundle(bundle: &Path, program: &Path, maker: Maker<'_>) {
    let root = bundle.join("root");
    for directory in ["", "proc", "dev", "usr"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for directory in ["bin", "lib", "lib64"] {
        symlink(Path::new("usr").join(directory), root.join(directory)).unwrap();
    }
    fs::write(root.join(&PROGRAM[1..]), "").unwrap();
    fs::write(bundle.join("config.json"), config(program, maker).to_string()).unwrap();
}

/// As the OCI runtime specification has it.
fn config(program: &Path, maker: Maker<'_>) -> Value {
    let mut namespaces =
        vec![json!({"type": "pid"}), json!({"type": "mount"}), json!({"type": "cgroup"}), json!({"type": "ipc"})];
    namespaces.push(match maker {
        Maker::CrunBeside(other) => json!({"type": "network", "path": format!("/proc/{}/ns/net", other.pid)}),
        _ => json!({"type": "network"}),
    });
    let mut linux = json!({});
    if let Maker::CrunInAUserNamespace = maker {
        namespaces.push(json!({"type": "user"}));
        let mapping = json!([{"containerID": 0, "hostID": FIRST_SUBORDINATE, "size": 1000}]);
        linux = json!({"uidMappings": mapping, "gidMappings": mapping});
    }
    linux["namespaces"] = namespaces.into();
    let bind = |source: &Path, destination: &str| json!({"type": "bind", "source": source, "destination": destination, "options": ["rbind", "ro"]});
    json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": [PROGRAM], "cwd": "/", "noNewPrivileges": true},
        "root": {"path": "root", "readonly": true},
        "mounts": [
            {"type": "proc", "source": "proc", "destination": "/proc"},
            {"type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": ["mode=755"]},
            bind(Path::new("/usr"), "/usr"),
            bind(program, PROGRAM),
        ],
        "linux": linux,
    })
}

/// Inside. Its name is what its process is known by.
const PROGRAM: &str = "/carnet-e2e-actor";
const BWRAP: &str = "bwrap --unshare-all --uid 0 --gid 0 --die-with-parent --ro-bind /usr /usr --symlink usr/bin /bin \
                     --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc --dev /dev";
const FIRST_SUBORDINATE: u32 = 100_000;
