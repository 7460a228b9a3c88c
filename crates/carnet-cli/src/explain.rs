//! `carnet explain`: what a policy file does with one connection, hop by hop, and why.
//!
//! ```text
//! file ──► Policy ─┐
//! options ─► Question ─┴─► walk() ──► Account ──► text, or one JSON object
//! ```
//!
//! Names are compared as they are written: a program or cgroup need not be there to be asked about.

mod account;
mod names;
mod text;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use carnet_policy::file::{Answer, Host};
use carnet_policy::{Carried, Executable, Identity, Line, Owner, Policy, Protocol, Question, Who, walk};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};

use self::account::Account;
use self::names::Names;
use crate::check::Where;
use crate::policy_file;

/// Show what a policy file does with one connection, hop by hop, and why
///
/// Shows which filter wins, where the connection goes by it, and why each other filter lost; then the same for the
/// connection with which the service goes on, until the destination. Needs no root and no kernel.
///
/// What is not said of who connects is somebody's whom no filter names. Programs, cgroups and the like need not be
/// there: their names count. Services are taken to be alive, except for those named with --dead.
///
/// The exit code is 0 where the connection gets to its destination (or to an explicit proxy that it dials), 1 where it
/// is refused, 2 for a wrong command line or a policy with mistakes, 3 where the file cannot be read.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The policy file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where the connection goes: 192.0.2.1:443 or [2001:db8::1]:443
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,

    /// User of the program that connects, by name or number
    #[arg(long, value_name = "USER")]
    uid: Option<String>,

    /// Its group, by name or number
    #[arg(long, value_name = "GROUP")]
    gid: Option<String>,

    /// Its executable, a whole path
    #[arg(long, value_name = "PATH")]
    exe: Option<String>,

    /// Its cgroup, from the root cgroup on: /user.slice/user-1000.slice
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,

    /// Its network namespace, a name or a whole path
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,

    /// It is UDP, not TCP
    #[arg(long)]
    udp: bool,

    /// A provider whose service does not listen; may be given several times
    #[arg(long, value_name = "PROVIDER")]
    dead: Vec<String>,

    /// Where names of users, programs and the like are looked up
    #[arg(long, value_enum, default_value = "this", value_name = "HOST")]
    host: Where,

    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Walks the flow and writes what becomes of it.
pub fn explain(arguments: Arguments) -> Result<ExitCode> {
    let host = arguments.host.host();
    let names = Names::on(&*host);
    let resolved = match policy_file::read(&arguments.file, &names)? {
        Ok((_, resolved)) => resolved,
        Err(mistakes) => {
            let command = format!("carnet check {}", arguments.file.display());
            eprintln!("{mistakes}\n\ncarnet: the policy cannot be used: `{command}` says the same");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let policy = &resolved.policy;
    let question = question(&arguments, policy, &names);
    let hops = if is_quic(policy, &question) { Vec::new() } else { walk(policy, &question) };
    let account = Account::new(&arguments, policy, &hops);
    let text = if arguments.json { account.json() } else { account.text() };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error).context("cannot write"),
        _ => {}
    }
    Ok(ExitCode::from(u8::from(!account.arrives())))
}

/// The connection that is asked about.
fn question(arguments: &Arguments, policy: &Policy, names: &Names) -> Question {
    let identity = Identity {
        uid: arguments.uid.as_deref().map_or(NOBODY, |user| id("--uid", user, |name| names.uid(name))),
        gid: arguments.gid.as_deref().map_or(NOBODY, |group| id("--gid", group, |name| names.gid(name))),
        exe: arguments.exe.as_deref().map_or_else(Executable::default, |path| {
            found("--exe", names.executable(absolute("--exe", path))).executable
        }),
        cgroup: arguments
            .cgroup
            .as_deref()
            .map_or_else(Line::default, |path| found("--cgroup", names.cgroup(absolute("--cgroup", path))).line),
        netns: arguments.netns.as_deref().map_or(0, |name| found("--netns", names.netns(name))),
    };
    let dead = arguments.dead.iter().map(|name| {
        let at = policy.providers.iter().position(|provider| provider.name == *name);
        at.unwrap_or_else(|| wrong(&format!("--dead: the policy has no provider {name:?}")))
    });
    Question {
        remote: judged(arguments.to),
        protocol: if arguments.udp { Protocol::Udp } else { Protocol::Tcp },
        who: Who::Known(identity),
        // As the kernel program has it: no provider's rank is above this.
        record: is_special(arguments.to).then_some(Carried { floor: u16::MAX, depth: 0 }),
        dialer: owner(policy, &identity),
        listener: if arguments.udp { None } else { policy.listener_at(judged(arguments.to)) },
        dead: dead.collect(),
    }
}

/// What the kernel takes an address for: the unspecified one is this host's.
fn judged(to: SocketAddr) -> SocketAddr {
    let ip = match to.ip().to_canonical() {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return to,
    };
    SocketAddr::new(ip, to.port())
}

/// Whether it is an address that no provider gets connections to, whatever its filters say.
fn is_special(to: SocketAddr) -> bool {
    match to.ip().to_canonical() {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_multicast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

/// Whether `block-quic` refuses it before any filter is asked.
fn is_quic(policy: &Policy, question: &Question) -> bool {
    let is_an_applications = question.dialer.is_none();
    policy.block_quic && question.protocol == Protocol::Udp && question.remote.port() == QUIC && is_an_applications
}

/// The provider that such a program is; of several, that of the highest rank.
fn owner(policy: &Policy, identity: &Identity) -> Option<usize> {
    let owns = |owner: &Owner| match *owner {
        Owner::Uid(uid) => uid == identity.uid,
        Owner::Cgroup { id, .. } => identity.cgroup.0.contains(&id),
        _ => false,
    };
    let providers = policy.providers.iter().enumerate();
    let own = providers.filter(|(_, provider)| provider.owners.iter().any(owns));
    own.max_by_key(|(_, provider)| provider.rank).map(|(at, _)| at)
}

fn id(option: &str, text: &str, look_up: impl Fn(&str) -> Answer<u32>) -> u32 {
    text.parse().unwrap_or_else(|_| found(option, look_up(text)))
}

fn absolute<'a>(option: &str, path: &'a str) -> &'a str {
    if !path.starts_with('/') {
        wrong(&format!("{option}: {path:?} is no whole path"));
    }
    path
}

/// A host on which everything exists has an answer.
fn found<T>(option: &str, answer: Answer<T>) -> T {
    match answer {
        Answer::Is(found) => found,
        Answer::No | Answer::Unasked(_) => wrong(&format!("{option}: there is no such thing here")),
    }
}

/// Ends with what is wrong with the command line.
fn wrong(what: &str) -> ! {
    let mut carnet = crate::Cli::command();
    // Without this, subcommands do not know what they are called by.
    carnet.build();
    let mut usage = carnet.find_subcommand("explain").cloned().unwrap_or(carnet);
    usage.error(ErrorKind::ValueValidation, what).exit()
}

/// The uid and gid that nobody has, and that no filter can name.
const NOBODY: u32 = u32::MAX;

/// The port of QUIC.
const QUIC: u16 = 443;

const EXIT_USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_those_of_the_kernel_program() {
        for (to, expected) in [
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("255.255.255.255:1", true),
            ("224.0.0.1:1", true),
            ("169.254.1.1:1", true),
            ("[ff02::1]:1", true),
            ("[fe80::1]:1", true),
            ("[::ffff:224.0.0.1]:1", true),
            ("127.0.0.1:1", false),
            ("[::1]:1", false),
            ("240.0.0.1:1", false),
            ("[fec0::1]:1", false),
        ] {
            assert_eq!(is_special(to.parse().unwrap()), expected, "{to}");
        }
    }

    #[test]
    fn an_unspecified_address_is_this_host() {
        for (to, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::ffff:0.0.0.0]:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.7:1", "192.0.2.7:1"),
        ] {
            assert_eq!(judged(to.parse().unwrap()), expected.parse().unwrap(), "{to}");
        }
    }
}
