//! Bad moments: queues that are full, ports that come back at once, clients that are gone, maps and memory without room.
//! Each has one defined answer; the table "Under pressure" in ARCHITECTURE.md names them with their tests.
//!
//! The n-th client goes to a destination of its own and sends its number. So the socket that a service accepts says
//! twice whose it is, once by its record and once by its bytes, and neither knows of the other.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod backlog;
mod gone;
mod overflow;
mod parallel;
mod reuse;
mod room;
mod share;

use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::Redirect;
use carnet_abi::{
    COUNT_EVENTS_LOST, COUNT_HANDED_OVER, COUNT_HELD_BACK, COUNT_LOST_CONTEXT, COUNT_NO_ROOM, COUNT_REDIRECTED,
    COUNT_STRANGERS, EVENT_LOST,
};
use carnet_e2e::sockets::{PATIENCE, stream, until};
use carnet_e2e::{Sandbox, Service, raw};
use carnet_policy::Service as Kind;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{SockRef, Socket};

/// Where the n-th client goes. Nobody is there: only a service has these connections.
fn destination(turn: usize) -> SocketAddr {
    let [.., a, b, c] = turn.to_be_bytes();
    ([127, a + 1, b, c], 9).into()
}

/// What the n-th client sends.
fn word(turn: usize) -> [u8; 4] {
    u32::try_from(turn).expect("there are not so many").to_be_bytes()
}

/// Begins to connect. The socket is non-blocking and stays so.
fn begin(to: SocketAddr) -> Socket {
    let socket = stream(to);
    socket.set_nonblocking(true).expect("non-blocking");
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
        Err(error) => panic!("connect to {to}: {error}"),
    }
    socket
}

/// A service with room for all.
fn service(sandbox: &mut Sandbox) -> Service {
    sandbox.service_at(Kind::Aware, &["127.0.0.1:0"])
}

/// A service whose queue has one place, and the client who has it: whoever connects now waits for the service.
fn full_queue(sandbox: &mut Sandbox) -> (Service, Socket) {
    let service = service(sandbox);
    set_backlog(&service.listeners[0], 0);
    let occupant = sandbox.in_app(|| begin(destination(0)));
    until("the queue to be full", || (info(&occupant).state == ESTABLISHED).then_some(()));
    until("the hand-over", || (sandbox.engine.open_handovers().unwrap() == 0).then_some(()));
    (service, occupant)
}

/// A connection that waits already, and who the kernel says has come.
fn next(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept() {
        Ok((accepted, peer)) => {
            accepted.set_nonblocking(false).expect("blocking");
            accepted.set_read_timeout(Some(PATIENCE)).expect("timeout");
            Some((accepted, peer))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("accept: {error}"),
    }
}

/// These clients arrive, each once and with its record; in the order in which they come.
fn accept_each(listener: &TcpListener, expected: impl IntoIterator<Item = usize>) -> Vec<(TcpStream, usize)> {
    let expected: Vec<usize> = expected.into_iter().collect();
    let mut accepted: Vec<(TcpStream, usize)> = Vec::new();
    while accepted.len() < expected.len() {
        let (arrived, peer) = until("a connection", || next(listener));
        let turn = turn_of_record(&arrived, peer);
        accepted.push((arrived, turn));
    }
    let mut came: Vec<usize> = accepted.iter().map(|(_, turn)| *turn).collect();
    came.sort_unstable();
    assert_eq!(came, expected);
    accepted
}

/// Which client's record this is: of the connect() that was made from `peer`, to the destination it was made to.
fn turn_of_record(accepted: &TcpStream, peer: SocketAddr) -> usize {
    let redirect = Redirect::of(accepted);
    let flow = redirect.flow().unwrap_or_else(|error| panic!("{peer} has come without its record: {error}"));
    redirect.records().expect("whoever is told of a flow can carry it on");
    assert_eq!(flow.origin().source, Some(peer), "the record of another connection");
    assert_eq!(flow.origin().destination, flow.destination());
    let SocketAddr::V4(to) = flow.destination() else { panic!("{} is no client's destination", flow.destination()) };
    let [_, a, b, c] = to.ip().octets();
    usize::from(a - 1) << 16 | usize::from(b) << 8 | usize::from(c)
}

/// Which client's bytes these are. What arrived before a reset can be read after it.
fn turn_of_bytes(mut accepted: &TcpStream) -> usize {
    let mut word = [0; 4];
    accepted.read_exact(&mut word).expect("the client has sent its number");
    u32::from_be_bytes(word) as usize
}

/// The service has this many connections with their records, nobody came without one, and nothing waits any more.
fn assert_none_lost(sandbox: &mut Sandbox, accepted: usize) {
    let events = sandbox.events();
    assert!(events.iter().all(|event| event.kind != EVENT_LOST), "{events:#?}");
    let counters = sandbox.engine.counters().unwrap();
    assert_eq!(counters[COUNT_HANDED_OVER], accepted as u64);
    for counter in [COUNT_LOST_CONTEXT, COUNT_STRANGERS, COUNT_NO_ROOM, COUNT_HELD_BACK, COUNT_EVENTS_LOST] {
        assert_eq!(counters[counter], 0, "counter {counter}");
    }
    assert!(counters[COUNT_REDIRECTED] >= accepted as u64);
    assert_eq!(sandbox.engine.open_handovers().unwrap(), 0);
}

/// Waits until nothing is left of any connection.
fn until_over(sandbox: &Sandbox) {
    until("every hand-over to end", || (sandbox.engine.open_handovers().unwrap() == 0).then_some(()));
    until("every user to have the whole share", || (sandbox.engine.shared_handovers().unwrap() == 0).then_some(()));
    until("every flight to end", || (sandbox.engine.open_flights().unwrap() == 0).then_some(()));
}

/// Sets how many connections may wait to be accepted: one more than this.
fn set_backlog(listener: &TcpListener, backlog: i32) {
    SockRef::from(listener).listen(backlog).expect("listen");
}

/// Has the kernel finish handshakes only when there is something to read.
fn defer_accept(listener: &TcpListener) {
    const SECONDS: i32 = 30;
    raw::set(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &SECONDS.to_ne_bytes()).expect("TCP_DEFER_ACCEPT");
}

/// Lets this process have so many files, or as many as it may.
fn more_files(needed: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("readable");
    let limit = hard.max(needed);
    let raised = setrlimit(Resource::RLIMIT_NOFILE, limit, limit);
    raised.unwrap_or_else(|error| panic!("{needed} files are needed, {hard} are allowed (ulimit -Hn): {error}"));
}

/// A setting of the calling thread's network namespace.
fn set(setting: &str, value: &str) {
    let file = format!("/proc/sys/net/{setting}");
    fs::write(&file, value).unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// A counter of the calling thread's network namespace (`nstat TcpExt...`).
fn netstat(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").expect("/proc is mounted");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt: "));
    let [names, values] = [(); 2].map(|()| lines.next().expect("names and values"));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(counter, _)| *counter == name).unwrap_or_else(|| panic!("no counter {name}"));
    value.parse().expect("a count")
}

/// What the kernel says of a connection (`TCP_INFO`).
struct Info {
    /// TCP_SYN_SENT, TCP_ESTABLISHED ... of <linux/tcp.h>.
    state: u8,
    /// How often it sent again what nobody has acknowledged.
    retries: u8,
    /// Bytes that have come.
    received: u64,
}

fn info(socket: &Socket) -> Info {
    const RECEIVED: usize = 128; // tcpi_bytes_received
    let mut bytes = [0; RECEIVED + 8];
    let length = raw::get(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes).expect("TCP_INFO");
    assert_eq!(length, bytes.len());
    let received = u64::from_ne_bytes(bytes[RECEIVED..].try_into().expect("eight bytes"));
    Info { state: bytes[0], retries: bytes[2], received }
}

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
