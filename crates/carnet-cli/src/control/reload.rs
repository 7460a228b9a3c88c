//! `carnet reload`: has the daemon read its own policy file again.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::control::Question;
use crate::control::apply::answer;
use crate::control::asking::Asking;

/// Have the daemon read its policy file again, and put it in force
///
/// Where the file has mistakes, they are told as carnet check tells them, and the policy before stays in force.
///
/// The exit code is 0 where the policy is in force, 1 where it has mistakes, 3 where the daemon could not be asked, 2 for a
/// wrong command line.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    question: Question,
}

/// Asks and writes.
pub fn reload(arguments: Arguments) -> Result<ExitCode> {
    let asking = Asking::of(&arguments.question.daemon)?;
    let answered = asking.ask_for(crate::control::apply::PATIENCE, async |client| client.reload().await);
    answer(answered, None, arguments.question.json)
}
