//! Commands that ask the daemon, `carnet serve`: each a question, and how its answer looks.
//!
//! ```text
//! arguments ──► Asking: client, patience ──► daemon ──► answer ──► text, or the daemon's own JSON
//! ```
//!
//! What the daemon says no to is an answer, and the exit code 1. That it cannot be asked is an error of the system, 3.

pub mod apply;
mod asking;
pub mod down;
pub mod events;
pub mod flows;
mod lines;
pub mod policy;
pub mod providers;
pub mod reload;
pub mod status;
mod terminal;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

pub use self::asking::{Asking, Unanswered, is_stopped};
pub use self::lines::lost;
use crate::stdout::{Reader, write_out};

/// Which daemon.
#[derive(Args, Debug)]
pub struct Daemon {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", default_value = carnet_control::DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Which daemon, and in which form its answer is written.
#[derive(Args, Debug)]
pub struct Question {
    #[command(flatten)]
    daemon: Daemon,

    /// Write one JSON object, as the daemon gave it
    #[arg(long)]
    json: bool,
}

/// Writes to standard output.
fn print(text: &str) -> Result<Reader> {
    write_out(text.as_bytes())
}

/// One line.
fn json(object: &impl Serialize) -> String {
    // Only maps with keys that are not strings fail, and there are none.
    serde_json::to_string(object).unwrap_or_default() + "\n"
}
