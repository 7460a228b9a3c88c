//! The services which the documentation shows, in six languages: alone, and all of them in one chain.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod services;
mod traps;

use std::array::from_fn;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use carnet_e2e::command::{Ended, Run, carnet_run, finish, turn};
use carnet_e2e::flow_log::{Flow, FlowLog};
use carnet_e2e::netns;
use carnet_e2e::origin::{Exchange, Origin};
use carnet_e2e::programs::{CURL_GOT_NOTHING, Scratch, Started, foreign, path, program, require, succeed};
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
        let (ended, log) = run(&Service::ALL, &["python3", "-c", client, &port].map(str::to_owned));
        assert_eq!(ended.code, 0, "{ended:?}");
        let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        assert_eq!(printable(flow), "a?[31m?b??");
        check_lines(&Service::ALL, &ended, &log.flows);
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
    eprintln!("{services:?}");
    build();
    netns::alone(|| {
        payload_and_half_close(services);
        refusal(services);
    });
}

/// Many connections at the same time by both families, whose answers come only after the client's half is closed.
fn payload_and_half_close(services: &[Service]) {
    const COUNT: usize = 12;
    const SIZE: u64 = 1 << 18;
    let origins = ["127.0.0.1:0", "[::1]:0"].map(Origin::echo_at_the_end);
    let mut client = vec!["python3".into(), foreign("half_close.py").display().to_string()];
    client.extend([COUNT.to_string(), SIZE.to_string()]);
    for origin in &origins {
        client.extend([origin.address.ip().to_string(), origin.address.port().to_string()]);
    }

    let (ended, log) = run(services, &client);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.output.trim(), (2 * COUNT).to_string());
    assert_eq!((log.flows.len(), &log.warnings[..]), (2 * COUNT, &[][..]), "{log:#?}");
    for origin in &origins {
        assert_eq!(log.to(origin.address).len(), COUNT);
        until("the origin to see the connections' ends", || (origin.served().len() >= COUNT).then_some(()));
        let exchange = Exchange { received: SIZE, sent: SIZE, ..Exchange::default() };
        assert_eq!(origin.served(), vec![exchange; COUNT]);
    }
    for flow in &log.flows {
        assert_eq!((flow.text("decision"), flow.text("ended")), (Some("redirected"), Some("closed")), "{flow:?}");
        assert_eq!(flow.bytes(), (SIZE, SIZE));
        assert_eq!(flow.chain(), chain(services).iter().map(|name| (&name[..], false)).collect::<Vec<_>>());
    }
    check_lines(services, &ended, &log.flows);
}

/// The client is told by a reset, and the log by the cause.
fn refusal(services: &[Service]) {
    // Nobody listens on it in a network namespace of the test's own.
    let closed: SocketAddr = ([127, 0, 0, 1], 9).into();
    // Silent, for curl writes a line in pieces, and those of the services come between them.
    let (ended, log) =
        run(services, &["curl", "-s", "--max-time", "10", &format!("http://{closed}/")].map(str::to_owned));
    assert!(CURL_GOT_NOTHING.contains(&ended.code), "{ended:?}");
    let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
    assert_eq!((flow.destination(), flow.text("ended"), flow.at()), (closed, Some("failed"), Some("destination")));
    assert_eq!(flow.text("error"), Some("ECONNREFUSED"));
    check_lines(services, &ended, &log.flows);
    let last = chain(services).pop().expect("a service");
    let said = |line: &str| line.starts_with(&format!("[{last}] ")) && line.contains("onnection refused");
    assert!(ended.errors.lines().any(said), "{last} says why: {}", ended.errors);
}

/// Each service prints `pid comm destination depth` once for each flow.
fn check_lines(services: &[Service], ended: &Ended, flows: &[Flow]) {
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for (name, depth) in chain(services).iter().zip(1..) {
        for flow in flows {
            let program = printable(flow);
            let line = format!("[{name}] {} {program} {} {depth}", flow.number("pid"), flow.destination());
            *expected.entry(line).or_default() += 1;
        }
    }
    for (line, count) in expected {
        let said = ended.errors.lines().filter(|said| *said == line).count();
        assert_eq!(said, count, "{line}\n{}", ended.errors);
    }
}

/// The application's name, as a terminal may see it.
fn printable(flow: &Flow) -> String {
    flow.text("program").expect("a name").replace(|c: char| !c.is_ascii_graphic(), "?")
}

/// The services' names in the flow log: the second of a kind is NAME-2.
fn chain(services: &[Service]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for service in services {
        let second = names.iter().any(|name| name == service.name());
        names.push(if second { format!("{}-2", service.name()) } else { service.name().into() });
    }
    names
}

fn run(services: &[Service], command: &[String]) -> (Ended, FlowLog) {
    let scratch = Scratch::new();
    let log = scratch.file("flows.json");
    let mut run = carnet_run(&["--verbose", "--json", "--log"]);
    run.arg(&log);
    through(&mut run, services);
    let ended = finish(run.arg("--").args(command));
    eprintln!("{}", ended.errors);
    (ended, FlowLog::read(&log))
}

/// Of all services, with a command that waits for the end of its input.
fn idle() -> Run {
    let mut start = carnet_run(&["--verbose"]);
    through(&mut start, &Service::ALL);
    let mut run = Run::start(start.args(["--", "sh", "-c", "echo ready; exec cat"]));
    assert_eq!(run.line(), "ready");
    run
}

fn through(run: &mut Command, services: &[Service]) {
    run.current_dir(directory()).env("PATH", path());
    for service in services {
        run.arg("--through").arg(service.through());
    }
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
