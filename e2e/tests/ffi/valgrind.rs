//! The services on the library under valgrind, in an engine of the test's own: no byte is read that nobody has written,
//! no memory that is not theirs, and when they end nothing is left.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use carnet_e2e::command::{Ended, finish};
use carnet_e2e::netns;
use carnet_e2e::origin::Origin;
use carnet_e2e::programs::{self, CURL_GOT_NOTHING, Scratch, foreign, succeed};
use carnet_e2e::sockets::{PATIENCE, until};
use carnet_e2e::{Relay, Sandbox};
use carnet_policy::{Action, Service as Kind};

use crate::built::{Language, Link, build, c_service, cpp_service};

/// Of what each service is told: flows by both families, refused ones, and one that nobody has redirected.
#[test]
fn c() {
    ends_with_nothing_left(&c_service());
}

#[test]
fn cpp() {
    ends_with_nothing_left(&cpp_service());
}

fn ends_with_nothing_left(service: &Path) {
    netns::alone(|| {
        let mut under = UnderValgrind::start(service, &[], Vec::new());
        under.flows(4);

        let closed: SocketAddr = ([127, 0, 0, 1], 9).into();
        let mut curl = under.sandbox.app_command("curl");
        let ended = finish(curl.args(["-s", "--max-time", "10", &format!("http://{closed}/")]));
        assert!(CURL_GOT_NOTHING.contains(&ended.code), "{ended:?}");
        under.said("onnection refused");

        // From where the engine does not govern: a stranger on the listener.
        let stranger = TcpStream::connect(under.service.addresses[0]).unwrap();
        under.said("close the connection");
        assert_reset(&stranger);

        // One that goes on while the service ends.
        let origin = Origin::echo_at_the_end("127.0.0.1:0");
        let open = under.sandbox.in_app(|| TcpStream::connect(origin.address)).unwrap();
        under.said_in_output(&origin.address.to_string());
        under.service.process.terminate();
        assert!(under.end().success(), "{}", under.report());
        assert_clean(&under.report());
        drop(open);
    });
}

/// The test above would see a leak, and an error that is no leak.
#[test]
fn it_sees_what_it_is_there_for() {
    for (body, said) in [
        ("carnet_error_t *error = 0; carnet_dial(-1, &error); return error == 0;", "definitely lost"),
        ("size_t size; return carnet_records_query(0, 0, &size, 0) == 0;", "uninitialised"),
    ] {
        let scratch = Scratch::new();
        let (source, output) = (scratch.file("source.c"), scratch.file("program"));
        fs::write(&source, format!("#include <carnet.h>\nint main(void)\n{{\n\t{body}\n}}\n")).unwrap();
        // What the compiler sees here is not what is to be seen.
        build(Language::C, Link::Static, &source, &output);
        let (ended, report) = run(&output);
        assert_eq!((ended.code, report.contains(said)), (SEEN, true), "{report}");
    }
}

/// Runs a program to its end. How that was, and what valgrind has to say.
pub fn run(program: &Path) -> (Ended, String) {
    let scratch = Scratch::new();
    let report = scratch.file("report");
    let ended = finish(valgrind(&mut programs::program("valgrind"), &report).arg(program));
    (ended, fs::read_to_string(report).unwrap())
}

/// Exit status of a program in which valgrind has seen something.
const SEEN: i32 = 99;

/// A service in an engine, under valgrind.
pub struct UnderValgrind {
    pub sandbox: Sandbox,
    pub service: Relay,
    scratch: Scratch,
}

impl UnderValgrind {
    /// Starts it with these arguments after its port, and waits until it listens. Its filter gives this context.
    pub fn start(service: &Path, arguments: &[&str], context: Vec<u8>) -> Self {
        let scratch = Scratch::new();
        let mut sandbox = Sandbox::new();
        // The namespace is the test's own, and so are its ports.
        let port = "15001";
        let script = format!("echo 127.0.0.1:{port} '[::1]:{port}'; exec \"$@\" >\"$0.output\" 2>\"$0.errors\"");
        let mut words = Command::new("valgrind");
        valgrind(&mut words, &scratch.file("report")).arg(service).arg(port).args(arguments);
        let words = [words.get_program()].into_iter().chain(words.get_args());
        let words: Vec<_> = words.map(|word| word.to_str().unwrap().to_owned()).collect();
        let at = scratch.file("said").to_str().unwrap().to_owned();
        let all: Vec<_> = ["-c", &script, &at].into_iter().chain(words.iter().map(String::as_str)).collect();
        let service = sandbox.relay("sh", Kind::Aware, &all);
        sandbox.policy.providers[service.index].filters[0].action = Action::Redirect { context };
        sandbox.apply();
        let mut under = Self { sandbox, service, scratch };
        until("the service to listen", || {
            assert_eq!(under.service.process.ended(), None, "{}", under.read("said.errors"));
            (listens(":3A99 ", "tcp") && listens(":3A99 ", "tcp6")).then_some(())
        });
        under
    }

    /// As many by each family at the same time, which all arrive.
    pub fn flows(&self, count: usize) -> [SocketAddr; 2] {
        let origins = ["127.0.0.1:0", "[::1]:0"].map(Origin::echo_at_the_end);
        let mut client = self.sandbox.app_command("python3");
        client.arg(foreign("half_close.py")).args([count.to_string(), (1 << 16).to_string()]);
        for origin in &origins {
            client.args([origin.address.ip().to_string(), origin.address.port().to_string()]);
        }
        assert_eq!(succeed(&mut client).trim(), (2 * count).to_string());
        origins.map(|origin| origin.address)
    }

    /// Waits until this is in what the service writes to standard error.
    pub fn said(&self, words: &str) {
        until("the service's word", || self.read("said.errors").contains(words).then_some(()));
    }

    /// The same of standard output.
    pub fn said_in_output(&self, words: &str) {
        until("the service's word", || self.output().contains(words).then_some(()));
    }

    pub fn output(&self) -> String {
        self.read("said.output")
    }

    /// How it ended, once it has.
    pub fn end(&mut self) -> ExitStatus {
        until("the service to end", || self.service.process.ended())
    }

    /// What valgrind has to say, and the service.
    pub fn report(&self) -> String {
        self.read("report") + &self.read("said.errors")
    }

    fn read(&self, file: &str) -> String {
        let file: PathBuf = self.scratch.file(file);
        String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
    }
}

/// The service has closed it, so that its client hears that there is no answer.
pub fn assert_reset(mut client: &TcpStream) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// It has looked, at a program that used memory, and seen nothing.
pub fn assert_clean(report: &str) {
    assert!(report.contains("ERROR SUMMARY: 0 errors from 0 contexts"), "{report}");
    let allocations = report.lines().find_map(|line| line.split_once("total heap usage: ")?.1.split(' ').next());
    let allocations: usize = allocations.expect("a summary").replace(',', "").parse().unwrap();
    assert!(allocations > 0, "{report}");
}

fn valgrind<'c>(command: &'c mut Command, report: &Path) -> &'c mut Command {
    command.args(["--leak-check=full", "--fair-sched=yes"]).arg(format!("--error-exitcode={SEEN}"));
    command.arg(format!(
        "--suppressions={}",
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ffi/valgrind.supp").display()
    ));
    command.arg(format!("--log-file={}", report.display()))
}

/// Whether something of the calling thread's network namespace listens at an address that ends so.
fn listens(at: &str, protocol: &str) -> bool {
    let sockets = fs::read_to_string(format!("/proc/thread-self/net/{protocol}")).unwrap();
    sockets.lines().any(|line| line.contains(at) && line.contains(" 0A "))
}
