//! Many connections of one kind, made as fast as can be, to the destinations in turn. Fails where one goes otherwise
//! than the kind says.
//!
//! `carnet-e2e-load KIND COUNT DESTINATION...`
//!
//! | kind | one connection |
//! | --- | --- |
//! | `finish` | a byte there and back, then close |
//! | `answered` | the same, but the server closes first |
//! | `reset` | a byte there and back, then a reset |
//! | `refused` | nobody is at the destination: it ends with an error |
//! | `hold` | a byte there and back; prints `held` when all are open, and waits until the other side ends each of them |
//! | `together` | a byte there and back; prints `held` when all are open. Then, a line each time: a byte there and back again on all, `passed`; closes them all, `closed` |
//! | `insist` | from 127.0.0.2, a byte there and back, then a reset; COUNT threads do so until they are killed, whatever happens |
//! | `fork` | in a process that is forked for it, all at the same time: sends that process's id in a line |
//! | `abandon` | connects without waiting; prints `held`, waits for a line, and closes them all |
//! | `unanswered` | connects, sends a byte; prints `held`, waits for a line, and closes or resets them in turn |
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;
use std::{env, process, thread};

use anyhow::{Context, Result, bail, ensure};
use carnet_e2e::raw;
use carnet_e2e::sockets::stream;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use socket2::Socket;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [kind, count, destinations @ ..] = &arguments[..] else {
        bail!("usage: carnet-e2e-load KIND COUNT DESTINATION...")
    };
    let count: usize = count.parse()?;
    let destinations: Vec<SocketAddr> = destinations.iter().map(|at| at.parse()).collect::<Result<_, _>>()?;
    ensure!(!destinations.is_empty(), "no destination");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;

    let turns = (0..count).map(|turn| destinations[turn % destinations.len()]);
    match kind.as_str() {
        "finish" => spread(count, &destinations, |to| exchange(to, b'e').map(drop)),
        "answered" => spread(count, &destinations, answered),
        "reset" => spread(count, &destinations, |to| Ok(reset(exchange(to, b'e')?)?)),
        "refused" => spread(count, &destinations, refused),
        "hold" => hold(turns.map(|to| exchange(to, b'e')).collect::<Result<_>>()?),
        "together" => together(turns.map(|to| exchange(to, b'e')).collect::<Result<_>>()?),
        "insist" => insist(count, &destinations),
        "fork" => fork_all(turns),
        "abandon" => let_go(turns.map(abandon).collect::<Result<_>>()?, false),
        "unanswered" => let_go(turns.map(unanswered).collect::<Result<_>>()?, true),
        _ => bail!("no such kind: {kind}"),
    }
}

/// Over some threads, because one would mostly wait.
fn spread(count: usize, destinations: &[SocketAddr], one: impl Fn(SocketAddr) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let one = &one;
        let work = |worker: usize| {
            (worker..count).step_by(WORKERS).try_for_each(|turn| {
                let to = destinations[turn % destinations.len()];
                one(to).with_context(|| format!("connection {turn} to {to}"))
            })
        };
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

fn open(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = stream(to);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn exchange(to: SocketAddr, word: u8) -> Result<TcpStream> {
    let mut stream = open(to).context("connect")?;
    exchange_on(&mut stream, word)?;
    Ok(stream)
}

fn exchange_on(stream: &mut TcpStream, word: u8) -> Result<()> {
    let mut answer = [0];
    stream.write_all(&[word])?;
    stream.read_exact(&mut answer).context("no answer")?;
    ensure!(answer == [word], "another answer");
    Ok(())
}

fn answered(to: SocketAddr) -> Result<()> {
    let mut stream = exchange(to, b'c')?;
    ensure!(stream.read(&mut [0])? == 0, "the server did not close");
    Ok(())
}

fn refused(to: SocketAddr) -> Result<()> {
    let end = open(to).and_then(|mut stream| stream.read(&mut [0]));
    match end {
        Err(error) if [ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused].contains(&error.kind()) => Ok(()),
        other => bail!("not refused: {other:?}"),
    }
}

fn abandon(to: SocketAddr) -> Result<Socket> {
    let socket = stream(to);
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Ok(socket),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(socket),
    }
}

fn unanswered(to: SocketAddr) -> Result<Socket> {
    let mut stream = open(to)?;
    stream.write_all(b"e")?;
    Ok(stream.into())
}

fn reset(stream: TcpStream) -> io::Result<()> {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

fn held() -> io::Result<()> {
    say("held")
}

fn say(word: &str) -> io::Result<()> {
    println!("{word}");
    io::stdout().flush()
}

/// Waits until it is told to go on.
fn next_line() -> Result<()> {
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn hold(streams: Vec<TcpStream>) -> Result<()> {
    held()?;
    for mut stream in streams {
        stream.set_read_timeout(None)?;
        match stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => bail!("not ended by the other side: {other:?}"),
        }
    }
    Ok(())
}

fn together(mut streams: Vec<TcpStream>) -> Result<()> {
    held()?;
    next_line()?;
    for (turn, stream) in streams.iter_mut().enumerate() {
        exchange_on(stream, turn as u8).with_context(|| format!("connection {turn}"))?;
    }
    say("passed")?;
    next_line()?;
    drop(streams);
    say("closed")?;
    next_line()
}

/// Its own address gives it away where it is not redirected: what a service dials has another one.
fn insist(threads: usize, destinations: &[SocketAddr]) -> ! {
    let turn = |to: SocketAddr| -> Result<()> {
        let socket = stream(to);
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.bind(&SocketAddr::from((TELLTALE, 0)).into())?;
        socket.connect(&to.into())?;
        exchange_on(&mut socket.into(), b'e')
    };
    thread::scope(|scope| {
        let insist = |to| loop {
            // Refused, reset: as may be.
            let _ = turn(to);
        };
        for thread in 0..threads {
            let to = destinations[thread % destinations.len()];
            scope.spawn(move || -> () { insist(to) });
        }
    });
    unreachable!("its threads do not end")
}

/// Each process is this one's copy, and never another program.
fn fork_all(turns: impl Iterator<Item = SocketAddr>) -> Result<()> {
    let say_who = |to| -> io::Result<()> { writeln!(open(to)?, "{}", process::id()) };
    let fork = |to| raw::fork(|| say_who(to).map_err(|error| error.raw_os_error().unwrap_or(-1)));
    for child in turns.map(fork).collect::<Vec<_>>() {
        let status = waitpid(Pid::from_raw(child.cast_signed()), None)?;
        ensure!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }
    Ok(())
}

fn let_go(sockets: Vec<Socket>, reset_some: bool) -> Result<()> {
    held()?;
    next_line()?;
    for (turn, socket) in sockets.into_iter().enumerate() {
        if reset_some && turn % 2 == 0 {
            socket.set_linger(Some(Duration::ZERO))?;
        }
    }
    Ok(())
}

const TELLTALE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const WORKERS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(20);
