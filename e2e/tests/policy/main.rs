//! `carnet check`, `carnet explain`, completions and manual pages as their users see them.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod check;
mod explain;
mod generated;

use std::process::{Command, Output};

use carnet_e2e::command::{carnet, undisturbed};
use serde_json::Value;

/// What one invocation said.
#[derive(Debug)]
struct Said {
    code: i32,
    output: String,
    errors: String,
}

impl Said {
    fn by(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = undisturbed(command).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code().unwrap(), output: text(stdout), errors: text(stderr) }
    }

    /// Of an invocation with `--json`.
    fn object(&self) -> Value {
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The command with these arguments.
fn says(arguments: &[&str]) -> Said {
    Said::by(Command::new(carnet()).args(arguments))
}

/// The policy that the documentation shows.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.example.toml");
