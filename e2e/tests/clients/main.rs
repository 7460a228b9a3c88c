//! The commands that ask the daemon, as people use them: of a daemon without a kernel, whose answers the tests choose
//! (`answers`), of none at all (`alone`), and of `carnet serve` (`served`).
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod alone;
mod answers;
#[path = "../../../crates/carnet-control/tests/control/memory.rs"]
#[allow(dead_code, reason = "the crate's own tests use more of it")]
mod memory;
mod scene;
mod served;

use std::process::Command;

use carnet_e2e::command::{carnet, undisturbed};

/// A command of `carnet`, in an environment that changes nothing.
fn ask(arguments: &[&str]) -> Command {
    let mut command = Command::new(carnet());
    undisturbed(&mut command).args(arguments).env("TZ", "UTC");
    command
}
