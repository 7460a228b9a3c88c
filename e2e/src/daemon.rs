//! `carnet serve` as a process of its own: started, asked, killed, started again.
//!
//! ```no_run
//! # use carnet_e2e::{Daemon, Ground, daemon::Table};
//! let ground = Ground::new();
//! let table = Table::new("dlp", 10, &ground, &ground.service(0), &["127.0.0.1:15001".parse().unwrap()]);
//! let mut daemon = Daemon::start(&ground, &table.redirecting("web", "remote-port = 443"));
//! daemon.kill();
//! daemon.restart();
//! assert!(daemon.status().adopted);
//! ```

mod events;
mod pinned;
mod table;

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;
use std::{fs, thread, time::Duration};

use carnet_control::{Applied, Client, ClientError, Flow, FlowLine, PolicyRequest, Provider, ProviderState, Status};
use carnet_engine::cgroup::Cgroup;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::runtime::Runtime;

pub use self::events::Events;
use self::pinned::Pins;
pub use self::table::Table;
use crate::Ground;
use crate::command::{Ended, carnet, finish, undisturbed};
use crate::programs::{Scratch, Started};
use crate::sockets::{PATIENCE, until};

/// One place at which a daemon is: policy file, socket, state, pins and log, in a folder of its own. Dropped, the daemon is
/// killed, and its pins are removed with all that they keep in the kernel.
///
/// The pins are in a bpf file system which the thread that makes this, and whatever it starts from then on, sees alone.
pub struct Daemon {
    process: Option<Started>,
    arguments: Vec<String>,
    runtime: Runtime,
    pins: Pins,
    scratch: Scratch,
}

impl Daemon {
    /// Starts one that governs the ground's governed cgroup, and waits until it answers.
    pub fn start(ground: &Ground, policy: &str) -> Self {
        Self::start_on(&ground.name_of(&ground.governed), policy)
    }

    /// The same for another cgroup, by its path below the cgroup2 mount.
    pub fn start_on(cgroup: &str, policy: &str) -> Self {
        let mut daemon = Self::prepare(cgroup, policy);
        daemon.restart();
        daemon
    }

    /// All that it takes to start one. None is started.
    pub fn prepare(cgroup: &str, policy: &str) -> Self {
        let scratch = Scratch::new();
        fs::DirBuilder::new().mode(0o755).create(scratch.file("run")).expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let pins = Pins::new(&scratch);
        let arguments = vec!["--cgroup".into(), cgroup.into()];
        let daemon = Self { process: None, arguments, runtime, pins, scratch };
        daemon.write_policy(policy);
        fs::write(daemon.log_file(), "").expect("a log");
        daemon
    }

    /// Starts it again, also for the first time, and waits until it answers.
    pub fn restart(&mut self) {
        self.begin();
        self.wait_until_ready();
    }

    /// Starts it and waits for nothing.
    pub fn begin(&mut self) {
        assert!(self.process.as_mut().is_none_or(|process| process.ended().is_some()), "it has not ended");
        self.process = Some(Started::by(&mut self.command()));
    }

    /// Waits until it answers.
    pub fn wait_until_ready(&mut self) {
        let pid = self.pid();
        let end = Instant::now() + PATIENCE;
        while self.asked(async |client| client.status().await).ok().is_none_or(|status| status.pid != pid) {
            let ended = self.process.as_mut().and_then(Started::ended);
            assert!(ended.is_none(), "the daemon ended, {}:\n{}", ended.expect("it did"), self.log());
            assert!(Instant::now() < end, "the daemon does not answer:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The command that starts it, for a test that starts it itself. What it says goes to the log.
    pub fn command(&self) -> Command {
        let log = fs::File::options().append(true).open(self.log_file()).expect("the log");
        let mut command = self.serve();
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        command
    }

    /// A second one at the same place, which is to see that it is. How it ends.
    pub fn second(&self) -> Ended {
        finish(&mut self.serve())
    }

    fn serve(&self) -> Command {
        let mut command = Command::new(carnet());
        undisturbed(&mut command).arg("serve").args(&self.arguments);
        command.arg("--policy").arg(self.policy_file()).arg("--socket").arg(self.socket());
        command.arg("--state").arg(self.state()).arg("--pins").arg(self.pins());
        command
    }

    /// More arguments for the next start.
    pub fn arguments(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it has been started").id()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.take().expect("it has been started").kill();
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.end()
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Any signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("the daemon lives");
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("it has been started");
        let ended = until("the daemon's end", || process.ended());
        self.process = None;
        ended
    }

    /// Its policy file.
    pub fn policy_file(&self) -> PathBuf {
        self.scratch.file("policy.toml")
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.state().join("control.sock")
    }

    /// The folder of its state.
    pub fn state(&self) -> PathBuf {
        self.scratch.file("run")
    }

    /// The folder of its pins.
    pub fn pins(&self) -> &Path {
        self.pins.folder()
    }

    /// A file of the test's own, beside the policy file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }

    /// Writes the policy file anew. It is read at the next start, with `carnet reload`, or after SIGHUP.
    pub fn write_policy(&self, text: &str) {
        fs::write(self.policy_file(), text).expect("the policy file can be written");
    }

    /// What all that were started have said until now.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).expect("the log")
    }

    /// Waits until it has said this.
    pub fn wait_for_log(&self, words: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(words) {
            assert!(Instant::now() < end, "it has not said {words:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.file("log")
    }

    /// A command of `carnet` that asks this daemon.
    pub fn ask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(carnet());
        undisturbed(&mut command).args(arguments).arg("--socket").arg(self.socket());
        command
    }

    /// Runs one to its good end. What it said.
    pub fn told(&self, arguments: &[&str]) -> String {
        let ended = finish(&mut self.ask(arguments));
        assert_eq!(ended.code, 0, "{arguments:?}: {}{}\n{}", ended.output, ended.errors, self.log());
        ended.output
    }

    /// The same with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.told(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// `carnet down`. How it ended; the daemon has, too, where there was one.
    pub fn down(&mut self) -> Ended {
        let ended = finish(self.ask(&["down"]).arg("--pins").arg(self.pins()));
        if self.process.is_some() && ended.code == 0 {
            let status = self.end();
            assert!(status.success(), "{status}\n{}", self.log());
        }
        ended
    }

    /// Asks something over the control socket.
    pub fn asked<T, F>(&self, question: impl FnOnce(Client) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.runtime.block_on(async { question(Client::connect(self.socket()).await?).await })
    }

    /// Does something that waits, such as reading on from what was asked before.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// How it does.
    pub fn status(&self) -> Status {
        self.answered(self.asked(async |client| client.status().await))
    }

    /// All providers, by rank.
    pub fn providers(&self) -> Vec<Provider> {
        self.answered(self.asked(async |client| client.providers().await))
    }

    /// The one of this name.
    pub fn provider(&self, name: &str) -> Provider {
        let all = self.providers();
        all.iter().find(|provider| provider.name == name).unwrap_or_else(|| panic!("no {name} in {all:#?}")).clone()
    }

    /// Waits until a provider does so.
    pub fn wait_for_state(&self, name: &str, state: ProviderState) {
        let end = Instant::now() + PATIENCE;
        while self.provider(name).state != state {
            assert!(Instant::now() < end, "{name} is not {state:?} but {:?}\n{}", self.provider(name), self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The flows that are open.
    pub fn flows(&self) -> Vec<Flow> {
        let read = async |client: Client| {
            let mut lines = client.flows(false).await?;
            let mut flows = Vec::new();
            while let Some(line) = lines.next().await? {
                if let FlowLine::Flow(flow) = line {
                    flows.push(*flow);
                }
            }
            Ok(flows)
        };
        self.answered(self.asked(read))
    }

    /// Puts a policy in force, over the socket.
    pub fn apply(&self, text: &str) -> Applied {
        self.answered(self.try_apply(text, false, None))
    }

    /// The same, however it ends; with `dry_run` only as if, and where there is one, if this generation is in force.
    pub fn try_apply(&self, text: &str, dry_run: bool, expected: Option<u64>) -> Result<Applied, ClientError> {
        let request = PolicyRequest { text: text.into(), dry_run, expected };
        self.asked(async |client| client.apply(request).await)
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        Events::of(&self.socket())
    }

    fn answered<T>(&self, answer: Result<T, ClientError>) -> T {
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        // Before its pins go.
        self.process = None;
    }
}

impl Ground {
    /// A cgroup's name in policies and for `carnet serve --cgroup`.
    pub fn name_of(&self, cgroup: &Cgroup) -> String {
        let below = cgroup.path().strip_prefix(self.hierarchy.mount()).expect("it is in the hierarchy");
        Path::new("/").join(below).to_str().expect("our own name").to_owned()
    }
}

/// In the words of a policy file.
fn quoted(addresses: &[SocketAddr]) -> String {
    let quoted: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("[{}]", quoted.join(", "))
}
