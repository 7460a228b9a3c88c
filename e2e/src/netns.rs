//! Network namespaces of a test's own. A namespace belongs to the calling thread and lives as long as a thread or a
//! socket in it, so there is nothing to remove.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::gettid;

use crate::raw;

/// A network namespace that somebody has made. It is there as long as this is.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// That of a process.
    pub fn of(pid: u32) -> Self {
        Self::at(&format!("/proc/{pid}/ns/net"))
    }

    /// The calling thread's.
    pub fn own() -> Self {
        Self::at("/proc/thread-self/ns/net")
    }

    /// Does something on a thread in it. Sockets made there stay there.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let on_thread = || {
            self.enter();
            act()
        };
        thread::scope(|scope| scope.spawn(on_thread).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves the calling thread there: to be used on a thread that is a test's own.
    pub fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("setns; needs root");
    }

    fn at(path: &str) -> Self {
        Self(File::open(path).unwrap_or_else(|error| panic!("{path}: {error}")))
    }
}

/// The network namespace of a socket, as records have it.
pub fn cookie(socket: &impl AsFd) -> u64 {
    let mut cookie = [0; 8];
    assert_eq!(raw::get(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, &mut cookie), Ok(8));
    u64::from_ne_bytes(cookie)
}

/// Does something on a thread with a network namespace of its own: a loopback device, up, and nothing else.
pub fn alone<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let on_thread = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; needs root");
        ip("link set lo up");
        act()
    };
    thread::scope(|scope| scope.spawn(on_thread).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The same with an interface `carnet0` (10.99.0.1, fd99::1, 169.254.99.1 and a link-local IPv6 address) that leads to
/// a second namespace (10.99.0.2, fd99::2). `there` is done in the second one first; sockets made there stay there.
pub fn with_neighbour<N: Send, T: Send>(there: impl FnOnce() -> N + Send, here: impl FnOnce(N) -> T + Send) -> T {
    alone(|| {
        let own = || {
            ip("addr add 10.99.0.1/24 dev carnet0");
            ip("addr add 169.254.99.1/16 dev carnet0");
            ip("addr add fd99::1/64 dev carnet0 nodad");
            ip("addr add fe80::99/64 dev carnet0 nodad");
        };
        let its = || {
            ip("addr add 10.99.0.2/24 dev carnet1");
            ip("addr add fd99::2/64 dev carnet1 nodad");
        };
        here(neighbour(["carnet0", "carnet1"], own, its, there))
    })
}

/// Two neighbours that cannot be told apart by their address, 10.99.0.2: one behind `carnet0`, where the route leads, and
/// one behind `carnet2`. `there` is done in each first.
pub fn with_twin_neighbours<N: Send, T: Send>(
    there: impl Fn() -> N + Sync,
    here: impl FnOnce([N; 2]) -> T + Send,
) -> T {
    with_neighbour(&there, |first| {
        let own = || ip("addr add 10.99.0.1/24 dev carnet2 metric 1000");
        let its = || ip("addr add 10.99.0.2/24 dev carnet3");
        let second = neighbour(["carnet2", "carnet3"], own, its, &there);
        here([first, second])
    })
}

/// A second namespace, and a pair of interfaces that lead from one to the other. Each gets its addresses and is up, then
/// `there` is done.
fn neighbour<N: Send>(
    devices: [&str; 2],
    own: impl FnOnce(),
    its: impl FnOnce() + Send,
    there: impl FnOnce() -> N + Send,
) -> N {
    thread::scope(|scope| {
        let (tell, told) = channel();
        let (go_on, may_go_on) = channel();
        let neighbour = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; needs root");
            tell.send(gettid()).expect("the test waits");
            may_go_on.recv().expect("the test goes on");
            ip("link set lo up");
            its();
            ip(&format!("link set {} up", devices[1]));
            there()
        });
        let thread = told.recv().expect("the neighbour's thread");
        ip(&format!("link add {} type veth peer name {} netns {thread}", devices[0], devices[1]));
        own();
        ip(&format!("link set {} up", devices[0]));
        go_on.send(()).expect("the neighbour waits");
        neighbour.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `ip` in the calling thread's namespace.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.expect("ip starts: apt-get install iproute2").success(), "ip {arguments}");
}
