//! What Carnet costs, measured against its peers on one machine (docs/bench.md).
//!
//! ```text
//! compare.rs: rounds x variants, shuffled ──► a process for each cell ──► report.rs: medians, ratios, table, plots
//!                                                │
//! cell.rs: ground.rs (cgroups, namespaces) + variant.rs (who redirects) ──► load.rs, a process in the app's cgroup
//! micro.rs: the run time of each BPF program, and what single calls cost
//! ```
#![forbid(unsafe_code)]

mod cell;
mod compare;
mod ground;
mod load;
mod micro;
mod plot;
mod report;
mod variant;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

/// What Carnet costs, against its peers
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure every variant in turn, and write a table, plots and the figures
    Compare(compare::Arguments),
    /// Measure the single parts: BPF programs, socket options, connect()
    Micro(micro::Arguments),
    /// One variant, once: what `compare` starts
    #[command(hide = true)]
    Cell(cell::Arguments),
    /// The client: what a cell starts
    #[command(hide = true)]
    Load(load::Arguments),
    /// Single calls, timed: what `micro` starts
    #[command(hide = true)]
    Calls(micro::calls::Arguments),
}

fn main() -> Result<()> {
    let command = Arguments::parse().command;
    let is_root = nix::unistd::Uid::effective().is_root();
    ensure!(is_root || matches!(command, Command::Load(_)), "measuring needs root: run it with sudo, or make bench");
    match command {
        Command::Compare(arguments) => compare::compare(&arguments),
        Command::Micro(arguments) => micro::micro(&arguments),
        Command::Cell(arguments) => cell::cell(&arguments),
        Command::Load(arguments) => load::load(&arguments),
        Command::Calls(arguments) => micro::calls::calls(&arguments),
    }
}
