//! Options that are not Carnet's, with arguments that make no sense: a socket in a service's cgroup and its twin outside
//! are answered the same, always.

use carnet_abi::SOL_CARNET;
use carnet_e2e::{Sandbox, netns, raw};
use carnet_policy::Service as Kind;
use socket2::{Domain, Protocol, Socket, Type};

use crate::generate::Random;

#[test]
fn foreign_options_are_answered_as_outside() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        sandbox.service(Kind::Aware);
        let mut random = Random::new(7);
        let (mut calls, mut answers) = (0, 0);
        for round in 0..40 {
            let kind = KINDS[round % KINDS.len()];
            let (inside, outside) = (sandbox.in_service(0, || kind.socket()), kind.socket());
            for _ in 0..150 {
                let (level, name) = option(&mut random);
                let length = random.pick(&LENGTHS);
                let what = format!("round {round}, {kind:?}, level {level}, option {name}, {length} bytes");
                if random.below(2) == 0 && !MODULES.contains(&(level, name)) {
                    // Numbers small enough to mean something, or anything.
                    let value: Vec<u8> = (0..length).map(|at| small(&mut random, at)).collect();
                    let results = [&inside, &outside].map(|socket| raw::set(socket, level, name, &value));
                    assert_eq!(results[0], results[1], "set: {what}, {value:?}");
                    answers += usize::from(results[0].is_ok());
                }
                let results = [&inside, &outside].map(|socket| {
                    let mut value = vec![0xa5; length];
                    let result = raw::get(socket, level, name, &mut value);
                    (result, if DIFFERENT.contains(&(level, name)) { Vec::new() } else { value })
                });
                assert_eq!(results[0], results[1], "get: {what}");
                answers += usize::from(results[0].0.is_ok());
                calls += 1;
            }
        }
        assert!(calls > 5000 && answers > 500, "{answers} of {calls} calls succeeded: that compares nothing");
    });
}

#[derive(Clone, Copy, Debug)]
struct Sort(Domain, Type, bool);

impl Sort {
    fn socket(self) -> Socket {
        let Self(domain, r#type, listens) = self;
        let socket = Socket::new(domain, r#type, None::<Protocol>).expect("a socket");
        if listens {
            socket.listen(1).expect("it listens at a port of the kernel's choice");
        }
        socket
    }
}

const KINDS: [Sort; 7] = [
    Sort(Domain::IPV4, Type::STREAM, false),
    Sort(Domain::IPV6, Type::STREAM, false),
    Sort(Domain::IPV4, Type::STREAM, true),
    Sort(Domain::IPV6, Type::STREAM, true),
    Sort(Domain::IPV4, Type::DGRAM, false),
    Sort(Domain::IPV6, Type::DGRAM, false),
    Sort(Domain::UNIX, Type::STREAM, false),
];

/// Not Carnet's. Of netfilter's there are none, since asking for them may load modules into the machine's kernel.
fn option(random: &mut Random) -> (i32, i32) {
    let level =
        random.pick(&[libc::SOL_SOCKET, libc::IPPROTO_TCP, libc::SOL_IP, libc::SOL_IPV6, SOL_CARNET, 0x4342, 270]);
    let name = match level {
        SOL_CARNET => random.pick(&[-1, 0, 5, 6, 99, 0x4000_0000, i32::MAX, i32::MIN]),
        libc::SOL_IP | libc::SOL_IPV6 => random.below(64) as i32,
        _ => random.below(90) as i32 - 2,
    };
    (level, name)
}

fn small(random: &mut Random, at: usize) -> u8 {
    match at % 4 {
        0 => random.below(9) as u8,
        _ if random.below(8) == 0 => random.below(256) as u8,
        _ => 0,
    }
}

const LENGTHS: [usize; 10] = [0, 1, 3, 4, 8, 12, 16, 40, 528, 5000];

/// Setting these makes the kernel look for a module of that name.
const MODULES: [(i32, i32); 2] = [(libc::IPPROTO_TCP, libc::TCP_CONGESTION), (libc::IPPROTO_TCP, libc::TCP_ULP)];

/// What is never the same for two sockets, or at two times.
const DIFFERENT: [(i32, i32); 7] = [
    (libc::SOL_SOCKET, libc::SO_COOKIE),
    (libc::SOL_SOCKET, libc::SO_INCOMING_CPU),
    (libc::SOL_SOCKET, libc::SO_PEERPIDFD),
    // The port, of a TCP socket.
    (libc::SOL_IP, IP_PROTOCOL),
    (libc::IPPROTO_TCP, libc::TCP_INFO),
    (libc::IPPROTO_TCP, libc::TCP_TIMESTAMP),
    (libc::IPPROTO_TCP, libc::TCP_ZEROCOPY_RECEIVE),
];

const IP_PROTOCOL: i32 = 52;
