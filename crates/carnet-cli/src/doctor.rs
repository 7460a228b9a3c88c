//! `carnet doctor`: what on this host stands in Carnet's way, or changes what its answers mean, and what to do.
//!
//! ```text
//! areas, one file each, look and return findings ──► Report ──► text, or one JSON object; exit code
//! ```
//!
//! It only looks: nothing is made, attached or changed. What could not be looked at is a finding too.
//! `docs/doctor.md` is the reference of every finding.

mod cgroups;
mod finding;
mod kernel;
mod limits;
mod netfilter;
mod pins;
mod privileges;
mod programs;
mod report;
mod routes;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use carnet_engine::cgroup::Hierarchy;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use rustix::termios::tcgetwinsize;

use self::privileges::Process;
use self::report::Report;
use crate::stdout::write_out;

/// Look for what stands in Carnet's way on this host, and say what to do about it
///
/// Looks at the kernel, control groups, BPF programs of others, pinned engines, nat rules, routes and limits, and
/// changes nothing. As root it sees everything. Each finding has an id that docs/doctor.md explains.
///
/// The exit code is 0 where nothing stands in the way, 1 where there is a problem, 3 where the system refused to be
/// looked at, 2 for a wrong command line.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Look at the programs on this cgroup and those above it, not on the own one: a path below the cgroup2 mount
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,

    /// Look at what is pinned there, and not at carnet in the first bpf file system
    #[arg(long, value_name = "FOLDER")]
    pins: Option<PathBuf>,

    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Looks at everything and writes what it has found.
pub fn doctor(arguments: Arguments) -> Result<ExitCode> {
    let found = Hierarchy::find();
    let hierarchy = found.as_ref().ok();
    let chosen = arguments.cgroup.as_deref().map(|path| place(hierarchy, path));
    let process = Process::of_caller().context("cannot read /proc/self/status")?;

    let mut report = Report::new();
    let bpf = kernel::look(&mut report, hierarchy, &process);
    privileges::look(&mut report, &process);
    cgroups::look(&mut report, found.as_ref(), &process);
    if let Some(hierarchy) = hierarchy {
        programs::look(&mut report, hierarchy, chosen.as_deref(), bpf);
    }
    pins::look(&mut report, arguments.pins.as_deref());
    netfilter::look(&mut report);
    routes::look(&mut report);
    limits::look(&mut report);

    let text = if arguments.json { report.json() } else { report.text(width()) };
    write_out(text.as_bytes())?;
    Ok(ExitCode::from(report.exit_code()))
}

/// The cgroup that was asked about: a directory of the hierarchy, or a path in it as `/proc/PID/cgroup` has it.
fn place(hierarchy: Option<&Hierarchy>, path: &Path) -> PathBuf {
    let fail = |why: String| usage().error(ErrorKind::ValueValidation, why).exit();
    let Some(hierarchy) = hierarchy else { fail("--cgroup: no cgroup2 hierarchy is mounted".into()) };
    let place = match path.strip_prefix(hierarchy.mount()) {
        Ok(_) => path.to_owned(),
        Err(_) => hierarchy.mount().join(path.strip_prefix("/").unwrap_or(path)),
    };
    // Resolved, so that what is above it are its parents and not what the path's words say.
    match place.canonicalize() {
        Ok(place) if place.starts_with(hierarchy.mount()) && place.join("cgroup.procs").exists() => place,
        _ => fail(format!("--cgroup: {} is no cgroup below {}", path.display(), hierarchy.mount().display())),
    }
}

/// The subcommand, so that it is its usage that a mistake is told with.
fn usage() -> clap::Command {
    let mut carnet = crate::Cli::command();
    // Without this, subcommands do not know what they are called by.
    carnet.build();
    carnet.find_subcommand("doctor").cloned().unwrap_or(carnet)
}

/// Of the terminal, for text.
fn width() -> usize {
    let columns = tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
    if columns == 0 { COLUMNS } else { columns.into() }
}

/// Where there is no terminal, or it does not say.
const COLUMNS: usize = 80;

const EXIT_PROBLEM: u8 = 1;

#[cfg(test)]
mod tests;
