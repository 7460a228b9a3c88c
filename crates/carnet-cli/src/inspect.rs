//! `carnet __inspect`: the built-in service as a process of its own, without privileges.
//!
//! It reports on standard output, a pipe to `carnet run`: one JSON object per line, see [`Message`].

use std::ffi::CStr;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use carnet_proxy::{Name, Options, Report, Reporter, Service, raise_file_limit};
use clap::Args;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::stdio::stdout;
use rustix::thread::{set_name, set_no_new_privs};
use serde::{Deserialize, Serialize};

use crate::child::Place;

/// Name of the subcommand.
pub const NAME: &str = "__inspect";
/// In `ps`, and as the program in another run's flow log. At most 15 bytes.
const PROCESS_NAME: &CStr = c"carnet-inspect";

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
}

/// What the service tells `carnet run`. The first one is [`Message::Ready`].
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// It listens on these addresses.
    Ready(Vec<SocketAddr>),
    /// A client said for whom its connection is.
    Name {
        /// The flow's id, 32 hexadecimal digits: JSON's numbers are too small.
        flow: String,
        /// The name.
        name: String,
        /// "tls", "http" or "http2".
        from: String,
    },
    /// Something people should know.
    Warning(String),
}

/// Serves until it is killed.
pub fn inspect(arguments: Arguments) -> Result<ExitCode> {
    // Otherwise it is named after `/proc/self/exe`, by which it was started. Before threads, which inherit it.
    set_name(PROCESS_NAME).context("cannot name the process")?;
    arguments.place.enter()?;
    set_no_new_privs(true).context("cannot give up gaining privileges")?;
    // Other processes of nobody's must not look into this one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot close the process to others")?;

    let files = raise_file_limit().context("cannot raise the limit of open files")?;
    let listeners = listeners()?;
    let service = Service::from_listeners(listeners, Options::default())?;
    // A full pipe must not stop the service: reports are dropped then, connections are not.
    let flags = fcntl_getfl(stdout()).context("cannot read the flags of the report pipe")?;
    fcntl_setfl(stdout(), flags | OFlags::NONBLOCK).context("cannot make the report pipe non-blocking")?;
    let reports = Reports::default();
    reports.say(&Message::Ready(service.addresses()?));
    if files < FILES_WANTED {
        let flows = files / 2;
        reports.say(&Message::Warning(format!(
            "the limit of open files is {files}, so about {flows} connections can be open at a time; more wait. Raise it: ulimit -Hn {FILES_WANTED}"
        )));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(service.run(reports, pending()))?;
    Ok(ExitCode::SUCCESS)
}

/// One port on the loopback addresses of both families; of IPv4 alone where the host has no IPv6.
fn listeners() -> Result<Vec<TcpListener>> {
    for _ in 0..ATTEMPTS {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, v4.local_addr()?.port()));
        match TcpListener::bind(address) {
            Ok(v6) => return Ok(vec![v4, v6]),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return Ok(vec![v4]),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32) => return Ok(vec![v4]),
            Err(error) => return Err(error).context("cannot listen on ::1"),
        }
    }
    bail!("no port is free on both 127.0.0.1 and ::1")
}

/// Writes messages to standard output.
#[derive(Default)]
struct Reports {
    said_lost: AtomicBool,
}

impl Reports {
    /// A line shorter than PIPE_BUF is written whole or not at all, whoever else writes.
    fn say(&self, message: &Message) {
        let Ok(mut line) = serde_json::to_vec(message) else { return };
        line.push(b'\n');
        if rustix::io::write(stdout(), &line).is_err() && !self.said_lost.swap(true, Ordering::Relaxed) {
            eprintln!("the report pipe is full; names of connections are lost");
        }
    }
}

impl Reporter for Reports {
    fn report(&self, report: Report) {
        let message = match report {
            Report::Name { flow_id, found, .. } => {
                let (name, from) = match found.name {
                    Some(Name::Sni(name)) => (name, "tls"),
                    Some(Name::Host(name)) => (name, "http"),
                    Some(Name::Authority(name)) => (name, "http2"),
                    None => return,
                };
                Message::Name { flow: format!("{flow_id:032x}"), name, from: from.into() }
            }
            Report::Full { flows } => {
                Message::Warning(format!("{flows} connections are open, all there are files for; more wait"))
            }
            Report::AcceptFailed { flows, error } => {
                Message::Warning(format!("cannot accept connections for now, {flows} are open: {error}"))
            }
            // The engine's own events tell of these.
            _ => return,
        };
        self.say(&message);
    }
}

/// For 10,000 flows, or nearly.
const FILES_WANTED: u64 = 20_000;

const ATTEMPTS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_on_one_port() {
        let listeners = listeners().unwrap();
        let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert!(ports.windows(2).all(|pair| pair[0] == pair[1]), "{ports:?}");
    }

    #[test]
    fn messages_are_one_line_and_come_back() {
        for message in [
            Message::Ready(vec!["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()]),
            Message::Name { flow: format!("{:032x}", u128::MAX), name: "a\nb".into(), from: "tls".into() },
            Message::Warning("x".into()),
        ] {
            let line = serde_json::to_string(&message).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
        }
    }
}
