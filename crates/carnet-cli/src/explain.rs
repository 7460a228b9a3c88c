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

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use carnet_policy::file::{Answer, Host, nearest};
use carnet_policy::{
    Carried, Condition, Executable, Identity, Line, Match, Owner, Policy, Protocol, Provider, Question, Service, Who,
    walk,
};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueHint};

use self::account::{Account, Known};
use self::names::{Kind, Names};
use crate::check::{Report, Where};
use crate::policy_file;
use crate::stdout::write_out;

/// Show what a policy file does with one connection, hop by hop, and why
///
/// Shows which filter wins, where the connection goes by it, and why each other filter lost; then the same for the
/// connection with which the service goes on, until the destination. Needs no root and no kernel.
///
/// What is not said of who connects is somebody's whom no filter names. Programs, cgroups and the like need not be
/// there: their names count. Services are taken to be alive, except for those named with --dead, and sockets to be of
/// the destination's family.
///
/// The exit code is 0 where the connection gets to its destination (or to an explicit proxy that it dials), 1 where it
/// is refused, 2 for a wrong command line or a policy with mistakes, 3 where the file cannot be read.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The policy file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where the connection goes: 192.0.2.1:443 or [2001:db8::1]:443
    #[arg(long, value_name = "ADDR:PORT", value_parser = destination)]
    to: SocketAddr,

    /// User of the program that connects, by name or number
    #[arg(long, value_name = "USER", allow_hyphen_values = true, value_hint = ValueHint::Username)]
    uid: Option<String>,

    /// Its group, by name or number. Where it is not given, the user's primary group on this host
    #[arg(long, value_name = "GROUP", allow_hyphen_values = true)]
    gid: Option<String>,

    /// Its executable, a whole path
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
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

    /// Show filters that do not match where they are many, too
    #[arg(long)]
    all: bool,

    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Walks the flow and writes what becomes of it.
pub fn explain(arguments: Arguments) -> Result<ExitCode> {
    let host = arguments.host.host();
    let names = Names::on(&*host);
    let (file, resolved) = match policy_file::read(&arguments.file, &names)? {
        Ok(read) => read,
        Err(mistakes) => {
            // As `carnet check` has it.
            let report = Report::new(&arguments.file, mistakes.findings().to_vec());
            if arguments.json {
                write_out(report.json().as_bytes())?;
            } else {
                eprint!("{}", report.text());
            }
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let policy = &resolved.policy;
    let (identity, mut assumed) = identity(&arguments, policy, &names);
    let unreachable = unreachable(policy, arguments.to);
    let question = question(&arguments, policy, identity, &unreachable);
    let hops = if is_quic(policy, &question) { Vec::new() } else { walk(policy, &question) };
    let unsaid = unsaid(&arguments, policy, &identity);
    assumed.extend((!unsaid.is_empty()).then(|| format!("not said: {}: what no filter names", unsaid.join(", "))));
    let account = Account::new(&arguments, policy, &hops, &Known { file: &file, unreachable, unsaid, assumed });
    let text = if arguments.json { account.json() } else { account.text(arguments.all) };
    write_out(text.as_bytes())?;
    Ok(ExitCode::from(u8::from(!account.arrives())))
}

/// Who connects, and what is taken for granted of that.
fn identity(arguments: &Arguments, policy: &Policy, names: &Names) -> (Identity, Vec<String>) {
    let mut assumed = Vec::new();
    // What the file names need not be there, to be asked about.
    let in_file = names.missing();
    for (kind, name) in &in_file {
        let what = kind.name();
        assumed
            .push(format!("this host has no {what} {name:?}, which `carnet check` refuses; here it is one of its own"));
    }
    let mut of_name = |kind, option, text: &str| {
        let all = if kind == Kind::User { names.users() } else { names.groups() };
        let number = id(option, text, |name| if kind == Kind::User { names.uid(name) } else { names.gid(name) });
        if names.missing().contains(&(kind, text.to_owned())) && !in_file.contains(&(kind, text.to_owned())) {
            let near = nearest(text, all.iter().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("did you mean {near:?}? Else "));
            let what = kind.name();
            wrong(&format!("{option}: neither this host nor the file has a {what} {text:?}: {near}write a number"));
        }
        if names.is_made_up(kind, number) && has_numbers(policy, kind, names) {
            assumed.push(format!("{text:?} is none of the numbers in the file"));
        }
        number
    };
    let uid = arguments.uid.as_deref().map(|user| of_name(Kind::User, "--uid", user));
    let gid = arguments.gid.as_deref().map(|group| of_name(Kind::Group, "--gid", group));
    let primary = uid.filter(|_| gid.is_none()).and_then(|uid| names.account(uid)).map(|account| account.gid);
    if let Some(gid) = primary.filter(|_| asks(policy, |matches| !matches.gids.is_any())) {
        assumed.push(format!("the group is {gid}, the user's primary one"));
    }
    let identity = Identity {
        uid: uid.unwrap_or(NOBODY),
        gid: gid.or(primary).unwrap_or(NOBODY),
        exe: arguments.exe.as_deref().map_or_else(Executable::default, |path| {
            found("--exe", names.executable(absolute("--exe", path, "/usr/bin/ssh"))).executable
        }),
        cgroup: arguments.cgroup.as_deref().map_or_else(Line::default, |path| {
            found("--cgroup", names.cgroup(absolute("--cgroup", path, "/user.slice"))).line
        }),
        netns: arguments.netns.as_deref().map_or(0, |name| found("--netns", names.netns(name))),
    };
    (identity, assumed)
}

/// The keys of what was not said of who connects, and some filter asks for.
fn unsaid(arguments: &Arguments, policy: &Policy, identity: &Identity) -> Vec<&'static str> {
    type Asks = fn(&Match) -> bool;
    let all: [(&str, bool, Asks); 5] = [
        ("uid", arguments.uid.is_none(), |matches| !matches.uids.is_any()),
        ("gid", identity.gid == NOBODY, |matches| !matches.gids.is_any()),
        ("exe", arguments.exe.is_none(), |matches| !matches.exes.is_any()),
        ("cgroup", arguments.cgroup.is_none(), |matches| !matches.cgroups.is_any()),
        ("netns", arguments.netns.is_none(), |matches| !matches.netns.is_any()),
    ];
    all.into_iter()
        .filter(|(_, is_unsaid, is_asked)| *is_unsaid && asks(policy, is_asked))
        .map(|(key, _, _)| key)
        .collect()
}

/// Whether any filter asks for it.
fn asks(policy: &Policy, is_asked: impl Fn(&Match) -> bool) -> bool {
    let providers = policy.providers.iter().flat_map(|provider| &provider.filters);
    policy.filters.iter().map(|filter| &filter.matches).chain(providers.map(|filter| &filter.matches)).any(is_asked)
}

/// Whether a filter names users or groups by numbers.
fn has_numbers(policy: &Policy, kind: Kind, names: &Names) -> bool {
    asks(policy, |matches| {
        let condition: &Condition<_> = if kind == Kind::User { &matches.uids } else { &matches.gids };
        let mut lists = condition.only.iter().flatten().chain(&condition.except);
        lists.any(|list| {
            list.iter().any(|range| range.start() != range.end() || !names.is_made_up(kind, *range.start()))
        })
    })
}

/// Providers none of whose listeners a socket of the destination's family gets to.
fn unreachable(policy: &Policy, to: SocketAddr) -> BTreeSet<usize> {
    let is_v4 = judged(to).is_ipv4();
    let reaches = |provider: &Provider, listener: &SocketAddr| {
        // Services that are not aware ask for the destination in the listener's family. An IPv6 socket gets to IPv4.
        listener.ip().to_canonical().is_ipv4() == is_v4 || provider.service == Service::Aware && !is_v4
    };
    let all = policy.providers.iter().enumerate();
    let cannot = all.filter(|(_, provider)| !provider.listeners.iter().any(|listener| reaches(provider, listener)));
    cannot.map(|(at, _)| at).collect()
}

/// The connection that is asked about.
fn question(arguments: &Arguments, policy: &Policy, identity: Identity, unreachable: &BTreeSet<usize>) -> Question {
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
        dead: dead.chain(unreachable.iter().copied()).collect(),
    }
}

/// What the kernel takes an address for: the unspecified one is this host's.
fn judged(to: SocketAddr) -> SocketAddr {
    let ip = match to.ip().to_canonical() {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, to.port())
}

/// The value of `--to`.
fn destination(text: &str) -> Result<SocketAddr, String> {
    let to: SocketAddr = text.parse().map_err(|_| {
        "write ADDR:PORT, an IPv6 address in brackets: [::1]:443; names such as example.org are not looked up"
            .to_owned()
    })?;
    if to.port() == 0 { Err("no connection goes to port 0".to_owned()) } else { Ok(to) }
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
    if text.is_empty() || text.starts_with(['-', '+']) {
        wrong(&format!("{option}: {text:?} is no name and no number"));
    }
    text.parse().unwrap_or_else(|_| found(option, look_up(text)))
}

fn absolute<'a>(option: &str, path: &'a str, example: &str) -> &'a str {
    if !path.starts_with('/') {
        wrong(&format!("{option}: {path:?} is no whole path, such as {example}"));
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
