use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use carnet_e2e::command::{Run, carnet, undisturbed};
use carnet_e2e::daemon::Table;
use carnet_e2e::origin::Origin;
use carnet_e2e::programs::Scratch;
use carnet_e2e::sockets::PATIENCE;
use carnet_e2e::{Daemon, Ground, netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Where the service listens. Each test has a network namespace of its own.
pub const LISTEN: &str = "127.0.0.1:15001";

/// Long enough for a machine with much else to do.
const LONG: Duration = Duration::from_secs(20);

/// A daemon, whose policy redirects what goes to `origin` to a `carnet proxy`.
pub struct Site {
    pub ground: Ground,
    pub proxy: Run,
    pub origin: Origin,
    scratch: Scratch,
    pub daemon: Daemon,
}

impl Site {
    /// Does something at a site whose proxy has these rules and arguments, in a network namespace made for it.
    pub fn with(rules: &str, arguments: &[&str], act: impl FnOnce(Site) + Send) {
        Self::with_after(|| {}, rules, arguments, act);
    }

    /// The same, after something else has been done in that network namespace.
    pub fn with_after(before: impl FnOnce() + Send, rules: &str, arguments: &[&str], act: impl FnOnce(Site) + Send) {
        netns::alone(|| {
            before();
            act(Self::new(rules, arguments));
        });
    }

    fn new(rules: &str, arguments: &[&str]) -> Self {
        let (ground, scratch) = (Ground::new(), Scratch::new());
        let origin = Origin::http("127.0.0.1:0");
        let listen: SocketAddr = LISTEN.parse().unwrap();
        // Any cgroup below it is the service's, so that one may take over from another.
        let table = Table::new("inspect", 10, &ground, &ground.services, &[listen]);
        fs::write(scratch.file("rules.toml"), rules).unwrap();
        let (proxy, _) = Self::start(&ground, &scratch, 0, &[&["--listen", LISTEN], arguments].concat());
        let daemon = Daemon::start(&ground, &table.redirecting("all", "remote = \"127.0.0.0/8\""));
        Self { ground, proxy, origin, scratch, daemon }
    }

    /// The command in the cgroup of the service with this index, ready, and what it says then.
    fn start(ground: &Ground, scratch: &Scratch, index: usize, arguments: &[&str]) -> (Run, Value) {
        let mut proxy = Self::begin(ground, scratch, index, arguments);
        let ready = said(&mut proxy, "ready");
        (proxy, ready)
    }

    fn begin(ground: &Ground, scratch: &Scratch, index: usize, arguments: &[&str]) -> Run {
        let mut command = Command::new(carnet());
        undisturbed(&mut command).args(["proxy", "--json", "--rules"]);
        command.arg(scratch.file("rules.toml")).args(arguments);
        ground.within(&ground.service(index), || Run::start(&mut command))
    }

    /// The next process, in that cgroup: ready, and in the place of the one before, which is returned with what the next
    /// one says.
    pub fn succeed(&mut self, index: usize, arguments: &[&str]) -> (Run, Value) {
        let (next, ready) = Self::start(&self.ground, &self.scratch, index, arguments);
        (std::mem::replace(&mut self.proxy, next), ready)
    }

    /// One more process that is not ready yet, and may never be.
    pub fn another(&self, index: usize, arguments: &[&str]) -> Run {
        Self::begin(&self.ground, &self.scratch, index, arguments)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }

    /// Rules that hold from now on, as far as the proxy takes them. What it says of them.
    pub fn reload(&mut self, rules: &str) -> Value {
        fs::write(self.file("rules.toml"), rules).unwrap();
        self.signal(Signal::SIGHUP);
        self.said("rules")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.proxy.pid().cast_signed()), signal).unwrap();
    }

    /// The next thing of this type that it says.
    pub fn said(&mut self, kind: &str) -> Value {
        said(&mut self.proxy, kind)
    }

    /// An application's connection.
    pub fn connect(&self) -> TcpStream {
        self.connect_to(self.origin.address)
    }

    /// The same to somewhere else.
    pub fn connect_to(&self, to: SocketAddr) -> TcpStream {
        let stream = self.ground.within(&self.ground.app, || TcpStream::connect(to)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What an application gets that sends this; what came before a reset.
    pub fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        let mut answer = Vec::new();
        let asked = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let asked = asked.and_then(|()| stream.read_to_end(&mut answer).map(drop));
        if let Err(error) = asked {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer in time");
        }
        answer
    }

    /// The answer to an HTTP request for this host, as text.
    pub fn get(&self, host: &str) -> String {
        let request = format!("GET /10 HTTP/1.1\r\nHost: {host}\r\n\r\n");
        String::from_utf8(self.ask(request.as_bytes())).unwrap()
    }
}

/// An HTTP request by whoever the calling thread is, and the answer.
pub fn get(from: SocketAddr) -> Vec<u8> {
    let mut client = TcpStream::connect(from).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET /10 HTTP/1.1\r\nHost: good.example\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    answer
}

/// The next thing of this type that a proxy says.
pub fn said(proxy: &mut Run, kind: &str) -> Value {
    loop {
        let line = line_of(proxy);
        if line["type"] == kind {
            return line;
        }
    }
}

fn line_of(proxy: &mut Run) -> Value {
    serde_json::from_str(&proxy.line_within(LONG)).unwrap()
}
