//! SIGKILL of one part of `carnet run` at any moment: the command ends, nothing is left, and no connection of the
//! command's gets past the services meanwhile.
//!
//! Where it went is told by its source: the command connects from 127.0.0.2, services from 127.0.0.1.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use carnet_e2e::Relay;
use carnet_e2e::command::{Process, Run, Traces, carnet_run, finish};
use carnet_e2e::sockets::{listen, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn of_carnet_run_itself() {
    kill_each_time(Part::Run);
}

#[test]
fn of_the_guardian() {
    kill_each_time(Part::Guardian);
}

#[test]
fn of_the_built_in_service() {
    kill_each_time(Part::Inspect);
}

#[test]
fn of_a_service_that_was_started() {
    kill_each_time(Part::Through);
}

#[test]
fn of_the_command() {
    kill_each_time(Part::Command);
}

/// That a connection past the services would be seen.
#[test]
fn who_is_let_past_is_seen() {
    let witness = Witness::start();
    let mut run = Run::start(&mut carnet_run(&[&["--no-loopback"], &command(&witness.address)[..]].concat()));
    until("connections past the service", || (witness.past.load(Relaxed) >= 10).then_some(()));
    run.close_input();
    let ended = run.end();
    assert_eq!((ended.code, witness.through.load(Relaxed)), (0, 0), "{ended:?}");
}

#[test]
fn what_a_kill_of_everything_leaves_is_swept_by_the_next_run() {
    let witness = Witness::start();
    let mut run = Run::start(&mut carnet_run(&command(&witness.address)));
    until("connections", || (witness.through.load(Relaxed) >= 10).then_some(()));
    let (guardian, traces) = (run.guardian().unwrap(), Traces::of(&run));
    // Not one after the other: the guardian would have the time to do its work.
    signal(guardian.pid, Signal::SIGSTOP);
    signal(run.pid(), Signal::SIGKILL);
    signal(guardian.pid, Signal::SIGKILL);
    until("carnet run to be gone", || run.has_ended().then_some(()));
    until("the guardian to be gone", || (!guardian.lives()).then_some(()));
    // The command's first process ends with `carnet run`; those which that one has started do not.
    let left = traces.left();
    assert!(left.cgroup.is_some() && left.processes.len() >= 2, "there is something to sweep: {left:?}");

    let next = finish(&mut carnet_run(&["--", "true"]));
    assert_eq!((next.code, &next.errors[..]), (0, "carnet: 0 flows, 0 B up, 0 B down\n"), "{next:?}");
    traces.assert_gone("swept");
}

#[test]
fn a_run_that_lives_is_not_swept() {
    let server = Relay::start(0, Command::new(env!("CARGO_BIN_EXE_carnet-e2e-relay")).arg("server"));
    let script = r#"echo ready; read line; exec "$0" finish 1 "$1""#;
    let destination = server.addresses[0].to_string();
    let mut run = Run::start(&mut carnet_run(&["--", "sh", "-c", script, LOAD, &destination]));
    assert_eq!(run.line(), "ready");
    let before = Traces::of(&run);

    let other = finish(&mut carnet_run(&["--", "true"]));
    assert_eq!(other.code, 0, "{other:?}");
    assert_eq!(format!("{:?}", before.left()), format!("{before:?}"));
    run.say("go on");
    let ended = run.end();
    assert!(ended.code == 0 && ended.errors.contains("closed  inspect"), "{ended:?}");
}

/// What is killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Run,
    Guardian,
    Inspect,
    Through,
    Command,
}

/// When.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Moment {
    /// As soon as it is there, or a little later: most often before everything has started.
    Start,
    /// While connections flow.
    Flowing,
    /// When the command has been told to end, or a little later: also after it has ended.
    End,
}

fn kill_each_time(part: Part) {
    let mut random = Random(0x5eed_0000 + part as u64);
    for moment in [Moment::Start, Moment::Flowing, Moment::End] {
        // At the end the part may be faster.
        let mut hit = moment == Moment::End;
        for _ in 0..TIMES {
            hit |= kill_once(part, moment, &mut random);
        }
        assert!(hit, "{part:?} has always ended before it was killed: {moment:?}");
    }
}

/// Whether it was there to be killed.
fn kill_once(part: Part, moment: Moment, random: &mut Random) -> bool {
    let witness = Witness::start();
    let mut run = Run::start(&mut carnet_run(&command(&witness.address)));
    let enough = match moment {
        Moment::Start => 0,
        Moment::Flowing => 20,
        Moment::End => 1,
    };
    until("connections", || {
        assert!(!run.has_ended(), "it has ended before anything was killed: {}", run.errors());
        (witness.through.load(Relaxed) >= enough).then_some(())
    });
    let target = until("the part to be there", || part.find(&run));
    if moment == Moment::End {
        run.close_input();
    }
    let delay = random.below(match (moment, part) {
        (Moment::Start, Part::Run | Part::Guardian) => Duration::from_millis(250),
        (Moment::Start, _) => Duration::from_millis(100),
        (Moment::Flowing, _) => Duration::from_millis(20),
        (Moment::End, _) => Duration::from_millis(60),
    });
    thread::sleep(delay);
    let traces = Traces::of(&run);
    let hit = target.lives();
    if hit {
        // Fails where it has ended in this moment.
        let _ = kill(Pid::from_raw(target.pid.cast_signed()), Signal::SIGKILL);
    }

    let what = format!("SIGKILL of {part:?}, {moment:?}, after {delay:?}");
    until(&format!("the run to end: {what}"), || run.has_ended().then_some(()));
    until(&format!("the cgroup to go: {what}"), || run.cgroup_now().is_none().then_some(()));
    traces.assert_gone(&what);
    assert_eq!(witness.past.load(Relaxed), 0, "connections got past the services: {what}");
    let ended = run.end();
    let (code, said) = match part {
        Part::Run => (128 + 9, ""),
        Part::Guardian => (3, "the guardian process was killed"),
        Part::Inspect => (3, "the service inspect was killed by SIGKILL"),
        Part::Through => (3, "the service carnet-e2e-through was killed by SIGKILL"),
        Part::Command => (128 + 9, ""),
    };
    let expected = (ended.code, ended.errors.contains(said)) == (code, true);
    assert!(expected || moment == Moment::End && ended.code == 0, "{what}: {ended:?}");
    hit
}

impl Part {
    fn find(self, run: &Run) -> Option<Process> {
        let only = |processes: Vec<u32>| processes.first().and_then(|&pid| Process::of(pid));
        match self {
            Self::Run => Process::of(run.pid()),
            Self::Guardian => run.guardian(),
            Self::Inspect => only(run.service_processes(0)),
            Self::Through => only(run.service_processes(1)),
            Self::Command => only(run.command_processes()),
        }
    }
}

/// Through two services, a command that has children, which connect as fast as they can until its input ends.
fn command(destination: &str) -> [&str; 10] {
    let script = r#""$0" insist 2 "$1" & "$0" insist 2 "$1" & read line; exit 0"#;
    let service = concat!("'", env!("CARGO_BIN_EXE_carnet-e2e-through"), "' {port}");
    ["--through", "inspect", "--through", service, "--", "sh", "-c", script, LOAD, destination]
}

/// A server that counts who comes through the services and who gets past them.
struct Witness {
    address: String,
    through: Arc<AtomicUsize>,
    past: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    fn start() -> Self {
        let listener = listen("127.0.0.1:0");
        let address = listener.local_addr().unwrap().to_string();
        let [through, past] = [(); 2].map(|()| Arc::<AtomicUsize>::default());
        let stop = Arc::<AtomicBool>::default();
        let count = [through.clone(), past.clone()];
        let stopped = stop.clone();
        let thread = thread::spawn(move || serve(&listener, &count, &stopped));
        Self { address, through, past, stop, thread: Some(thread) }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let served = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(served, Some(Ok(()))), "the server failed");
    }
}

fn serve(listener: &TcpListener, [through, past]: &[Arc<AtomicUsize>; 2], stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let Ok((client, peer)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let counter = if peer.ip() == IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)) { past } else { through };
        counter.fetch_add(1, Relaxed);
        echo(client);
    }
}

/// One byte. Whoever was killed meanwhile does not get it.
fn echo(mut client: TcpStream) {
    let mut byte = [0];
    let _ = client
        .set_nonblocking(false)
        .and_then(|()| client.set_read_timeout(Some(Duration::from_secs(1))))
        .and_then(|()| client.read_exact(&mut byte))
        .and_then(|()| client.write_all(&byte));
}

/// Xorshift: the same delays every time, as far as the machine lets them be.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: Duration) -> Duration {
        for shift in [13, -7, 17] {
            self.0 ^= if shift > 0 { self.0 << shift } else { self.0 >> -shift };
        }
        Duration::from_micros(self.0 % limit.as_micros() as u64)
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");
const TIMES: usize = 8;
