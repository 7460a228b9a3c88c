//! What an application and its server notice of the built-in service, which is: nothing. Two of them are in each flow.
//!
//! The test process plays both: it makes the application's sockets in the run's cgroup, and the server's outside of it.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use carnet_e2e::Relay;
use carnet_e2e::command::{Run, carnet, carnet_run, turn, undisturbed};
use carnet_e2e::flow_log::{Flow, FlowLog};
use carnet_e2e::sockets::{accept, connect, listen, until};
use socket2::SockRef;

#[test]
fn the_end_of_one_direction_leaves_the_other_one_open() {
    let _turn = turn();
    let flows = Flows::start();
    for family in FAMILIES {
        for server_first in [false, true] {
            let (client, server) = flows.open(family);
            let (mut first, mut second) = if server_first { (server, client) } else { (client, server) };
            first.write_all(b"question").unwrap();
            first.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut second), b"question");
            for part in [b"an", b"sw", b"er"] {
                second.write_all(part).unwrap();
                let mut read = [0; 2];
                first.read_exact(&mut read).unwrap();
                assert_eq!(&read, part);
            }
            second.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut first), b"");
        }
    }
    assert_eq!(flows.log().iter().map(ended).collect::<Vec<_>>(), ["closed"; 4]);
}

#[test]
fn a_reset_is_a_reset_at_the_other_side() {
    let _turn = turn();
    let flows = Flows::start();
    for family in FAMILIES {
        for server_first in [false, true] {
            let (client, server) = flows.open(family);
            let (mut first, mut second) = if server_first { (server, client) } else { (client, server) };
            first.write_all(b"before").unwrap();
            let mut read = [0; 6];
            second.read_exact(&mut read).unwrap();
            reset(first);
            assert_eq!(second.read(&mut read).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
    let log = flows.log();
    let ends: Vec<_> = log.iter().map(|flow| (ended(flow), flow.at())).collect();
    let (aborted, by_destination) = (("aborted", None), ("reset", Some("destination")));
    assert_eq!(ends, [aborted, by_destination, aborted, by_destination]);
}

#[test]
fn a_refusal_is_passed_on_at_once() {
    let _turn = turn();
    let flows = Flows::start();
    for family in FAMILIES {
        let closed = TcpListener::bind(family).unwrap().local_addr().unwrap();
        let begun = Instant::now();
        // The first service has accepted by the time the destination is asked.
        let mut client = flows.run.in_app(|| connect(closed)).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    let log = flows.log();
    assert_eq!(log.len(), 2);
    for flow in log {
        assert_eq!((ended(&flow), flow.at()), ("failed", Some("destination")), "{flow:?}");
        assert_eq!(flow.text("error"), Some("ECONNREFUSED"), "{flow:?}");
    }
}

#[test]
fn the_server_may_speak_first() {
    let _turn = turn();
    let flows = Flows::start();
    for family in FAMILIES {
        let (mut client, mut server) = flows.open(family);
        server.write_all(b"220 ready\r\n").unwrap();
        let mut read = [0; 11];
        client.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"220 ready\r\n");
        drop(client);
        assert_eq!(read_to_end(&mut server), b"");
    }
}

#[test]
fn no_byte_is_held_back_while_a_name_is_read() {
    let _turn = turn();
    let flows = Flows::start();
    for family in FAMILIES {
        let (mut client, mut server) = flows.open(family);
        for &byte in b"GET / HTTP/1.1\r\nHost: carnet.example\r\n\r\n" {
            client.write_all(&[byte]).unwrap();
            let mut read = [0];
            server.read_exact(&mut read).unwrap();
            assert_eq!(read, [byte]);
        }
        drop(client);
        assert_eq!(read_to_end(&mut server), b"");
    }
    assert_eq!(flows.log().iter().map(|flow| flow.text("name")).collect::<Vec<_>>(), [Some("carnet.example"); 2]);
}

#[test]
fn much_both_ways_at_once_arrives_unchanged() {
    let _turn = turn();
    let flows = Flows::start();
    for family in FAMILIES {
        let (client, server) = flows.open(family);
        thread::scope(|scope| {
            let ends = [(&client, &server, 1), (&server, &client, 2)];
            for (from, to, seed) in ends {
                scope.spawn(move || send(from, seed, MUCH));
                scope.spawn(move || receive(to, seed, MUCH));
            }
        });
    }
    for flow in flows.log() {
        assert_eq!((flow.bytes(), ended(&flow)), ((MUCH, MUCH), "closed"), "{flow:?}");
    }
}

#[test]
fn a_slow_reader_stops_the_sender() {
    let _turn = turn();
    let flows = Flows::start();
    for sender_is_server in [false, true] {
        let (client, server) = flows.open(FAMILIES[0]);
        let (sender, reader) = if sender_is_server { (server, client) } else { (client, server) };
        let room = most_buffered();
        sender.set_nonblocking(true).unwrap();
        let taken = fill(&sender, room + 1);
        assert!(taken <= room, "nobody reads, and {taken} bytes have gone; buffers hold {room} at most");

        // What is stuck is not lost.
        sender.set_nonblocking(false).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| (&sender).write_all(&vec![b'x'; CHUNK]).and_then(|()| sender.shutdown(Shutdown::Write)));
            let mut read = 0;
            let mut buffer = vec![0; CHUNK];
            loop {
                match (&reader).read(&mut buffer).unwrap() {
                    0 => break,
                    count => read += count as u64,
                }
            }
            assert_eq!(read, taken + CHUNK as u64);
        });
    }
}

/// As many flows as one service has files for, up to 10,000; the message where it is fewer.
#[test]
fn alone_ten_thousand_flows_at_once() {
    let _turn = turn();
    let server = Relay::start(0, Command::new(env!("CARGO_BIN_EXE_carnet-e2e-relay")).arg("server"));
    let destination = server.addresses[0].to_string();
    // The client's own limit is the hard one it is given; the service raises its own as far as it may.
    let script = r#"echo ready; read count; exec "$0" together "$count" "$1""#;
    let mut run = Run::start(&mut carnet_run(&["--json", "--", "sh", "-c", script, LOAD, &destination]));
    assert_eq!(run.line(), "ready");
    let [service] = run.service_processes(0)[..] else { panic!("the built-in service is one process") };
    let [client] = run.command_processes()[..] else { panic!("the command is one process") };
    let files = soft_limit(service);
    let possible = (files - FILES_BESIDE_FLOWS) / 2;
    let others = [client, std::process::id()].map(hard_limit).into_iter().min().unwrap() - FILES_BESIDE_FLOWS;
    let count = possible.min(others).min(10_000);
    assert!(count >= 1000, "with limits of {files} and {others} files this is no test: ulimit -Hn 20000");

    let at_rest = open_files(service);
    run.say(&count.to_string());
    assert_eq!(run.line_within(MINUTE), "held");
    assert_eq!(open_files(service), at_rest + 2 * count, "two files for each flow");
    run.say("go on");
    assert_eq!(run.line_within(MINUTE), "passed");
    run.say("go on");
    assert_eq!(run.line_within(MINUTE), "closed");
    until("its files to be closed", || (open_files(service) == at_rest).then_some(()));
    run.say("go on");
    let end = run.end();

    assert_eq!(end.code, 0);
    let log = FlowLog::parse(&end.errors);
    assert_eq!(log.flows.iter().filter(|flow| ended(flow) == "closed").count() as u64, count, "{}", log.summary);
    assert_eq!((log.flows.len() as u64, &log.summary["events_lost"]), (count, &0.into()), "{}", log.summary);
    assert_eq!(log.summary["sent"], 2 * count);
    let mut expected = Vec::new();
    if files < 20_000 {
        expected.push("the limit of open files is");
    }
    if count == possible {
        expected.push("all there are files for; more wait");
    }
    assert_said(&log, &expected);
}

#[test]
fn too_few_files_are_told_of_and_flows_wait() {
    const FILES: u64 = 264;
    let _turn = turn();
    // Root that may not raise its own limits, as in many containers.
    let limit = format!("prlimit --nofile={FILES}:{FILES}");
    let privileges = ["--bounding-set=-sys_resource", "--inh-caps=-sys_resource"];
    let mut command = Command::new("setpriv");
    command.args(privileges).args(limit.split(' ')).arg(carnet());
    command.args(["run", "--json", "--", "sh", "-c", "echo ready; exec cat"]);
    let mut run = Run::start(undisturbed(&mut command));
    assert_eq!(run.line(), "ready");
    let [service] = run.service_processes(0)[..] else { panic!("the built-in service is one process") };
    assert_eq!(soft_limit(service), FILES);
    until("the warning", || run.errors().contains("the limit of open files is 264").then_some(()));

    let listener = listen("127.0.0.1:0");
    let destination = listener.local_addr().unwrap();
    let fit = (FILES - FILES_BESIDE_FLOWS) / 2;
    let open = || {
        let client = run.in_app(|| connect(destination)).unwrap();
        (client, accept(&listener))
    };
    let mut flows: Vec<_> = (1..fit).map(|_| open()).collect();
    assert!(!run.errors().contains("more wait\"}"), "one more fits: {}", run.errors());
    flows.push(open());
    until("the other warning", || run.errors().contains("all there are files for; more wait").then_some(()));

    let mut waiting = run.in_app(|| connect(destination)).unwrap();
    waiting.write_all(b"when there is room").unwrap();
    assert!(carnet_e2e::sockets::is_idle(&listener), "it waits");
    drop(flows.pop());
    let mut read = [0; 18];
    accept(&listener).read_exact(&mut read).unwrap();
    assert_eq!(&read, b"when there is room");
    drop(flows);
    run.close_input();
    let end = run.end();
    assert_eq!(end.code, 0, "{end:?}");
    assert_said(&FlowLog::parse(&end.errors), &["the limit of open files is", "all there are files for; more wait"]);
}

/// A run with two built-in services, and what went through it.
struct Flows {
    run: Run,
}

impl Flows {
    fn start() -> Self {
        Self { run: Run::idle(&["--json", "--through", "inspect", "--through", "inspect"]) }
    }

    /// A flow: the application's end and the server's.
    fn open(&self, family: &str) -> (TcpStream, TcpStream) {
        let listener = listen(family);
        let client = self.run.in_app(|| connect(listener.local_addr().unwrap())).unwrap();
        (client, accept(&listener))
    }

    /// Ends the run and returns its flows in the order of their beginning.
    fn log(mut self) -> Vec<Flow> {
        self.run.close_input();
        let end = self.run.end();
        assert_eq!(end.code, 0, "{end:?}");
        let mut flows = FlowLog::parse(&end.errors).flows;
        flows.sort_by_key(|flow| flow.text("time").map(str::to_owned));
        assert!(flows.iter().all(|flow| flow.chain() == [("inspect", false), ("inspect-2", false)]), "{flows:#?}");
        flows
    }
}

fn ended(flow: &Flow) -> &str {
    flow.text("ended").unwrap()
}

/// These warnings, in this order, and no others.
fn assert_said(log: &FlowLog, expected: &[&str]) {
    let said = |(warning, words): (&String, &&str)| warning.contains(*words);
    let as_expected = log.warnings.len() == expected.len() && log.warnings.iter().zip(expected).all(said);
    assert!(as_expected, "{:#?}, not {expected:#?}", log.warnings);
}

fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    socket.read_to_end(&mut read).unwrap();
    read
}

fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

fn send(mut socket: &TcpStream, seed: u64, length: u64) {
    let mut state = seed;
    let mut buffer = vec![0; CHUNK];
    for _ in 0..length / CHUNK as u64 {
        fill_in(&mut buffer, &mut state);
        socket.write_all(&buffer).unwrap();
    }
    socket.shutdown(Shutdown::Write).unwrap();
}

fn receive(mut socket: &TcpStream, seed: u64, length: u64) {
    let mut state = seed;
    let [mut expected, mut read] = [(); 2].map(|()| vec![0; CHUNK]);
    for place in 0..length / CHUNK as u64 {
        fill_in(&mut expected, &mut state);
        socket.read_exact(&mut read).unwrap();
        assert!(read == expected, "changed within {CHUNK} bytes from {}", place * CHUNK as u64);
    }
    assert_eq!(socket.read(&mut [0]).unwrap(), 0, "more than was sent");
}

/// Numbers that do not repeat (xorshift).
fn fill_in(buffer: &mut [u8], state: &mut u64) {
    for bytes in buffer.chunks_exact_mut(8) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        bytes.copy_from_slice(&state.to_le_bytes());
    }
}

/// Writes until nothing is taken for a while, or until it is too much.
fn fill(mut socket: &TcpStream, too_much: u64) -> u64 {
    let bytes = vec![b'x'; CHUNK];
    let mut taken = 0;
    let mut last = Instant::now();
    while taken < too_much && last.elapsed() < STANDSTILL {
        match socket.write(&bytes) {
            Ok(count) => {
                taken += count as u64;
                last = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
    taken
}

/// What three connections can hold, with what two services keep between them.
fn most_buffered() -> u64 {
    let most = |name: &str| -> u64 {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        text.split_ascii_whitespace().last().unwrap().parse().unwrap()
    };
    3 * (most("tcp_rmem") + most("tcp_wmem")) + 2 * (256 << 10)
}

fn soft_limit(pid: u32) -> u64 {
    limits(pid)[0]
}

fn hard_limit(pid: u32) -> u64 {
    limits(pid)[1]
}

fn limits(pid: u32) -> [u64; 2] {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().unwrap_or(u64::MAX));
    [numbers.next().unwrap(), numbers.next().unwrap()]
}

fn open_files(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64
}

const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");
const FAMILIES: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];
const MUCH: u64 = 64 << 20;
const CHUNK: usize = 64 << 10;
const MINUTE: Duration = Duration::from_secs(60);
const STANDSTILL: Duration = Duration::from_millis(300);
/// The service sets so many aside.
const FILES_BESIDE_FLOWS: u64 = 64;
