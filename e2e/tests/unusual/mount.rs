//! Connections of the kernel's own, besides further MPTCP subflows: nobody gets them, and an event says so.

use std::io::Read;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use carnet_abi::{EVENT_CONNECT, REASON_KERNEL, VERDICT_PASS};
use carnet_e2e::programs::Scratch;
use carnet_e2e::sockets::PATIENCE;
use nix::mount::{MsFlags, mount};

use super::{Course, Way};

/// The process that mounts makes the connection, with a socket of the kernel's in that process's cgroup. A service could
/// do nothing with it. The server is none, so that the mount fails.
#[test]
#[ignore = "needs a kernel with CIFS; `make test-kernel-6.1` runs it"]
fn the_connection_of_a_cifs_mount_is_left_alone() {
    let mut course = Course::new();
    let to = course.destination(Way::V4);
    let scratch = Scratch::new();
    let target = scratch.file("mounted");
    std::fs::create_dir(&target).unwrap();
    let options = format!("ip={},port={},username=nobody,password=none,vers=3.0", to.ip(), to.port());
    let over = AtomicBool::new(false);
    let requests = thread::scope(|scope| {
        let server = scope.spawn(|| hang_up_on_each(&course.servers[0], &over));
        let mounted = course.sandbox.in_app(|| {
            mount(Some("//127.0.0.1/share"), &target, Some("cifs"), MsFlags::empty(), Some(options.as_str()))
        });
        over.store(true, Ordering::Relaxed);
        assert!(
            mounted.is_err_and(|error| error != nix::Error::ENODEV),
            "this kernel has no CIFS, or a server answered"
        );
        server.join().unwrap()
    });
    assert!(requests.iter().any(|request| request.starts_with(b"\xfeSMB")), "{requests:?}");

    let events: Vec<_> = course.sandbox.events().into_iter().filter(|event| event.kind == EVENT_CONNECT).collect();
    assert_eq!(events.first().map(|event| event.pid), Some(std::process::id()));
    for event in &events {
        assert_eq!((event.verdict, event.reason), (VERDICT_PASS, REASON_KERNEL), "{event:#?}");
        assert_eq!(event.remote.to_socket_addr(), to);
    }
    course.assert_nothing_left();
}

/// What each said, without the length in front.
fn hang_up_on_each(server: &TcpListener, over: &AtomicBool) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let Ok((mut client, _)) = server.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = [0; 68];
        if client.read_exact(&mut request).is_ok() {
            requests.push(request[4..].to_vec());
        }
    }
    requests
}
