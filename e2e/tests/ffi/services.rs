//! The services on the library, as `carnet run` starts them: alone, and in one chain with others.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use carnet_e2e::command::{Ended, carnet_run, finish};
use carnet_e2e::flow_log::{Flow, FlowLog};
use carnet_e2e::netns;
use carnet_e2e::origin::{Exchange, Origin};
use carnet_e2e::programs::{CURL_GOT_NOTHING, Scratch, foreign, path};
use carnet_e2e::sockets::until;

use crate::built::{c_service, cpp_service, root, winsock_service};

use self::Service::{C, Cpp, Inspect, Python, Winsock};

#[test]
fn c() {
    carries_on(&[C]);
}

#[test]
fn cpp() {
    carries_on(&[Cpp]);
}

#[test]
fn winsock() {
    carries_on(&[Winsock("sampler plain")]);
}

#[test]
fn in_one_chain_with_the_others() {
    carries_on(&[C, Python, Winsock("envoy plain"), Cpp]);
    carries_on(&[Cpp, Inspect, Winsock("sampler plain"), C]);
}

/// In each way in which the end of an overlapped operation can be told.
#[test]
fn a_chain_of_overlapped_ones() {
    carries_on(&[Winsock("envoy event"), Winsock("sampler routine"), Winsock("envoy port")]);
    carries_on(&[Winsock("sampler event"), Winsock("envoy routine"), Winsock("sampler port")]);
}

#[derive(Clone, Copy, Debug)]
enum Service {
    C,
    Cpp,
    /// The order of its calls, and how their end is told.
    Winsock(&'static str),
    Python,
    Inspect,
}

impl Service {
    /// As the flow log calls it, when it is the first of its kind.
    fn name(self) -> &'static str {
        match self {
            C => "c-library",
            Cpp => "cpp-library",
            Winsock(_) => "winsock",
            Python => "python3",
            Inspect => "inspect",
        }
    }

    fn through(self) -> String {
        match self {
            C => format!("'{}' {{port}}", c_service().display()),
            Cpp => format!("'{}' {{port}}", cpp_service().display()),
            Winsock(how) => format!("'{}' {{port}} {how}", winsock_service().display()),
            Python => format!("python3 '{}' {{port}}", root().join("examples/python/service.py").display()),
            Inspect => "inspect".into(),
        }
    }

    /// What it prints of a flow, in this place of the order.
    fn line(self, flow: &Flow, place: usize) -> Option<String> {
        match self {
            C | Cpp | Python => {
                let program = flow.text("program").expect("a name");
                Some(format!("{} {program} {} {place}", flow.number("pid"), flow.destination()))
            }
            // `carnet run` gives no context.
            Winsock(_) => Some(format!("{} records 440 context 0", flow.destination())),
            Inspect => None,
        }
    }
}

fn carries_on(services: &[Service]) {
    eprintln!("{services:?}");
    netns::alone(|| {
        payload_and_half_close(services);
        refusal(services);
    });
}

/// Many connections at the same time by both families, whose answers come only after the client's half is closed.
fn payload_and_half_close(services: &[Service]) {
    const COUNT: usize = 8;
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

/// Each service prints its line once for each flow.
fn check_lines(services: &[Service], ended: &Ended, flows: &[Flow]) {
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for ((service, name), place) in services.iter().zip(chain(services)).zip(1..) {
        for line in flows.iter().filter_map(|flow| service.line(flow, place)) {
            *expected.entry(format!("[{name}] {line}")).or_default() += 1;
        }
    }
    for (line, count) in expected {
        let said = ended.errors.lines().filter(|said| *said == line).count();
        assert_eq!(said, count, "{line}\n{}", ended.errors);
    }
}

/// The services' names in the flow log: the second of a kind is NAME-2.
fn chain(services: &[Service]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for service in services {
        let before = services[..names.len()].iter().filter(|before| before.name() == service.name()).count();
        names.push(if before == 0 { service.name().into() } else { format!("{}-{}", service.name(), before + 1) });
    }
    names
}

fn run(services: &[Service], command: &[String]) -> (Ended, FlowLog) {
    let scratch = Scratch::new();
    let log = scratch.file("flows.json");
    let mut run = carnet_run(&["--verbose", "--json", "--log"]);
    run.arg(&log).env("PATH", path());
    for service in services {
        run.arg("--through").arg(service.through());
    }
    let ended = finish(run.arg("--").args(command));
    assert!(log.exists(), "{}", ended.errors);
    (ended, FlowLog::read(&log))
}
