//! `carnet policy`: the text of the policy in force.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::control::asking::Asking;
use crate::control::{Question, json, print};

/// Write the text of the policy in force
///
/// It is the text as it was given, with its comments; lists that were in files of their own are in it. What a file holds
/// that has been edited since is not in force: `carnet reload` has the daemon read its own file again.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    question: Question,
}

/// Asks and writes.
pub fn policy(arguments: Arguments) -> Result<ExitCode> {
    let asking = Asking::of(&arguments.question.daemon)?;
    let text = match asking.ask(async |client| client.policy().await) {
        Ok(text) => text,
        Err(unanswered) => return unanswered.tell(),
    };
    let text = if arguments.question.json { json(&serde_json::json!({ "policy": text })) } else { text };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
