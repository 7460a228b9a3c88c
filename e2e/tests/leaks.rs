//! Nothing is left of 100,000 connections, however they ended: no entry in any map, no storage on any socket, no memory
//! of the kernel's. The machine must be idle otherwise, so the test runs alone.

use std::fmt::Debug;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use carnet_abi::{
    COUNT_EVENTS_LOST, COUNT_HANDED_OVER, COUNT_REDIRECTED, COUNTERS, EVENT_CONNECT, EVENT_END, VERDICT_REFUSE,
};
use carnet_e2e::{Relay, Running, Sandbox, netns};
use carnet_engine::Options;
use carnet_policy::{Match, Service};
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Socket, Type};

const RELAY: &str = env!("CARGO_BIN_EXE_carnet-e2e-relay");
const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");

/// How the connections of a round end, and how many there are of each.
struct Round {
    finished: usize,
    answered: usize,
    reset: usize,
    refused: usize,
    client_killed: usize,
    service_killed: usize,
    never_accepted: usize,
    never_established: usize,
}

/// As many open at once as in the full round, because the kernel keeps what it had to have at the worst moment: the
/// memory of map entries that were deleted all at once is used again, but not given back.
const FIRST: Round = Round { finished: 2_000, answered: 2_000, reset: 2_000, refused: 2_000, ..FULL };

const FULL: Round = Round {
    finished: 31_000,
    answered: 20_000,
    reset: 25_000,
    refused: 15_000,
    client_killed: 4_000,
    service_killed: 2_000,
    never_accepted: 2_000,
    never_established: 1_000,
};

/// Most growth of the kernel's memory that is not a leak.
const GROWTH: usize = 2 * 1024 * 1024;

/// Most rounds of which one must not grow.
const ROUNDS: usize = 3;

const PAGE: usize = 4096;

#[test]
fn alone_hundred_thousand_connections_leave_nothing() {
    assert_eq!(FULL.total(), 100_000);
    // A destination that has refused a flow is to be dialled again at once.
    let options =
        Options { for_test: true, event_bytes: 32 * 1024 * 1024, refused_for: Duration::ZERO, ..Options::default() };
    let mut sandbox = Sandbox::with(&options);
    assert_eq!(sandbox.engine.open_sockets().unwrap(), 0);

    // Some memory stays once it has been needed, so the first round's is no measure.
    in_own_network(|| Leaks::new(&mut sandbox).round(&FIRST));
    // The measure is the whole machine's, and somebody else's memory may grow meanwhile. A leak of ours grows in every
    // round.
    let mut growths = Vec::new();
    while growths.len() < ROUNDS && growths.last().is_none_or(|&last| last >= GROWTH) {
        growths.push(growth(&mut sandbox));
    }
    assert!(growths.last().is_some_and(|&last| last < GROWTH), "unreclaimable slab grew in every round: {growths:?}");
}

/// One full round; by how many bytes the kernel's memory has grown after it.
fn growth(sandbox: &mut Sandbox) -> usize {
    let before = settled_slab();
    let held = in_own_network(|| Leaks::new(sandbox).round(&FULL));
    let after = until_slab_is_below(before + GROWTH);
    println!("unreclaimable slab: {before} before, {held} with {} open, {after} after", FULL.client_killed);
    assert!(held > before + GROWTH, "the measure sees open connections: {before} before, {held} with some open");
    after.saturating_sub(before)
}

impl Round {
    const fn total(&self) -> usize {
        self.finished
            + self.answered
            + self.reset
            + self.refused
            + self.client_killed
            + self.service_killed
            + self.never_accepted
            + self.never_established
    }
}

/// Two services and a server. Some destinations go through both services, some through the first alone.
struct Leaks<'a> {
    sandbox: &'a mut Sandbox,
    /// Provider 0, aware, and provider 1, which knows SO_ORIGINAL_DST only.
    services: Vec<Relay>,
    /// IPv4 through two services, IPv6 through two, IPv4 through one, IPv6 through one.
    destinations: [SocketAddr; 4],
    /// The same, but nobody listens.
    refusing: [SocketAddr; 4],
    tally: Tally,
    _servers: [Relay; 2],
    _bound: Vec<Socket>,
}

/// What the events say.
#[derive(Default)]
struct Tally {
    decided: usize,
    refused: usize,
    ended: usize,
}

impl<'a> Leaks<'a> {
    fn new(sandbox: &'a mut Sandbox) -> Self {
        let services = if sandbox.policy.providers.is_empty() {
            vec![sandbox.relay(RELAY, Service::Aware, &["aware"]), sandbox.relay(RELAY, Service::Unaware, &["unaware"])]
        } else {
            (0..2).map(|index| start(sandbox, index, MODES[index])).collect()
        };
        for service in &services {
            sandbox.policy.providers[service.index].listeners = service.addresses.to_vec();
        }
        let servers = [(); 2].map(|()| Relay::start(0, Command::new(RELAY).arg("server")));
        // Bound and not listening: the ports refuse, and nobody else can take them.
        let bound: Vec<Socket> = ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0", "[::1]:0"].map(bind).into();
        let [[v4_two, v6_two], [v4_one, v6_one]] = [servers[0].addresses, servers[1].addresses];
        let refusing = [0, 1, 2, 3].map(|i| bound[i].local_addr().ok().and_then(|at| at.as_socket()).expect("bound"));
        // The second service has the ports that are to go through both.
        let mut filters = Vec::new();
        for to in [v4_two, v6_two, refusing[0], refusing[1]] {
            let mut filter = carnet_e2e::redirect_all();
            filter.matches = Match::default().on_ports(to.port()..=to.port());
            filters.push(filter);
        }
        sandbox.policy.providers[1].filters = filters;
        sandbox.apply();
        Self {
            sandbox,
            services,
            destinations: [v4_two, v6_two, v4_one, v6_one],
            refusing,
            tally: Tally::default(),
            _servers: servers,
            _bound: bound,
        }
    }

    /// Connections of every kind. Returns the unreclaimable slab while many were open.
    fn round(mut self, round: &Round) -> usize {
        let start = Instant::now();
        self.sandbox.events();
        self.never_established(round.never_established);
        let counters = self.sandbox.engine.counters().expect("readable");
        self.never_accepted(round.never_accepted);
        self.service_killed(round.service_killed);
        let held = self.client_killed(round.client_killed);
        self.load("finish", round.finished, self.destinations);
        self.load("answered", round.answered, self.destinations);
        self.load("reset", round.reset, self.destinations);
        self.load("refused", round.refused, self.refusing);

        self.assert_all_handed_over(counters);
        let now = self.sandbox.engine.counters().expect("readable");
        assert_eq!(now[COUNT_EVENTS_LOST], 0, "so the tally is whole");
        assert_eq!(self.tally.refused, 0);
        assert_eq!(self.tally.decided, self.tally.ended, "the end of each connection is told once");
        println!("{} connections, {} hops: {:?}", round.total(), self.tally.decided, start.elapsed());
        held
    }

    /// Connections that end by themselves.
    fn load(&mut self, kind: &str, count: usize, destinations: [SocketAddr; 4]) {
        let start = Instant::now();
        let mut load = self.start_load(kind, count, destinations);
        self.wait_for(&mut load);
        self.assert_nothing_left(kind);
        println!("{count} {kind}: {:?}", start.elapsed());
    }

    fn client_killed(&mut self, count: usize) -> usize {
        let mut load = self.start_load("hold", count, self.destinations);
        assert_eq!(load.line(), "held");
        self.drain();
        // The application's socket, and two of each service; half of the connections go through two services.
        let open = self.sandbox.engine.open_sockets().expect("readable");
        assert_eq!(open, count / 2 * (1 + 2) + count / 2 * (1 + 4), "the count sees sockets that are open");
        assert!(self.sandbox.engine.open_flights().expect("readable") > 0);
        let slab = slab();
        load.kill();
        self.assert_nothing_left("client killed");
        slab
    }

    fn service_killed(&mut self, count: usize) {
        for (index, mode) in MODES.into_iter().enumerate() {
            let mut load = self.start_load("hold", count / 2, self.destinations);
            assert_eq!(load.line(), "held");
            self.services[index].process.kill();
            self.drain();
            if index == 1 {
                // Half of them did not go through the second service, and are open still.
                assert!(load.ended().is_none());
                self.services[0].process.kill();
                self.restart(0, MODES[0]);
            }
            self.wait_for(&mut load);
            self.assert_nothing_left("service killed");
            self.restart(index, mode);
        }
    }

    /// Established by the kernel, but the service stands still; the client gives up, then the service dies.
    fn never_accepted(&mut self, count: usize) {
        self.services[0].process.stop();
        let mut load = self.start_load("unanswered", count, self.destinations);
        assert_eq!(load.line(), "held");
        assert_eq!(self.sandbox.engine.open_sockets().expect("readable"), 2 * count, "both ends of each");
        load.go_on();
        self.wait_for(&mut load);
        self.services[0].process.kill();
        self.assert_nothing_left("never accepted");
        self.restart(0, MODES[0]);
    }

    /// The listener's queue is full, so the handshake never ends and the record is never taken.
    fn never_established(&mut self, count: usize) {
        self.services[0].process.kill();
        self.restart(0, "deaf");
        let before = self.sandbox.engine.counters().expect("readable");
        let mut load = self.start_load("abandon", count, self.destinations);
        assert_eq!(load.line(), "held");
        let open = self.sandbox.engine.open_handovers().expect("readable");
        assert!(open > count / 2 && open < count, "{open} of {count} wait for the listener");
        let now = self.sandbox.engine.counters().expect("readable");
        let since = [COUNT_REDIRECTED, COUNT_HANDED_OVER].map(|counter| (now[counter] - before[counter]) as usize);
        assert_eq!(since, [count, count - open], "what was not taken over waits");
        load.go_on();
        self.wait_for(&mut load);
        until(
            "the hand-overs to be gone",
            || self.sandbox.engine.open_handovers().expect("readable"),
            |&open| open == 0,
        );
        self.services[0].process.kill();
        self.assert_nothing_left("never established");
        self.restart(0, MODES[0]);
    }

    fn start_load(&mut self, kind: &str, count: usize, destinations: [SocketAddr; 4]) -> Running {
        let mut command = self.sandbox.app_command(LOAD);
        Running::start(command.arg(kind).arg(count.to_string()).args(destinations.map(|to| to.to_string())))
    }

    fn restart(&mut self, index: usize, mode: &str) {
        self.services[index] = start(self.sandbox, index, mode);
        self.sandbox.policy.providers[index].listeners = self.services[index].addresses.to_vec();
        self.sandbox.apply();
    }

    /// Reads events all the while, so that none is lost.
    fn wait_for(&mut self, load: &mut Running) {
        let end = Instant::now() + Duration::from_secs(120);
        let status = loop {
            self.drain();
            if let Some(status) = load.ended() {
                break status;
            }
            assert!(Instant::now() < end, "the load did not end");
            thread::sleep(Duration::from_millis(1));
        };
        assert!(status.success(), "the load failed; what it said is on standard error");
    }

    fn drain(&mut self) {
        for event in self.sandbox.events() {
            self.tally.decided += usize::from(event.kind == EVENT_CONNECT);
            self.tally.refused += usize::from(event.kind == EVENT_CONNECT && event.verdict == VERDICT_REFUSE);
            self.tally.ended += usize::from(event.kind == EVENT_END);
        }
    }

    /// Services see the end a moment after the client does, so there is a deadline, but a short one.
    fn assert_nothing_left(&mut self, kind: &str) {
        let engine = &self.sandbox.engine;
        let left = || {
            [
                engine.open_handovers().expect("readable"),
                engine.open_flights().expect("readable"),
                engine.open_sockets().expect("readable"),
                engine.shared_handovers().expect("readable"),
            ]
        };
        until(&format!("hand-overs, flights, sockets and shares to be gone: {kind}"), left, |left| *left == [0; 4]);
        self.drain();
    }

    /// Every redirected connection got its record, and no other one did.
    fn assert_all_handed_over(&self, before: [u64; COUNTERS]) {
        let now = self.sandbox.engine.counters().expect("readable");
        let mut since: Vec<u64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
        assert!(since[COUNT_REDIRECTED] > 0);
        assert_eq!(since[COUNT_REDIRECTED], since[COUNT_HANDED_OVER]);
        since[COUNT_REDIRECTED] = 0;
        since[COUNT_HANDED_OVER] = 0;
        assert_eq!(since, [0; COUNTERS], "nothing lost, nowhere without room");
    }
}

const MODES: [&str; 2] = ["aware", "unaware"];

fn start(sandbox: &Sandbox, index: usize, mode: &str) -> Relay {
    Relay::start(index, sandbox.service_command(index, RELAY).arg(mode))
}

fn bind(at: &str) -> Socket {
    let at: SocketAddr = at.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).expect("a socket");
    socket.bind(&at.into()).expect("bind");
    socket
}

/// In a network namespace of its own, whose sockets in TIME_WAIT end with it. Whatever is started in there is there, too.
fn in_own_network<T>(act: impl FnOnce() -> T) -> T {
    let outside = File::open("/proc/thread-self/ns/net").expect("/proc is mounted");
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    netns::ip("link set lo up");
    // A port is used again after a second at the earliest, so there must be many.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535").expect("the range of this network");
    let result = act();
    // Where the test panics its thread ends, which leaves the namespace as well.
    setns(outside, CloneFlags::CLONE_NEWNET).expect("the way back");
    result
}

/// Unreclaimable slab in bytes, without sockets in TIME_WAIT: those that other tests left would go meanwhile and hide a
/// leak.
fn slab() -> usize {
    let meminfo = fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let line = meminfo.lines().find_map(|line| line.strip_prefix("SUnreclaim:")).expect("SUnreclaim");
    let unreclaimable: usize = line.trim().trim_end_matches(" kB").parse().expect("kilobytes");
    let slabinfo = fs::read_to_string("/proc/slabinfo").expect("root may read it");
    let waiting = slabinfo.lines().filter(|line| line.starts_with("tw_sock_")).map(slab_bytes).sum::<usize>();
    1024 * unreclaimable - waiting
}

/// Of one line of slabinfo: pages of a slab, times slabs.
fn slab_bytes(line: &str) -> usize {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<usize>().ok()).expect("a number");
    number(5) * number(14) * PAGE
}

/// Once the kernel has freed what it frees later (RCU, network namespaces): when it has not fallen for a second.
fn settled_slab() -> usize {
    let mut least = slab();
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        thread::sleep(Duration::from_millis(50));
        if slab() < least {
            (least, since) = (slab(), Instant::now());
        }
    }
    least
}

fn until_slab_is_below(limit: usize) -> usize {
    let end = Instant::now() + Duration::from_secs(20);
    while slab() >= limit && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    slab()
}

fn until<T: Debug>(what: &str, look: impl Fn() -> T, enough: impl Fn(&T) -> bool) {
    let end = Instant::now() + carnet_e2e::sockets::PATIENCE;
    loop {
        let seen = look();
        if enough(&seen) {
            return;
        }
        assert!(Instant::now() < end, "waited for {what}; now {seen:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
