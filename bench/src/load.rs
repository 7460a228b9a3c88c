//! The client: a closed loop of blocking threads. Being plain, it also works under proxychains4, which replaces connect().

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

#[derive(clap::Args)]
pub struct Arguments {
    kind: Kind,
    to: SocketAddr,
    /// Threads; for `hold`, connections
    #[arg(long, default_value = "1")]
    count: usize,
    #[arg(long, default_value = "1")]
    seconds: f64,
}

/// What a client does over and over.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Kind {
    /// A connection, a request, its answer of 1 KiB, and the end.
    New,
    /// A request and its answer, on a connection that stays.
    KeepAlive,
    /// Large answers on a connection that stays.
    Bulk,
    /// Opens connections, asks once on each, says so, and waits for a line.
    Hold,
    /// Connects and resets, without a request.
    Connect,
}

impl Kind {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::KeepAlive => "keep-alive",
            Self::Bulk => "bulk",
            Self::Hold => "hold",
            Self::Connect => "connect",
        }
    }
}

/// What came of it, by all threads together.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Outcome {
    /// Connections or answers that were as they should be.
    pub done: u64,
    /// Those that were not.
    pub failed: u64,
    /// Of answers' bodies and heads.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Nanoseconds that connect() took, sorted.
    pub connect: Vec<u32>,
    /// Nanoseconds from connect() to the first byte of the answer, sorted.
    pub answer: Vec<u32>,
}

/// Does it, and prints the outcome as JSON.
pub fn load(arguments: &Arguments) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    if arguments.kind == Kind::Hold {
        return hold(arguments);
    }
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(arguments.seconds);
    let threads: Vec<_> = (0..arguments.count)
        .map(|_| {
            let (kind, to) = (arguments.kind, arguments.to);
            thread::Builder::new().stack_size(256 << 10).spawn(move || repeat(kind, to, end))
        })
        .collect::<io::Result<_>>()?;
    let mut all = Outcome::default();
    for thread in threads {
        let Ok(one) = thread.join() else { bail!("a client thread has a bug") };
        all.done += one.done;
        all.failed += one.failed;
        all.bytes += one.bytes;
        all.connect.extend(one.connect);
        all.answer.extend(one.answer);
    }
    all.seconds = begin.elapsed().as_secs_f64();
    all.connect.sort_unstable();
    all.answer.sort_unstable();
    println!("{}", serde_json::to_string(&all)?);
    Ok(())
}

fn repeat(kind: Kind, to: SocketAddr, end: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let mut buffer = vec![0; 256 << 10];
    while Instant::now() < end {
        let once = match kind {
            Kind::New => new(to, &mut buffer, &mut outcome),
            Kind::Connect => connect_only(to, &mut outcome),
            _ => stay(kind, to, end, &mut buffer, &mut outcome),
        };
        if once.is_err() {
            outcome.failed += 1;
            // Where nobody is there, this is not to be a busy loop.
            thread::sleep(Duration::from_millis(1));
        }
    }
    outcome
}

fn new(to: SocketAddr, buffer: &mut [u8], outcome: &mut Outcome) -> io::Result<()> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(to)?;
    let connected = begin.elapsed();
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut length = stream.read(buffer)?;
    let answered = begin.elapsed();
    loop {
        match stream.read(&mut buffer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    let answer = Answer::in_head(&buffer[..length]).ok_or(io::ErrorKind::InvalidData)?;
    if length != answer.length() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    outcome.done += 1;
    outcome.bytes += length as u64;
    outcome.connect.push(nanoseconds(connected));
    outcome.answer.push(nanoseconds(answered));
    Ok(())
}

fn connect_only(to: SocketAddr, outcome: &mut Outcome) -> io::Result<()> {
    let begin = Instant::now();
    let stream = TcpStream::connect(to)?;
    outcome.connect.push(nanoseconds(begin.elapsed()));
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    outcome.done += 1;
    Ok(())
}

/// Requests on one connection until the end.
fn stay(kind: Kind, to: SocketAddr, end: Instant, buffer: &mut [u8], outcome: &mut Outcome) -> io::Result<()> {
    let request: &[u8] = match kind {
        Kind::Bulk => b"GET /large HTTP/1.1\r\nHost: bench\r\n\r\n",
        _ => b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n",
    };
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    while Instant::now() < end {
        stream.write_all(request)?;
        ask(&mut stream, end, buffer, outcome)?;
    }
    Ok(())
}

/// Reads one answer, or what there is of it until the end.
fn ask(stream: &mut TcpStream, end: Instant, buffer: &mut [u8], outcome: &mut Outcome) -> io::Result<()> {
    let mut have = 0;
    let answer = loop {
        let more = read_some(stream, &mut buffer[have..])?;
        have += more;
        outcome.bytes += more as u64;
        if let Some(answer) = Answer::in_head(&buffer[..have]) {
            break answer;
        }
    };
    let mut left = answer.length().saturating_sub(have);
    while left > 0 && Instant::now() < end {
        let more = read_some(stream, buffer)?;
        outcome.bytes += more as u64;
        left = left.saturating_sub(more);
    }
    outcome.done += 1;
    Ok(())
}

fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        some => Ok(some),
    }
}

/// How long an answer may take. It then counts as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer whose head is there.
struct Answer {
    head: usize,
    body: usize,
}

impl Answer {
    /// Nothing where the head has not ended, or is not that of a good answer.
    fn in_head(bytes: &[u8]) -> Option<Self> {
        let head = bytes.windows(4).take(1024).position(|four| four == b"\r\n\r\n")? + 4;
        let text = str::from_utf8(&bytes[..head]).ok().filter(|text| text.starts_with("HTTP/1.1 200"))?;
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        };
        Some(Self { head, body: text.lines().find_map(field)? })
    }

    fn length(&self) -> usize {
        self.head + self.body
    }
}

fn hold(arguments: &Arguments) -> Result<()> {
    let mut held = Vec::with_capacity(arguments.count);
    let mut buffer = vec![0; 4096];
    let later = Instant::now() + Duration::from_secs(3600);
    for index in 0..arguments.count {
        let mut stream = TcpStream::connect(arguments.to).with_context(|| format!("connection {index}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        ask(&mut stream, later, &mut buffer, &mut Outcome::default()).with_context(|| format!("answer {index}"))?;
        held.push(stream);
    }
    ensure!(held.len() == arguments.count, "not all are open");
    println!("held");
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn nanoseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn an_answer_has_the_length_its_head_says() {
        let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 1024\r\n\r\nabc";
        assert_eq!(Answer::in_head(bytes).map(|answer| answer.length()), Some(bytes.len() - 3 + 1024));
    }

    #[test]
    fn a_bad_answer_and_half_a_head_are_none() {
        assert!(Answer::in_head(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_none());
        assert!(Answer::in_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n").is_none());
    }
}
