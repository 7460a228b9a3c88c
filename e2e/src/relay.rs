//! Services, servers and clients that are processes of their own, so that they can be stopped and killed.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::programs::Started;
use crate::sockets::until;

/// A process that ends when this is dropped, or when the test process dies: its standard input ends then.
#[derive(Debug)]
pub struct Running {
    child: Started,
    output: BufReader<ChildStdout>,
}

/// A service started from the program `carnet-e2e-relay`.
#[derive(Debug)]
pub struct Relay {
    /// Index of its provider in the sandbox's policy, as long as no test reorders that.
    pub index: usize,
    /// Where it listens: IPv4, IPv6.
    pub addresses: [SocketAddr; 2],
    /// The process.
    pub process: Running,
}

impl Running {
    /// Starts a command with its standard input and output connected to the test.
    pub fn start(command: &mut Command) -> Self {
        let mut child = Started::by(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output }
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("its output is text");
        assert!(line.ends_with('\n'), "it ended instead of printing a line; what it said is on standard error");
        line.trim_end().to_owned()
    }

    /// Tells it to go on, where it waits for that.
    pub fn go_on(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.ended()
    }

    /// SIGSTOP, and waits until it stands.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        until("the process to stand still", || self.is_in_state('T').then_some(()));
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGKILL, and waits until it is gone, its sockets too.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("the process lives");
    }

    fn is_in_state(&self, wanted: char) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process lives");
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(wanted))
    }
}

impl Relay {
    /// Starts one and waits until it listens.
    pub fn start(index: usize, command: &mut Command) -> Self {
        let mut process = Running::start(command);
        let line = process.line();
        let mut addresses = line.split(' ').map(|address| address.parse().expect("an address"));
        let addresses = [addresses.next().expect("IPv4"), addresses.next().expect("IPv6")];
        Self { index, addresses, process }
    }
}
