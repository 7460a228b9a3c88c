//! `carnet __exec`: goes to its place in the run and becomes another program.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set, set_capabilities,
};

use crate::child::Place;
use crate::run::complain;

/// Name of the subcommand.
pub const NAME: &str = "__exec";

/// The option that takes `CAP_NET_RAW` away.
pub const WITHOUT_RAW: &str = "--without-raw";

#[derive(Args)]
pub struct Arguments {
    #[arg(long)]
    without_raw: bool,
    #[command(flatten)]
    place: Place,
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// Returns only where the program cannot be started: 127 where there is none, 126 where it cannot be run.
pub fn exec(arguments: Arguments) -> Result<ExitCode> {
    if arguments.without_raw {
        give_up_raw().context("cannot take CAP_NET_RAW from the command (--strict)")?;
    }
    let user = arguments.place.enter()?;
    let program = &arguments.command[0];
    // SIGPIPE goes back to the default in `exec`; other dispositions are those that carnet was given.
    let mut command = Command::new(program);
    command.args(&arguments.command[1..]);
    if let Some(user) = user {
        command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name).env("SHELL", &user.shell);
    }
    if arguments.place.uid.is_some() {
        for name in ["SUDO_COMMAND", "SUDO_GID", "SUDO_UID", "SUDO_USER"] {
            command.env_remove(name);
        }
    }
    let error = command.exec();
    complain(&format!("cannot start {}: {error}", program.to_string_lossy()));
    Ok(ExitCode::from(match error.kind() {
        io::ErrorKind::NotFound => EXIT_NOT_FOUND,
        _ => EXIT_NOT_EXECUTABLE,
    }))
}

/// No hook sees packet sockets, so whoever has the right to make them is not inspected. It does not come back, not in
/// what the program starts and not by set-user-ID. Before the user changes: afterwards the right to do this is gone.
fn give_up_raw() -> rustix::io::Result<()> {
    const RAW: CapabilitySet = CapabilitySet::NET_RAW;

    if capability_is_in_bounding_set(RAW)? {
        remove_capability_from_bounding_set(RAW)?;
    }
    let mut sets = capabilities(None)?;
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        set.remove(RAW);
    }
    // What is not inheritable is not ambient either.
    set_capabilities(None, sets)
}

/// As shells have it.
const EXIT_NOT_FOUND: u8 = 127;
const EXIT_NOT_EXECUTABLE: u8 = 126;
