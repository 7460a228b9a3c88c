use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use carnet::Origin;
use carnet_abi::{CARNET_RECORDS, RECORDS_MAX, SOL_CARNET};
use carnet_e2e::actor::{Actor, Call, Family, Reply};
use carnet_e2e::enter;
use carnet_e2e::netns::{Namespace, cookie};
use carnet_e2e::sockets::{PATIENCE, until};
use carnet_engine::cgroup::{Cgroup, Hierarchy};

/// What runs in containers.
pub const ACTOR: &str = env!("CARGO_BIN_EXE_carnet-e2e-actor");

/// A network namespace of its own, and root: what engines of containers give without user namespaces.
pub const NETWORK: &[&str] = &["unshare", "--net"];

/// What a user who is not root can make: a user namespace, where it is root, and a network namespace in that.
pub const ROOTLESS: &[&str] =
    &["setpriv", "--reuid=4320", "--regid=5430", "--clear-groups", "unshare", "--user", "--map-root-user", "--net"];

/// The user of [`ROOTLESS`], who is root inside.
pub const UID: u32 = 4320;
/// Its group.
pub const GID: u32 = 5430;
/// Words that make a program that user's.
pub const AS_USER: &[&str] = &["setpriv", "--reuid=4320", "--regid=5430", "--clear-groups"];

/// A process in namespaces and a cgroup of its own that makes calls for the test. What it makes, the test holds.
pub struct Container {
    actor: Actor,
    /// Its network namespace.
    pub namespace: Namespace,
    /// The cgroup it was started in.
    pub cgroup: Cgroup,
    /// Its process id outside.
    pub pid: u32,
}

impl Container {
    /// Starts it. The words make the namespaces and then run what follows them, as `unshare` does.
    pub fn start(cgroup: Cgroup, namespaces: &[&str]) -> Self {
        Self::with(cgroup, namespaces, "ip link set lo up")
    }

    /// One more beside another, in its network namespace alone, as the containers of a pod are. The words change who it is.
    pub fn beside(other: &Self, cgroup: Cgroup, words: &[&str]) -> Self {
        let namespace = format!("--net=/proc/{}/ns/net", other.pid);
        Self::with(cgroup, &[&["nsenter", &namespace], words].concat(), "true")
    }

    /// The same with shell commands that get it ready, inside.
    pub fn with(cgroup: Cgroup, namespaces: &[&str], ready: &str) -> Self {
        let mut command = enter(&cgroup, namespaces[0]);
        // By a relative path, because other users may not look into the directories above.
        command.current_dir(Path::new(ACTOR).parent().unwrap()).args(&namespaces[1..]);
        command.args(["sh", "-c", &format!("{ready} && exec \"$0\""), "./carnet-e2e-actor"]);
        Self::by(cgroup, &mut command)
    }

    /// By a command that runs [`ACTOR`] in a container, with the command's standard input.
    pub fn by(cgroup: Cgroup, command: &mut Command) -> Self {
        assert_may_make_user_namespaces();
        let actor = Actor::start(command);
        // The line's other end is the container's alone, so that it ends where that does not start.
        command.stdin(Stdio::null());
        // It answers, so it is what it is to be.
        actor.call(&Call::Socket(Family::V4), None);
        let pid = until("the container's process", || actor_in(cgroup.path()));
        Self { actor, namespace: Namespace::of(pid), cgroup, pid }
    }

    /// Has a call made.
    pub fn call(&self, call: &Call, socket: &impl AsFd) -> Reply {
        self.actor.call(call, Some(socket.as_fd())).0
    }

    /// A socket of this family, made in there.
    pub fn socket(&self, family: Family) -> OwnedFd {
        self.make(&Call::Socket(family))
    }

    /// Somebody in there listens.
    pub fn listen(&self, at: SocketAddr) -> TcpListener {
        self.make(&Call::Listen(at)).into()
    }

    /// connect() by the container, whoever has made the socket.
    pub fn connect(&self, socket: OwnedFd, to: SocketAddr) -> Result<TcpStream, i32> {
        let error = self.call(&Call::Connect(to), &socket).error;
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        if error == 0 { Ok(socket) } else { Err(error) }
    }

    /// The same with a socket of its own.
    pub fn dial(&self, to: SocketAddr) -> Result<TcpStream, i32> {
        self.connect(self.socket(if to.is_ipv4() { Family::V4 } else { Family::Dual }), to)
    }

    /// The same as a service: it goes on with a flow whose connection it has.
    pub fn dial_on(&self, accepted: &impl AsFd, to: SocketAddr) -> Result<TcpStream, i32> {
        let records = self.call(&Call::Get(SOL_CARNET, CARNET_RECORDS, RECORDS_MAX), accepted);
        assert_eq!(records.error, 0, "{records:?}");
        let socket = self.socket(if to.is_ipv4() { Family::V4 } else { Family::Dual });
        let set = self.call(&Call::Set(SOL_CARNET, CARNET_RECORDS, records.bytes), &socket);
        assert_eq!(set.error, 0, "{set:?}");
        self.connect(socket, to)
    }

    /// The cgroup in which its process is: the one it was started in, or one that it has made below.
    pub fn cgroup_now(&self, hierarchy: &Hierarchy) -> Cgroup {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).unwrap();
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        Cgroup::open(hierarchy, &hierarchy.mount().join(path)).unwrap()
    }

    /// Whether this is the origin of a flow of the socket's, by what the initial namespaces know of it.
    pub fn assert_is(&self, origin: &Origin, socket: &impl AsFd) {
        assert_eq!((origin.pid, ticks(origin.start_time)), (self.pid, start_ticks(self.pid)));
        let cgroup = Hierarchy::find().map(|hierarchy| self.cgroup_now(&hierarchy)).unwrap();
        assert_eq!((origin.cgroup_id, origin.netns_cookie), (cgroup.id(), cookie(socket)));
        assert_eq!((origin.uid, origin.gid), (id(self.pid, "Uid"), id(self.pid, "Gid")));
        assert_eq!(origin.comm, NAME);
    }

    fn make(&self, call: &Call) -> OwnedFd {
        let (reply, made) = self.actor.call(call, None);
        made.unwrap_or_else(|| panic!("{call:?}: {reply:?}"))
    }
}

/// Some distributions keep them from users.
fn assert_may_make_user_namespaces() {
    for (name, allowed) in [("apparmor_restrict_unprivileged_userns", "0"), ("unprivileged_userns_clone", "1")] {
        // Where there is no such setting, nothing is kept.
        let set = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or(allowed.into());
        assert_eq!(set.trim_end(), allowed, "these tests need: sysctl -w kernel.{name}={allowed}");
    }
}

/// Real id of a process, as the initial namespace has it.
pub fn id(pid: u32, field: &str) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

/// The process of the actor's program in a cgroup or below it.
fn actor_in(cgroup: &Path) -> Option<u32> {
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let is_actor =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == NAME);
    let here = procs.lines().filter_map(|pid| pid.parse().ok()).find(is_actor);
    let below = || {
        fs::read_dir(cgroup)
            .ok()?
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .find_map(|entry| actor_in(&entry.path()))
    };
    here.or_else(below)
}

fn ticks(time: Duration) -> u64 {
    time.as_millis() as u64 / 10
}

/// Field 22 of proc(5)'s stat, of the initial time namespace.
fn start_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat[stat.rfind(')').unwrap() + 2..].split(' ').nth(19).unwrap().parse().unwrap()
}

/// As much of its name as the kernel keeps.
const NAME: &str = "carnet-e2e-acto";
