//! A service that accepts late, with a short queue. The kernel drops the SYNs that find the queue full, and sends them
//! again; a record waits for its connection all the while.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use carnet_e2e::sockets::until;
use carnet_e2e::{Sandbox, Service, netns};
use carnet_policy::Match;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use crate::{
    SYN_SENT, assert_none_lost, begin, defer_accept, destination, info, more_files, netstat, next, service, set,
    set_backlog, turn_of_bytes, turn_of_record, until_over, word,
};

/// As many as one of which on another system 96 lost their origin.
const CLIENTS: usize = 968;

/// Kernels send a SYN again after a second, and then with growing gaps.
const RETRIES: Duration = Duration::from_secs(40);

#[test]
fn connections_that_wait_for_a_full_queue_keep_their_records() {
    netns::alone(|| assert_all_arrive(CLIENTS, &[16], |_| {}));
}

#[test]
fn so_they_do_with_every_backlog_from_1_to_16() {
    let backlogs: Vec<i32> = (1..=16).collect();
    netns::alone(|| assert_all_arrive(CLIENTS, &backlogs, |_| {}));
}

#[test]
fn so_they_do_with_syn_cookies() {
    netns::alone(|| {
        set("ipv4/tcp_syncookies", "2");
        assert_all_arrive(CLIENTS, &[16], |_| {});
        assert!(netstat("SyncookiesRecv") >= CLIENTS as u64, "each handshake was one with a cookie");
    });
}

#[test]
fn so_they_do_with_deferred_accept() {
    netns::alone(|| {
        assert_all_arrive(CLIENTS, &[16], defer_accept);
        assert!(netstat("TCPDeferAcceptDrop") > 0, "handshakes waited for their data");
    });
}

/// One service for each backlog, which get the clients in turn.
fn assert_all_arrive(clients: usize, backlogs: &[i32], prepare: impl Fn(&TcpListener)) {
    more_files(3 * clients as u64);
    let mut sandbox = Sandbox::new();
    let services: Vec<Service> = backlogs.iter().map(|_| service(&mut sandbox)).collect();
    for (index, (service, backlog)) in services.iter().zip(backlogs).enumerate() {
        prepare(&service.listeners[0]);
        set_backlog(&service.listeners[0], *backlog);
        let port = FIRST_PORT + index as u16;
        sandbox.policy.providers[index].filters[0].matches = Match::default().on_ports(port..=port);
    }
    sandbox.apply();

    let waiting = sandbox.in_app(|| Clients::begin(clients, backlogs.len()));
    until("a SYN to be sent again", || waiting.any_tries_again().then_some(()));
    let accepted = thread::scope(|scope| {
        scope.spawn(|| waiting.say_numbers());
        accept_all(&services, clients)
    });

    let drops = netstat("ListenDrops");
    assert!(drops > clients as u64 / 2, "most of them have found the queue full: {drops} drops");
    let mut came: Vec<usize> = accepted.iter().map(|(_, turn)| *turn).collect();
    came.sort_unstable();
    assert!(came.into_iter().eq(0..clients), "each of them once");
    for (arrived, turn) in &accepted {
        assert_eq!(turn_of_bytes(arrived), *turn);
    }
    assert_none_lost(&mut sandbox, clients);
    drop((waiting, accepted));
    until_over(&sandbox);
}

/// Accepts so many, each with the record of a client of the service that it came to.
fn accept_all(services: &[Service], clients: usize) -> Vec<(TcpStream, usize)> {
    let end = Instant::now() + RETRIES;
    let mut accepted = Vec::new();
    while accepted.len() < clients {
        assert!(Instant::now() < end, "{} of {clients} arrived", accepted.len());
        let listeners = services.iter().map(|service| &service.listeners[0]);
        wait_for_any(listeners, PollFlags::POLLIN);
        for (index, service) in services.iter().enumerate() {
            while let Some((arrived, peer)) = next(&service.listeners[0]) {
                let turn = turn_of_record(&arrived, peer);
                assert_eq!(turn % services.len(), index, "client {turn} is another service's");
                accepted.push((arrived, turn));
            }
        }
    }
    accepted
}

/// Connections under way.
struct Clients(Vec<Socket>);

impl Clients {
    /// Over a second, because the kernel would send all SYNs again in one burst, and few of them would find a place.
    fn begin(count: usize, services: usize) -> Self {
        let one = |turn: usize| {
            thread::sleep(Duration::from_secs(1) / count as u32);
            let mut to = destination(turn);
            to.set_port(FIRST_PORT + (turn % services) as u16);
            begin(to)
        };
        Self((0..count).map(one).collect())
    }

    fn any_tries_again(&self) -> bool {
        self.0.iter().rev().map(info).any(|info| info.state == SYN_SENT && info.retries > 0)
    }

    /// Those whose handshake is over, as they see it, send their numbers, until all have.
    fn say_numbers(&self) {
        let end = Instant::now() + RETRIES;
        let mut silent: Vec<usize> = (0..self.0.len()).collect();
        while !silent.is_empty() && Instant::now() < end {
            let ready = wait_for_any(silent.iter().map(|&turn| &self.0[turn]), PollFlags::POLLOUT);
            for (turn, _) in silent.iter().zip(&ready).filter(|(_, ready)| **ready) {
                assert_eq!(self.0[*turn].send(&word(*turn)).expect("it is connected"), 4);
            }
            let mut ready = ready.into_iter();
            silent.retain(|_| ready.next() == Some(false));
        }
    }
}

/// Which of the sockets are ready, after a short wait.
fn wait_for_any<'s, S: AsFd + 's>(sockets: impl Iterator<Item = &'s S>, wanted: PollFlags) -> Vec<bool> {
    let mut polled: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket.as_fd(), wanted)).collect();
    poll(&mut polled, PollTimeout::from(SHORTLY)).expect("poll");
    polled.iter().map(|polled| polled.revents().is_some_and(|flags| !flags.is_empty())).collect()
}

const SHORTLY: u8 = 100; // milliseconds
const FIRST_PORT: u16 = 1000;
