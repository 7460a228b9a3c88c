//! Two threads at one socket or one address, and processes that become others.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::linux::fs::MetadataExt;
use std::process::Stdio;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Instant;
use std::{fs, thread};

use carnet::Redirect;
use carnet_abi::REASON_BLOCKED;
use carnet_e2e::programs::Started;
use carnet_e2e::raw::{self, Ring};
use carnet_e2e::sockets::{PATIENCE, accept, connect, is_idle, listen, stream, until};
use carnet_e2e::{Scene, set_records};
use carnet_policy::{HostAction, Match};
use libc::{EACCES, EISCONN};
use socket2::Socket;

use super::{Over, Stage, assert_refused, let_pass_alone};

/// One port is let pass and all others are refused. What the hook sees is where the connection goes.
#[test]
fn an_address_that_changes_while_connect_reads_it() {
    connect_while_it_changes(|| |socket: &Socket, to: &[AtomicU8]| raw::connect_shared(socket, to));
}

/// The ring's own thread and its workers read it when they come to it.
#[test]
fn an_address_that_changes_while_io_uring_reads_it() {
    for make in [Ring::inline, Ring::workers, Ring::poller] {
        connect_while_it_changes(|| {
            let mut ring = make();
            move |socket: &Socket, to: &[AtomicU8]| ring.connect_shared(socket, to)
        });
    }
}

fn connect_while_it_changes<C>(make: impl FnOnce() -> C)
where
    C: FnMut(&Socket, &[AtomicU8]) -> Result<(), i32>,
{
    const EACH: usize = 30;
    let mut stage = Stage::new();
    let allowed = listen("127.0.0.1:0");
    let ports = [&allowed, &stage.server].map(|server| server.local_addr().unwrap().port().to_be_bytes());
    let_pass_alone(&mut stage.sandbox, allowed.local_addr().unwrap());
    let at = allowed.local_addr().unwrap();
    let shared = sockaddr(at).map(AtomicU8::new);
    let over = AtomicBool::new(false);
    let (came, others) = stage.sandbox.in_app(|| {
        let mut connect = make();
        thread::scope(|scope| {
            let _over = Over(&over);
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for port in &ports {
                        shared[2..4].iter().zip(port).for_each(|(at, &byte)| at.store(byte, Ordering::Relaxed));
                    }
                }
            });
            let (mut came, mut others) = (0, Vec::new());
            let end = Instant::now() + PATIENCE;
            while (came < EACH || others.len() < EACH) && Instant::now() < end {
                match connect(&stream(at), &shared) {
                    Ok(()) => {
                        accept(&allowed);
                        came += 1;
                    }
                    Err(errno) => others.push(errno),
                }
            }
            (came, others)
        })
    });
    assert!(came >= EACH && others.len() >= EACH, "{came} came, and {} not", others.len());
    assert!(others.iter().all(|&errno| errno == EACCES), "{others:?}");
    assert!(is_idle(&allowed));
    stage.assert_nobody_came();
}

/// Both hold the socket's lock. What is set in time is carried, what comes too late says so, and nothing is in between.
#[test]
fn a_record_that_is_set_while_another_thread_connects() {
    let scene = Scene::new();
    let (blob, to) = (scene.blob(), scene.destination());
    let flow = Redirect::of(&scene.accepted).flow().unwrap().id();
    let mut seen = [0; 2];
    until("records that come in time, and too late", || {
        let (socket, start) = (scene.socket(), Barrier::new(2));
        let set = scene.sandbox.in_service(0, || {
            thread::scope(|scope| {
                let set = scope.spawn(|| {
                    start.wait();
                    set_records(&socket, &blob)
                });
                start.wait();
                socket.connect(&to.into()).expect("connect");
                set.join().unwrap()
            })
        });
        let at_second = Redirect::of(&accept(&scene.second.listeners[0])).flow().unwrap();
        match set {
            Ok(()) => assert_eq!((at_second.depth(), at_second.id()), (2, flow)),
            Err(errno) => {
                assert_eq!((errno, at_second.depth()), (EISCONN, 1));
                assert_ne!(at_second.id(), flow);
            }
        }
        seen[usize::from(set.is_ok())] += 1;
        (seen.iter().sum::<u32>() >= 100 && seen.iter().all(|&times| times >= 3)).then_some(())
    });
}

/// To two destinations, of which one is refused. The other one may come about, once.
#[test]
fn two_threads_that_connect_one_socket() {
    let mut stage = Stage::new();
    let allowed = listen("127.0.0.1:0");
    let_pass_alone(&mut stage.sandbox, allowed.local_addr().unwrap());
    let destinations = [allowed.local_addr().unwrap(), stage.destination];
    let mut seen = Vec::new();
    until("each thread to be the first one a few times", || {
        let (socket, start) = (stage.sandbox.in_app(|| stream(destinations[0])), Barrier::new(2));
        let connect = |to: SocketAddr| {
            start.wait();
            socket.connect(&to.into()).map_err(|error| error.raw_os_error().unwrap())
        };
        let [passed, refused] = stage.sandbox.in_app(|| {
            thread::scope(|scope| {
                let threads = destinations.map(|to| scope.spawn(move || connect(to)));
                threads.map(|thread| thread.join().unwrap())
            })
        });
        assert_eq!(passed, Ok(()));
        assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(destinations[0]));
        accept(&allowed);
        seen.push(refused.err());
        let count = |errno| seen.iter().filter(|&&seen| seen == Some(errno)).count();
        (count(EACCES) >= 3 && count(EISCONN) >= 3).then_some(())
    });
    // Who comes while the other one's connection is on its way waits for that, and gets it.
    assert!(seen.iter().all(|errno| [Some(EACCES), Some(EISCONN), None].contains(errno)), "{seen:?}");
    stage.assert_nobody_came();
}

/// The origin is who connects. What that process becomes later is another program's business.
#[test]
fn a_program_that_connects_and_executes_another() {
    let stage = Stage::new();
    let port = stage.destination.port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && exec cat");
    let mut command = stage.sandbox.app_command("bash");
    let process = Started::by(command.args(["-c", &script]).stdin(Stdio::piped()));
    let accepted = accept(&stage.service.listeners[0]);
    let exe = |name: &str| fs::metadata(name).unwrap().st_ino();
    let now = format!("/proc/{}/exe", process.id());
    let own = exe("/bin/bash");
    until("the other program", || (exe(&now) != own).then_some(()));
    let flow = Redirect::of(&accepted).flow().unwrap();
    assert_eq!((flow.origin().pid, flow.origin().comm.as_str()), (process.id(), "bash"));
    assert_eq!(flow.origin().exe.inode, own);
}

/// A socket that somebody has come to by `accept()` is the listener's: disconnected it is decided on like any other.
#[test]
fn an_accepted_socket_that_connects_elsewhere() {
    let stage = Stage::new();
    let listener = stage.sandbox.in_app(|| listen("127.0.0.1:0"));
    let _peer = connect(listener.local_addr().unwrap()).unwrap();
    let accepted = accept(&listener);
    stage.sandbox.in_app(|| {
        raw::disconnect(&accepted).unwrap();
        Socket::from(accepted.try_clone().unwrap()).connect(&stage.destination.into()).expect("connect");
    });
    stage.assert_redirected();
}

/// A decision is on one `connect()`. Where the SYN waits for the first write, it is an old one when it leaves.
#[test]
fn a_connection_that_is_kept_for_later_is_as_decided_before() {
    let mut stage = Stage::new();
    stage.sandbox.host_filter(Match::default(), HostAction::Permit);
    let mut waiting = stage.sandbox.in_app(|| {
        let socket = stream(stage.destination);
        for option in [libc::TCP_FASTOPEN_CONNECT, libc::TCP_FASTOPEN_NO_COOKIE] {
            raw::set(&socket, libc::IPPROTO_TCP, option, &1_i32.to_ne_bytes()).expect("TCP Fast Open");
        }
        socket.connect(&stage.destination.into()).expect("nothing is sent yet");
        TcpStream::from(socket)
    });
    assert!(is_idle(&stage.server));
    stage.sandbox.policy.filters.clear();
    stage.sandbox.policy.default = HostAction::Block;
    stage.sandbox.policy.providers.clear();
    stage.sandbox.apply();
    assert_refused(&mut stage.sandbox, stage.destination, EACCES, REASON_BLOCKED);
    waiting.write_all(b"1").expect("it begins");
    accept(&stage.server);
}

/// A `struct sockaddr_in`.
fn sockaddr(at: SocketAddr) -> [u8; 16] {
    let SocketAddr::V4(at) = at else { panic!("{at} is not IPv4") };
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&at.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&at.ip().octets());
    bytes
}
