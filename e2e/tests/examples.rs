//! The services which the documentation shows, in Rust, Python and C: alone, and all three in one chain.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use carnet_e2e::command::{Ended, carnet_run, finish};
use carnet_e2e::flow_log::{Flow, FlowLog};
use carnet_e2e::netns;
use carnet_e2e::origin::{Exchange, Origin};
use carnet_e2e::programs::{CURL_GOT_NOTHING, Scratch, foreign, path, program, require, succeed};
use carnet_e2e::sockets::until;

use self::Example::{C, Python, Rust};

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
fn in_every_order() {
    for order in [
        [Rust, Python, C],
        [Rust, C, Python],
        [Python, Rust, C],
        [Python, C, Rust],
        [C, Rust, Python],
        [C, Python, Rust],
    ] {
        carries_on(&order);
    }
}

#[test]
fn each_of_them_twice() {
    carries_on(&[Rust, Python, C, Rust, Python, C]);
}

#[derive(Clone, Copy, Debug)]
enum Example {
    Rust,
    Python,
    C,
}

impl Example {
    /// As the flow log calls it, when it is the first of its kind.
    fn name(self) -> &'static str {
        match self {
            Self::Rust => "service",
            Self::Python => "python3",
            Self::C => "c-service",
        }
    }

    fn through(self) -> String {
        match self {
            Self::Rust => format!("'{}' {{port}}", target().join("debug/examples/service").display()),
            Self::Python => format!("python3 '{}' {{port}}", root().join("examples/python/service.py").display()),
            Self::C => format!("'{}' {{port}}", built("c-service").display()),
        }
    }
}

/// All that the documentation promises of them.
fn carries_on(services: &[Example]) {
    eprintln!("{services:?}");
    build();
    netns::alone(|| {
        payload_and_half_close(services);
        refusal(services);
    });
}

/// Many connections at the same time by both families, whose answers come only after the client's half is closed.
fn payload_and_half_close(services: &[Example]) {
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
fn refusal(services: &[Example]) {
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
fn check_lines(services: &[Example], ended: &Ended, flows: &[Flow]) {
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for (name, depth) in chain(services).iter().zip(1..) {
        for flow in flows {
            let program = flow.text("program").expect("a name");
            let line = format!("[{name}] {} {program} {} {depth}", flow.number("pid"), flow.destination());
            *expected.entry(line).or_default() += 1;
        }
    }
    for (line, count) in expected {
        let said = ended.errors.lines().filter(|said| *said == line).count();
        assert_eq!(said, count, "{line}\n{}", ended.errors);
    }
}

/// The services' names in the flow log: the second of a kind is NAME-2.
fn chain(services: &[Example]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for service in services {
        let second = names.iter().any(|name| name == service.name());
        names.push(if second { format!("{}-2", service.name()) } else { service.name().into() });
    }
    names
}

fn run(services: &[Example], command: &[String]) -> (Ended, FlowLog) {
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

/// Builds the Rust and the C service; once, whatever tests run at the same time.
fn build() {
    require(&["cargo", "curl", "gcc", "python3"]);
    fs::create_dir_all(built("")).expect("a directory below the target directory");
    let lock = File::create(built("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let mut cargo = program(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "carnet", "--example", "service", "--target-dir"]).arg(target());
    succeed(cargo.current_dir(root()));
    // As the file's own first lines say it.
    let mut gcc = program("gcc");
    gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-I", "crates/carnet-abi/include"]);
    // In one step, for another test may be starting it.
    let new = built(&format!("c-service.{}", std::process::id()));
    succeed(gcc.arg("-o").arg(&new).arg("examples/c/service.c").current_dir(root()));
    fs::rename(new, built("c-service")).expect("the service is renamed");
}

/// Of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in it")
}

fn target() -> PathBuf {
    let test = env::current_exe().expect("the test has a file");
    test.ancestors().nth(3).expect("target/debug/deps/TEST").to_owned()
}

fn built(file: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples").join(file)
}
