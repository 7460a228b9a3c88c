//! The services which the documentation shows, in six languages: alone, and all of them in one chain.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod services;
mod traps;

use std::array::from_fn;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use carnet_e2e::carried::{Carrier, Chain, printable, who_goes_where};
use carnet_e2e::command::{Run, carnet_run, turn};
use carnet_e2e::netns;
use carnet_e2e::origin::Origin;
use carnet_e2e::programs::{Scratch, Started, program, require, succeed};
use carnet_e2e::sockets::{accept, assert_joined, connect, listen, until};
use socket2::SockRef;

use self::services::Service::{self, C, Go, Java, Node, Python, Rust};
use self::services::{build, directory, root};

#[test]
fn rust() {
    carries_on(&[Rust]);
}

#[test]
fn python() {
    carries_on(&[Python]);
}

#[test]
fn c() {
    carries_on(&[C]);
}

#[test]
fn go() {
    carries_on(&[Go]);
}

#[test]
fn node() {
    carries_on(&[Node]);
}

#[test]
fn java() {
    carries_on(&[Java]);
}

#[test]
fn each_in_every_place_and_after_every_other() {
    // A Latin square, and a balanced one: of six rows no two have the same neighbours.
    let orders: [[Service; 6]; 6] = from_fn(|row| [0, 1, 5, 2, 4, 3].map(|place| Service::ALL[(place + row) % 6]));
    let neighbours: BTreeSet<_> =
        orders.iter().flat_map(|order| order.windows(2).map(|pair| (pair[0].name(), pair[1].name()))).collect();
    assert_eq!(neighbours.len(), 30);
    for order in orders {
        carries_on(&order);
    }
}

#[test]
fn each_of_them_twice() {
    carries_on(&[Service::ALL, Service::ALL].concat());
}

#[test]
fn a_reset_passes_both_ways() {
    build();
    let _turn = turn();
    netns::alone(|| {
        let origin = listen("127.0.0.1:0");
        let mut run = idle();
        for client_resets in [true, false] {
            let mut client = run.in_app(|| connect(origin.local_addr().unwrap())).unwrap();
            let mut server = accept(&origin);
            assert_joined(&mut client, &mut server);
            let (gone, mut left) = if client_resets { (client, server) } else { (server, client) };
            SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
            drop(gone);
            let told = left.read(&mut [0]).map_err(|error| error.raw_os_error().unwrap_or_default());
            assert_eq!(told, Err(libc::ECONNRESET), "client_resets: {client_resets}, {}", run.errors());
        }
        run.close_input();
        assert_eq!(run.end().code, 0);
    });
}

/// A process chooses its name, and terminals obey what is in it.
#[test]
fn names_are_made_safe() {
    build();
    netns::alone(|| {
        let origin = Origin::echo_at_the_end("127.0.0.1:0");
        let client = "import socket, sys\n\
                      open('/proc/self/comm', 'wb').write(b'a\\x1b[31m b\\n\\x7f')\n\
                      s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
                      s.shutdown(socket.SHUT_WR)\n\
                      s.recv(1)\n";
        let port = origin.address.port().to_string();
        let chain = chain(&Service::ALL);
        let (ended, log) = chain.run(&["python3", "-c", client, &port].map(str::to_owned));
        assert_eq!(ended.code, 0, "{ended:?}");
        let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        assert_eq!(printable(flow), "a?[31m?b??");
        chain.has_said(&ended, &log.flows);
    });
}

/// A listener of a service's is dialled by somebody whom the engine does not govern.
#[test]
fn with_its_context_lost_a_connection_is_reset_and_they_say_why() {
    build();
    netns::alone(|| {
        let mut run = idle();
        let all =
            || Some(listening()).filter(|ports| ports.len() == Service::ALL.len() && ports.values().all(|n| *n == 2));
        for port in until("the services to listen, each by both families", all).into_keys() {
            is_reset(port);
        }
        run.close_input();
        let ended = run.end();
        for service in Service::ALL {
            let start = format!("[{}] ", service.name());
            let said = ended.errors.lines().filter(|line| line.starts_with(&start) && line.contains("is missing"));
            assert_eq!(said.count(), 2, "{service:?}, by both families: {}", ended.errors);
        }
    });
}

/// Started by hand, and not by `carnet run`.
#[test]
fn without_an_engine_a_connection_is_reset_and_they_say_why() {
    build();
    netns::alone(|| {
        let scratch = Scratch::new();
        let started = Service::ALL.map(|service| {
            let port = 2000 + service as u16;
            let errors = scratch.file(service.name());
            let mut shell = program("sh");
            shell.arg("-c").arg(format!("exec {}", service.through().replace("{port}", &port.to_string())));
            shell.current_dir(directory()).stderr(File::create(&errors).unwrap());
            (service, port, errors, Started::by(&mut shell))
        });
        for (service, port, errors, _process) in started {
            until("both of a service's listeners", || (listening().get(&port) == Some(&2)).then_some(()));
            is_reset(port);
            let lines = || fs::read_to_string(&errors).unwrap();
            let said = || lines().lines().filter(|line| line.contains("no engine answers")).count();
            until("a service to say why, twice", || (said() >= 2).then_some(()));
            assert_eq!(said(), 2, "{service:?}: {}", lines());
        }
    });
}

#[test]
fn the_go_service_is_formatted() {
    require(&["gofmt"]);
    assert_eq!(succeed(program("gofmt").arg("-d").arg(root().join("examples/go"))), "");
}

/// All that the documentation promises of them.
fn carries_on(services: &[Service]) {
    build();
    let chain = chain(services);
    netns::alone(|| {
        chain.carries_payload_and_half_close(12, 1 << 18);
        chain.passes_a_refusal_on();
    });
}

/// Of all services, with a command that waits for the end of its input.
fn idle() -> Run {
    let mut start = carnet_run(&["--verbose"]);
    chain(&Service::ALL).put_into(&mut start);
    let mut run = Run::start(start.args(["--", "sh", "-c", "echo ready; exec cat"]));
    assert_eq!(run.line(), "ready");
    run
}

fn chain(services: &[Service]) -> Chain {
    let carriers = services.iter().map(|service| Carrier {
        name: service.name(),
        through: service.through(),
        line: who_goes_where,
    });
    Chain { carriers: carriers.collect(), directory: directory() }
}

/// Ports of this thread's network namespace that somebody listens on, and by how many sockets.
fn listening() -> BTreeMap<u16, usize> {
    const LISTEN: &str = "0A";
    let mut ports = BTreeMap::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
        for fields in text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            if fields[3] == LISTEN {
                let (_, port) = fields[1].rsplit_once(':').unwrap();
                *ports.entry(u16::from_str_radix(port, 16).unwrap()).or_default() += 1;
            }
        }
    }
    ports
}

/// What comes to it is told so by a reset, whichever family it comes by.
fn is_reset(port: u16) {
    for to in [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()] {
        let reset = match connect(to) {
            Ok(mut client) => client.read(&mut [0]).map_err(|error| error.raw_os_error().unwrap_or_default()),
            Err(error) => Err(error), // it came before the connect() had returned
        };
        assert_eq!(reset, Err(libc::ECONNRESET), "{to}");
    }
}
