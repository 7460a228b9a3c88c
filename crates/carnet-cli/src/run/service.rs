//! A service that `carnet run` starts: the built-in one, or a command.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::{Listener, listeners};

use crate::inspect::Message;
use crate::run::identity::Identity;
use crate::run::plan::with_port;
use crate::run::reports::Reports;
use crate::run::wait::{describe, pidfd_of};
use crate::{child, exec, inspect, run};

/// One that has been started.
pub struct Service {
    name: String,
    cgroup: Cgroup,
    child: Child,
    pidfd: OwnedFd,
    /// `cgroup.events`, which polls as changed when the last process has gone.
    events: File,
    ended: Option<ExitStatus>,
    last_words: LastWords,
    /// The port a command was told to listen on.
    port: Option<u16>,
    /// The built-in service's.
    reports: Option<Reports>,
    found: Vec<SocketAddr>,
    found_at: Instant,
}

impl Service {
    /// Starts it in a cgroup of its own: these words, or without them the built-in service.
    pub fn start(
        name: &str,
        words: Option<&[String]>,
        cgroup: Cgroup,
        identity: &Identity,
        verbose: bool,
        others: &[Self],
    ) -> Result<Self> {
        let place = child::Place {
            cgroup: cgroup.path().into(),
            parent: std::process::id().cast_signed(),
            uid: identity.uid(),
            gid: identity.gid(),
            many_files: true,
        };
        let mut command = Command::new(run::SELF);
        let port = words.map(|_| free_port(others)).transpose()?;
        match (words, port) {
            (Some(words), Some(port)) => {
                command.arg(exec::NAME).args(place.arguments()).arg("--").args(with_port(words, port));
            }
            _ => {
                let place = child::Place { uid: Some(child::NOBODY), gid: Some(child::NOBODY), ..place };
                command.arg(inspect::NAME).args(place.arguments());
            }
        }
        // A process group of its own: Ctrl-C is for the command, which may want to end its connections properly.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let failed = || format!("cannot start the service {name}");
        let mut child = command.spawn().with_context(failed)?;
        let pidfd = pidfd_of(&child).with_context(failed)?;
        let events = File::open(cgroup.path().join("cgroup.events")).with_context(failed)?;
        let mut last_words = LastWords::default();
        let echo = verbose.then(|| name.to_owned());
        if let Some(stderr) = child.stderr.take() {
            last_words.listen_to(stderr, echo.clone());
        }
        let reports = match (port, child.stdout.take()) {
            (Some(_), Some(stdout)) => {
                last_words.listen_to(stdout, echo);
                None
            }
            (_, stdout) => stdout.map(Reports::new).transpose()?,
        };
        let name = name.to_owned();
        let (found, found_at) = (Vec::new(), Instant::now());
        Ok(Self { name, cgroup, child, pidfd, events, ended: None, last_words, port, reports, found, found_at })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Readable, or changed, when it may have ended.
    pub fn watched(&mut self) -> BorrowedFd<'_> {
        match self.ended {
            None => self.pidfd.as_fd(),
            Some(_) => self.events.as_fd(),
        }
    }

    /// Why it is over, or `None` where it is not. A process that goes away in peace while others of its cgroup stay has
    /// put itself into the background.
    pub fn end(&mut self) -> Result<Option<String>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
        }
        let Some(status) = self.ended else { return Ok(None) };
        if !status.success() {
            return Ok(Some(describe(status)));
        }
        // Reading re-arms the poll; a new descriptor has the newest state.
        self.events =
            File::open(self.cgroup.path().join("cgroup.events")).context("cannot watch a service's cgroup")?;
        let mut events = String::new();
        self.events.read_to_string(&mut events).context("cannot watch a service's cgroup")?;
        Ok((!events.contains("populated 1")).then(|| describe(status)))
    }

    /// Where it listens, once it does. Asked again and again until there is an answer that stays the same.
    pub fn listening(
        &mut self,
        hierarchy: &Hierarchy,
        warn: &mut dyn FnMut(String),
    ) -> Result<Option<Vec<SocketAddr>>> {
        let Some(port) = self.port else {
            let mut ready = None;
            if let Some(reports) = &mut self.reports {
                reports.read(&mut |message| match message {
                    Message::Ready(addresses) => ready = Some(addresses),
                    Message::Warning(text) => warn(text),
                    Message::Name { .. } => {}
                });
            }
            return Ok(ready);
        };
        let mut found = Vec::new();
        for listener in listeners(port)? {
            let at = hierarchy.find_by_id(listener.cgroup_id);
            if at.is_some_and(|path| path.starts_with(self.cgroup.path())) {
                found.extend(addresses_of(&listener));
            }
        }
        found.sort();
        found.dedup();
        // Services open one listener after the other, and a busy machine may do something else in between. One of each family
        // is what they open, else what stays the same for a while.
        if found != self.found {
            (self.found, self.found_at) = (found, Instant::now());
        }
        let both = self.found.iter().any(SocketAddr::is_ipv4) && self.found.iter().any(SocketAddr::is_ipv6);
        let settled = both || (!self.found.is_empty() && self.found_at.elapsed() >= SETTLED);
        Ok(settled.then(|| self.found.clone()))
    }

    /// The built-in service's reports, to be read elsewhere from now on.
    pub fn take_reports(&mut self) -> Option<Reports> {
        self.reports.take()
    }

    /// The last lines it has written, for a message about its end; empty where there are none.
    pub fn last_words(&self) -> String {
        self.last_words.text()
    }
}

/// Where connections for a listener can be sent: a wildcard one is reached by its family's loopback address.
pub fn addresses_of(listener: &Listener) -> Vec<SocketAddr> {
    let port = listener.address.port();
    let v4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
    match listener.address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
        IpAddr::V6(ip) if ip.is_unspecified() && listener.v6_only => vec![v6],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![v4, v6],
        ip => vec![SocketAddr::new(ip.to_canonical(), port)],
    }
}

/// A port that nothing has on either family, for a service that binds it a moment later.
///
/// Chosen below the range from which the kernel gives ports to connections: in between, the port can only be lost to
/// somebody who asks for just this one. The services before it have theirs, even while they are not up yet.
fn free_port(others: &[Service]) -> Result<u16> {
    let end = first_ephemeral_port().filter(|&first| first > LOWEST_PORT).unwrap_or(u16::MAX);
    for _ in 0..ATTEMPTS {
        let random = getrandom::u32().context("cannot get a random number")?;
        let port = LOWEST_PORT + (random % u32::from(end - LOWEST_PORT)) as u16;
        let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        // Another error is that of a host without this family.
        let is_taken =
            |bound: &io::Result<TcpListener>| matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse);
        if !is_taken(&v4) && !is_taken(&v6) && others.iter().all(|other| other.port != Some(port)) {
            return Ok(port);
        }
    }
    bail!("no port is free on both 127.0.0.1 and ::1")
}

/// Lower end of the kernel's range; `None` where it cannot be read.
fn first_ephemeral_port() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

/// The newest lines of a process's output.
#[derive(Debug, Default)]
struct LastWords {
    lines: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl LastWords {
    /// Reads in a thread of its own until the other side closes; `echo` prints every line behind this name.
    fn listen_to(&mut self, output: impl Read + Send + 'static, echo: Option<String>) {
        let lines = self.lines.clone();
        self.readers.push(thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while matches!(output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if let Some(name) = &echo {
                    run::print_line(&format!("[{name}] {text}"));
                }
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LINES_KEPT {
                    lines.pop_front();
                }
                lines.push_back(text);
                line.clear();
            }
        }));
    }

    /// Waits a moment for what has been written and not read yet; who has left others behind keeps the pipe open.
    fn text(&self) -> String {
        let end = Instant::now() + LAST_WORDS_DEADLINE;
        while Instant::now() < end && !self.readers.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(1));
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("\n  | {line}")).collect()
    }
}

/// How long a service with a listener of one family may take to open that of the other.
const SETTLED: Duration = Duration::from_millis(500);
const LAST_WORDS_DEADLINE: Duration = Duration::from_millis(200);
const LINES_KEPT: usize = 20;
const LONGEST_LINE: u64 = 8192;
const ATTEMPTS: u32 = 100;

/// Ports below it are where well-known services are looked for.
const LOWEST_PORT: u16 = 10_240;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_reached_by_loopback() {
        for (address, v6_only, expected) in [
            ("127.0.0.1:80", false, &["127.0.0.1:80"][..]),
            ("0.0.0.0:80", false, &["127.0.0.1:80"]),
            ("192.0.2.7:80", false, &["192.0.2.7:80"]),
            ("[::1]:80", false, &["[::1]:80"]),
            ("[::]:80", true, &["[::1]:80"]),
            ("[::]:80", false, &["127.0.0.1:80", "[::1]:80"]),
            ("[::ffff:127.0.0.1]:80", false, &["127.0.0.1:80"]),
        ] {
            let mut listener = Listener::new(address.parse().unwrap());
            listener.v6_only = v6_only;
            let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(addresses_of(&listener), expected, "{address} {v6_only}");
        }
    }
}
