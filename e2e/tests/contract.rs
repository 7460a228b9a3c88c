//! The contract suite on Linux: every case of it has the answer that `docs/contract.md` gives.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use carnet::Redirect;
use carnet_e2e::Sandbox;
use carnet_e2e::command::{carnet_run, finish};
use carnet_e2e::programs::{Scratch, Started, program, require, succeed};
use carnet_e2e::sockets::{connect, listen, until};
use carnet_policy::{Action, Filter, Match, Service as Kind};
use serde_json::Value;

/// As root and as nobody, which makes no difference, and where no engine answers: together that is every case.
#[test]
fn every_case_has_the_answer_that_is_decided() {
    build();
    let root = redirected(&[]);
    let nobody = redirected(&["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let alone = unredirected();

    for report in [&root, &nobody, &alone] {
        assert_eq!(report.json["summary"]["failed"], 0, "{}", report.failures());
        assert_eq!(report.code, 0);
    }
    assert_eq!((&root.json["elevated"], &nobody.json["elevated"]), (&true.into(), &false.into()));
    assert_eq!((&root.json["engine"], &alone.json["engine"]), (&true.into(), &false.into()));

    for (case, other) in root.cases().iter().zip(nobody.cases()) {
        assert_eq!(case["id"], other["id"]);
        if !case["observed"].is_null() && !other["observed"].is_null() {
            assert_eq!(case["observed"], other["observed"], "{}: as root, and as nobody", case["id"]);
        }
    }
    let ids = |wanted: fn(&Value) -> bool, report: &Report| -> BTreeSet<String> {
        let wanted = report.cases().iter().filter(|case| wanted(case));
        wanted.map(|case| case["id"].as_str().expect("an id").to_owned()).collect()
    };
    let answered = |report| ids(|case| !case["observed"].is_null(), report);
    let never = ids(|case| case["linux"].is_null(), &root);
    let all = ids(|_| true, &root);
    let asked: BTreeSet<_> =
        [answered(&root), answered(&nobody), answered(&alone), never].into_iter().flatten().collect();
    assert_eq!(all.difference(&asked).collect::<Vec<_>>(), Vec::<&String>::new(), "not asked anywhere");
}

/// The command which the documentation gives.
#[test]
fn below_carnet_run_it_tells_the_client() {
    build();
    let (scratch, server) = (Scratch::new(), listen("127.0.0.1:0"));
    let (file, suite) = (scratch.file("report.json"), suite());
    let through = format!("'{}' --port {{port}} --report '{}'", suite.display(), file.display());
    let destination = server.local_addr().expect("bound").to_string();
    let suite = suite.display().to_string();
    let ended = finish(&mut carnet_run(&["--through", &through, "--", &suite, "--client", &destination]));

    assert_eq!(ended.code, 0, "{ended:?}");
    println!("{}", ended.output);
    let last = ended.output.lines().last().expect("a summary");
    assert!(last.contains(" 0 FAILED. This system: linux, elevated."), "{ended:?}");
    let report: Value = serde_json::from_str(&fs::read_to_string(file).expect("a report")).expect("JSON");
    assert_eq!((&report["mode"], &report["summary"]["failed"]), (&"service".into(), &0.into()));
    let answered = |id: &str| {
        let cases = report["cases"].as_array().expect("cases");
        cases.iter().any(|case| case["id"] == id && !case["observed"].is_null())
    };
    // `carnet run` has no filter that gives a context, and nobody dials the service from outside.
    assert!(answered("records.size.exact") && answered("set.then-connect") && answered("context.none"));
    assert!(!answered("context.size.exact") && !answered("records.socket.lost"));
}

struct Report {
    code: i32,
    json: Value,
}

impl Report {
    fn cases(&self) -> &[Value] {
        self.json["cases"].as_array().expect("cases")
    }

    fn failures(&self) -> String {
        let failed = self.cases().iter().filter(|case| case["verdict"] == "FAILED");
        failed.map(|case| format!("{}: {} and not {}\n", case["id"], case["observed"], case["linux"])).collect()
    }
}

/// In a service's cgroup, with a connection that has a context, one that has none, one that came past the redirection,
/// and a record of another service. `privileges` are arguments of setpriv.
fn redirected(privileges: &[&str]) -> Report {
    let scratch = Scratch::new();
    let mut sandbox = Sandbox::new();
    let servers = [(); 3].map(|()| listen("127.0.0.1:0"));
    let destinations = servers.each_ref().map(|server| server.local_addr().expect("bound"));
    let [_suite, other] = [(); 2].map(|()| sandbox.service(Kind::Aware));
    sandbox.policy.providers[0].filters = vec![only(destinations[0], CONTEXT), only(destinations[1], b"")];
    sandbox.policy.providers[1].filters = vec![only(destinations[2], b"")];
    sandbox.apply();

    let (_client, accepted) = sandbox.arrive(&other, destinations[2]);
    let record = Redirect::of(&accepted).records().expect("records");
    let [context_file, record_file] = ["context", "record"].map(|name| scratch.file(name));
    fs::write(&context_file, CONTEXT).expect("a file");
    fs::write(&record_file, record.as_bytes()).expect("a file");

    let mut command = sandbox.service_command(0, "setpriv");
    command.args(privileges).arg(suite()).args(["--port", "0", "--connections", "3", "--once", "--json"]);
    command.arg("--context").arg(context_file).arg("--others-record").arg(record_file);
    let mut suite = Suite::start(&mut command);
    let port = suite.port();
    sandbox.policy.providers[0].listeners =
        vec![([127, 0, 0, 1], port).into(), ([0, 0, 0, 0, 0, 0, 0, 1], port).into()];
    sandbox.apply();

    let redirected = |destination| sandbox.in_app(|| connect(destination)).expect("connect");
    let clients: [TcpStream; 3] = [
        redirected(destinations[0]),
        redirected(destinations[1]),
        // From outside the governed cgroups.
        connect(([127, 0, 0, 1], port).into()).expect("connect"),
    ];
    let report = suite.end();
    drop(clients);
    report
}

fn unredirected() -> Report {
    Suite::start(Command::new(suite()).args(["--unredirected", "--json"])).end()
}

/// Redirects what goes to this port, and gives this context.
fn only(destination: SocketAddr, context: &[u8]) -> Filter {
    let port = destination.port();
    let matches = Match::default().on_ports(port..=port);
    Filter { name: "only".into(), weight: 1, matches, action: Action::Redirect { context: context.to_vec() } }
}

const CONTEXT: &[u8] = b"sixty-four bytes which only the filter and its own service know.";

/// A running suite, whose output is read as it comes.
struct Suite {
    process: Started,
    errors: BufReader<std::process::ChildStderr>,
    output: thread::JoinHandle<String>,
}

impl Suite {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Started::by(command);
        let errors = BufReader::new(process.stderr.take().expect("piped"));
        let mut output = process.stdout.take().expect("piped");
        let output = thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).expect("its output is text");
            text
        });
        Self { process, errors, output }
    }

    fn port(&mut self) -> u16 {
        let mut line = String::new();
        self.errors.read_line(&mut line).expect("its errors are text");
        let port = line.trim().strip_prefix("carnet-contract: listening on port ");
        port.unwrap_or_else(|| panic!("{line}")).parse().expect("a port")
    }

    fn end(mut self) -> Report {
        let status = until("the suite's end", || self.process.ended());
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).expect("its errors are text");
        let text = self.output.join().expect("it was read");
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"));
        Report { code: status.code().unwrap_or(-1), json }
    }
}

/// Builds the suite; once, whatever tests run at the same time.
fn build() {
    require(&["cargo", "setpriv"]);
    let mut cargo = program(env!("CARGO"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in it");
    succeed(cargo.args(["build", "--quiet", "-p", "carnet-contract", "--target-dir"]).arg(target()).current_dir(root));
}

fn suite() -> PathBuf {
    target().join("debug/carnet-contract")
}

fn target() -> PathBuf {
    let test = env::current_exe().expect("the test has a file");
    test.ancestors().nth(3).expect("target/debug/deps/TEST").to_owned()
}
