//! What a large policy costs: the decision by itself in the kernel, and a whole connect() that it lets through, each
//! against a policy of ten filters in interleaved rounds. Needs root; run it with `make bench-policy`.

use std::error::Error;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carnet_abi::Asked;
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::{Engine, Options};
use carnet_policy::{
    Action, Condition, Executable, Filter, HostAction, HostFilter, Identity, Line, Match, OnDead, Owner, Policy,
    Prefix, Protocol, Provider, Question, Reach, Service, SockName, Who,
};

const ROUNDS: usize = 25;
const QUESTIONS: usize = 512;
const CONNECTS: usize = 4000;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo's test run starts benchmarks too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let hierarchy = Hierarchy::find()?;
    let cgroup = Cgroup::create(&hierarchy, &format!("carnet-bench.{}", std::process::id()))?;
    let result = measure(&hierarchy, &cgroup);
    cgroup.remove_tree(Duration::from_secs(5))?;
    result
}

fn measure(hierarchy: &Hierarchy, cgroup: &Cgroup) -> Result<(), Box<dyn Error>> {
    let options = Options { for_test: true, ..Options::default() };
    let mut engine = Engine::load(cgroup, &options)?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let large = policy(&mut random, Size { providers: 255, filters: 4096, v4: 1_000_000, v6: 100_000 });
    let small = policy(&mut random, Size { providers: 3, filters: 10, v4: 10, v6: 10 });
    let v4: Vec<IpAddr> = (0..QUESTIONS).map(|_| random.v4().into()).collect();
    let v6: Vec<IpAddr> = (0..QUESTIONS).map(|_| random.v6().into()).collect();

    let begin = Instant::now();
    let image = large.compile(1)?;
    println!("compiled in {:.2} s: {:?}", begin.elapsed().as_secs_f64(), image.bytes());
    let begin = Instant::now();
    engine.apply(&image)?;
    println!("applied in {:.2} s", begin.elapsed().as_secs_f64());

    let mut times: [[Vec<f64>; 2]; 3] = Default::default();
    for round in 0..ROUNDS as u64 {
        for (which, policy) in [&small, &large].into_iter().enumerate() {
            let image = policy.compile(2 + 2 * round + which as u64)?;
            engine.apply(&image)?;
            for (family, addresses) in [&v4, &v6].into_iter().enumerate() {
                let mut asked: Vec<Asked> = addresses
                    .iter()
                    .map(|&ip| {
                        let question =
                            Question { who: Who::Known(somebody()), ..Question::to(SocketAddr::new(ip, 443)) };
                        // The slots take turns, and the first policy went to the second one.
                        image.question(&question, (round as u32 * 2 + which as u32) % 2)
                    })
                    .collect();
                engine.ask_many(&mut asked, 1)?;
                let taken = engine.ask_many(&mut asked, 32)?;
                times[family][which].push(taken.as_nanos() as f64 / (32 * QUESTIONS) as f64);
            }
        }
    }
    engine.attach_governed(cgroup)?;
    let home = std::fs::read_to_string("/proc/self/cgroup")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let closed = listener.local_addr()?;
    drop(listener);
    for round in 0..ROUNDS as u64 {
        for (which, policy) in [&small, &large].into_iter().enumerate() {
            engine.apply(&policy.compile(100 + 2 * round + which as u64)?)?;
            cgroup.add_self()?;
            let taken = connects(closed);
            leave(hierarchy, &home)?;
            times[2][which].push(taken?.as_nanos() as f64 / CONNECTS as f64);
        }
    }
    println!("{:<28}{:>12}{:>12}{:>8}", "ns, median", "10 filters", "4,096", "ratio");
    for (name, [small, large]) in ["decision, IPv4", "decision, IPv6", "connect()"].iter().zip(times) {
        let (small, large) = (median(small), median(large));
        println!("{name:<28}{small:>12.0}{large:>12.0}{:>8.2}", large / small);
    }
    Ok(())
}

/// connect() to where nobody listens: the hook, the way to loopback and a reset.
fn connects(closed: SocketAddr) -> std::io::Result<Duration> {
    let begin = Instant::now();
    for _ in 0..CONNECTS {
        match TcpStream::connect(closed) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(ErrorKind::AddrInUse.into()),
        }
    }
    Ok(begin.elapsed())
}

/// Back to the cgroup this process was started in.
fn leave(hierarchy: &Hierarchy, home: &str) -> std::io::Result<()> {
    let home = home.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    std::fs::write(hierarchy.mount().join(home).join("cgroup.procs"), std::process::id().to_string())
}

struct Size {
    providers: usize,
    filters: usize,
    v4: usize,
    v6: usize,
}

/// Every dimension is asked for, whatever the size: the addresses by one long list, which the last filter refers to, and
/// by the other filters' own prefixes.
fn policy(random: &mut Random, size: Size) -> Policy {
    let mut list = Vec::with_capacity(size.v4 + size.v6);
    for _ in 0..size.v4 {
        list.push(Prefix { address: random.v4().into(), length: [24, 28, 32][random.below(3)] });
    }
    for _ in 0..size.v6 {
        list.push(Prefix { address: random.v6().into(), length: [48, 64, 128][random.below(3)] });
    }
    let list = Arc::from(list);
    let mut policy = Policy::default();
    for index in 0..size.providers {
        policy.providers.push(provider(index));
    }
    for index in 0..size.filters - 1 {
        let matches = conditions(index).to(IpAddr::from(random.v4()));
        let provider = &mut policy.providers[index % size.providers];
        provider.filters.push(Filter {
            name: format!("filter {index}"),
            weight: 1,
            matches,
            action: Action::Redirect { context: Vec::new() },
        });
    }
    policy.filters.push(HostFilter {
        name: "listed".into(),
        weight: 1,
        matches: Match { remote: Condition { only: Some(vec![list]), except: Vec::new() }, ..Match::default() },
        action: HostAction::Permit,
    });
    policy
}

fn conditions(index: usize) -> Match {
    let id = 1000 + index as u32;
    let any = Match { protocol: Some(Protocol::Tcp), ..Match::default() };
    match index % 6 {
        0 => Match { uids: Condition::only([id..=id]), ..any },
        1 => Match { exes: Condition::only([Executable { dev: 1 << 20, ino: id.into() }]), ..any },
        2 => Match { cgroups: Condition::only([line(id.into())]), ..any },
        3 => Match { gids: Condition::only([id..=id]), ..any },
        4 => Match { netns: Condition::only([u64::from(id)]), ..any },
        _ => any.on_ports(443..=443),
    }
}

fn provider(index: usize) -> Provider {
    Provider {
        name: format!("provider {index}"),
        handle: index as u32 + 1,
        rank: index as u16,
        service: Service::Aware,
        on_dead: OnDead::Open,
        direct: false,
        reach: Reach::Routes,
        sockname: SockName::Own,
        owners: vec![Owner::Uid(50_000 + index as u32)],
        listeners: vec![SocketAddr::from(([127, 0, 0, 1], 20_000 + index as u16))],
        in_flight_limit: 0,
        filters: Vec::new(),
    }
}

fn somebody() -> Identity {
    Identity { uid: 1234, gid: 1234, exe: Executable { dev: 1 << 20, ino: 77 }, cgroup: line(5), netns: 1 }
}

/// Four levels deep.
fn line(id: u64) -> Line {
    let mut line = Line::default();
    line.0[..4].copy_from_slice(&[2, 3, 4, id]);
    line
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// xorshift64*: the same policy in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    /// Not in the ranges that are nobody's.
    fn v4(&mut self) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0b00_0000 + (self.next() >> 32) as u32 % 0xc000_0000)
    }

    fn v6(&mut self) -> Ipv6Addr {
        Ipv6Addr::from_bits(0x2001 << 112 | u128::from(self.next()) << 48 | u128::from(self.next()) >> 16)
    }
}
