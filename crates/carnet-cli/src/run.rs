//! `carnet run`: a command's connections pass through services, each exactly once.
//!
//! ```text
//! carnet run ──┬── carnet __guardian     kills and removes the run's cgroup when `carnet run` has gone, however it went
//!   (engine,   ├── services/0, 1 ...     the built-in service (`__inspect`), or commands (by way of `__exec`)
//!   flow log)  └── app                   the command (by way of `__exec`)
//! ```
//!
//! The order of things is what makes it safe: the guardian is there before the first cgroup is, programs are attached and
//! their links are with the guardian before the command is started, and at the end the links go last.

mod command;
pub mod flows;
mod guardian;
mod identity;
mod log;
pub mod output;
pub mod outside;
pub mod place;
mod plan;
mod reports;
mod served;
mod service;
mod session;
mod setup;
mod wait;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueEnum};

use self::guardian::Guardian;
use self::log::Lines;
use self::output::{Clock, Format, Log};
use self::plan::Through;
use self::wait::Interrupted;
pub use self::wait::Signals;

/// Run a command whose connections go through inspecting services, each exactly once
///
/// Every TCP connection of the command and its children goes through the services in the order of the options, and then
/// to its destination. One line for each is written to standard error when it ends (docs/flow-log.md).
///
/// The exit code is the command's; 3 where carnet could not do its work, 2 for a wrong command line. When the command
/// ends, processes it has left in the background are ended too.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// `inspect` (built in), ADDRESS:PORT, or 'CMD {port}'; repeatable [default: inspect]
    ///
    /// ADDRESS:PORT is of a service that runs already, in a cgroup of its own. A command is started, with the port it is
    /// to listen on in the place of {port}, and waited for. The order of the options is that of the services.
    #[arg(long, value_name = "SERVICE", value_parser = Through::parse)]
    through: Vec<Through>,

    /// Pass by a service that has died, instead of refusing connections and ending the command
    #[arg(long)]
    open: bool,

    /// Leave connections to 127.0.0.0/8 and ::1 alone
    #[arg(long)]
    no_loopback: bool,

    /// Refuse UDP to port 443 (QUIC, HTTP/3), so that programs use TCP, which is inspected
    ///
    /// UDP is not inspected. Without this option it goes where it would, and the log tells its destinations.
    #[arg(long)]
    block_quic: bool,

    /// Refuse sockets that cannot be inspected: raw ones, packet sockets, UDP-Lite, SCTP and other rare kinds
    ///
    /// For raw and packet sockets socket() fails with EPERM: the command has no CAP_NET_RAW, not even as root. For other
    /// kinds it fails with EACCES. TCP and UDP sockets are as ever. Without this option the log tells of such
    /// sockets, packet sockets excepted.
    #[arg(long)]
    strict: bool,

    /// Hand services destinations without a route too: for services that go on by a proxy or tunnel of their own
    ///
    /// Otherwise connect() to such a destination fails as it does without carnet, so that programs choose another.
    #[arg(long)]
    any_destination: bool,

    /// Write one JSON object for each connection
    #[arg(long)]
    json: bool,

    /// Write the connections to this file, not to standard error
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Most connections to one destination that a service may have at once [default: 32768 for inspect, 4096 for others]
    ///
    /// Further ones are refused. That ends loops which helpers of services, outside of their cgroup, could make.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    loop_limit: Option<u32>,

    /// The daemon of this host, where one governs this cgroup [default: /run/carnet/control.sock]
    ///
    /// Where carnet serve governs the cgroup that this is started in, the services are registered with it for as long as
    /// the command runs. Connections go through the host's services first, as its policy says, then through these.
    #[arg(long, value_name = "PATH", conflicts_with = "own_engine")]
    socket: Option<PathBuf>,

    /// Ask no daemon: an engine of this run's own, also where carnet serve governs the host
    ///
    /// The connections it redirects pass the host's services by.
    #[arg(long)]
    own_engine: bool,

    /// How long a service may take until it listens
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    start_timeout: u32,

    /// When to colour
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    color: Colour,

    /// Show what services write
    #[arg(long, short)]
    verbose: bool,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

const EXAMPLES: &str = "\
Examples:
  sudo carnet run -- curl https://example.org/
  sudo carnet run --through inspect \\
      --through 'mitmdump --mode transparent -p {port}' -- COMMAND
  sudo carnet run --json --log flows.json -- COMMAND";

/// Runs the command. The result is its exit code, unless carnet could not do its work.
pub fn run(mut arguments: Arguments) -> Result<ExitCode> {
    if arguments.through.is_empty() {
        arguments.through.push(Through::Inspect);
    }
    if arguments.through.len() > carnet_abi::MAX_HOPS {
        let message = format!("--through can be given {} times at most", carnet_abi::MAX_HOPS);
        crate::Cli::command().error(ErrorKind::TooManyValues, message).exit();
    }
    // Before any thread, and before the guardian, whose life begins with an interruptible moment.
    let signals = Signals::take()?;
    let lines = lines(&arguments)?;
    let mut guardian = Guardian::start()?;
    let result = session::run(&arguments, &signals, &mut guardian, lines);
    let cleared = guardian.finish();
    let code = result.or_else(|error| match error.downcast_ref() {
        Some(Interrupted(signal)) => Ok(128 + *signal as u8),
        None => Err(error),
    })?;
    cleared?;
    Ok(ExitCode::from(code))
}

/// Says it on standard error, as far as somebody listens.
pub fn complain(message: &str) {
    print_line(&format!("carnet: {message}"));
}

/// One line to standard error, in one piece.
pub fn print_line(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// This program, whatever has become of its file.
pub const SELF: &str = "/proc/self/exe";

fn lines(arguments: &Arguments) -> Result<Lines> {
    let to: Box<dyn Write + Send> = match &arguments.log {
        Some(path) => Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?),
        None => Box::new(io::stderr()),
    };
    let terminal = arguments.log.is_none() && io::stderr().is_terminal();
    let colour = match arguments.color {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => wants_colour(terminal),
    };
    let format = if arguments.json { Format::Json } else { Format::Text { colour, columns: terminal } };
    Ok(Log::new(format, Clock::now(), to))
}

/// Whether what is written is coloured: on terminals, where `NO_COLOR` is not set and `TERM` is not dumb.
pub fn wants_colour(is_terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
