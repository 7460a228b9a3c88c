//! Network namespaces of a test's own. A namespace belongs to the calling thread and lives as long as a thread or a
//! socket in it, so there is nothing to remove.

use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

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
        thread::scope(|scope| {
            let (tell, told) = channel();
            let (go_on, may_go_on) = channel();
            let neighbour = scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; needs root");
                tell.send(gettid()).expect("the test waits");
                may_go_on.recv().expect("the test goes on");
                ip("link set lo up");
                ip("addr add 10.99.0.2/24 dev carnet1");
                ip("addr add fd99::2/64 dev carnet1 nodad");
                ip("link set carnet1 up");
                there()
            });
            let thread = told.recv().expect("the neighbour's thread");
            ip(&format!("link add carnet0 type veth peer name carnet1 netns {thread}"));
            ip("addr add 10.99.0.1/24 dev carnet0");
            ip("addr add 169.254.99.1/16 dev carnet0");
            ip("addr add fd99::1/64 dev carnet0 nodad");
            ip("addr add fe80::99/64 dev carnet0 nodad");
            ip("link set carnet0 up");
            go_on.send(()).expect("the neighbour waits");
            let made = neighbour.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            here(made)
        })
    })
}

/// Runs `ip` in the calling thread's namespace.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.expect("ip starts: apt-get install iproute2").success(), "ip {arguments}");
}
