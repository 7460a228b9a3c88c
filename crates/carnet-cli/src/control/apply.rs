//! `carnet apply`: puts a policy in force.
//!
//! ```text
//! file ──► as `carnet check` reads it ──► inline: sets' files in the text itself ──► daemon ──► what is in force
//!                 mistakes ──┐                                                         │ mistakes, warnings
//!                            └──────────────────► mistakes: as check tells them ◄──────┘
//! ```

mod inline;
mod mistakes;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use carnet_control::{Applied, PolicyRequest, Problem};
use carnet_policy::file::{Mistakes, PolicyFile};
use clap::Args;

use self::inline::inlined;
pub use self::mistakes::Sent;
use self::mistakes::{conclusion, problem, written};
use crate::control::asking::{Asking, Unanswered};
use crate::control::status::contents;
use crate::control::{Question, json, print};
use crate::host::ThisHost;
use crate::policy_file::Folder;
use crate::run::complain;

/// Put a policy in force, as one, or say what is wrong with it
///
/// The daemon gets the text, with the lists in it that the file has in files of their own. It is in force when this
/// command ends, until the next apply or reload. Mistakes and warnings are told as carnet check tells them; where there is
/// a mistake, the policy before stays in force.
///
/// The exit code is 0 where it is in force, 1 where it has mistakes or does not go together with what is registered, 3
/// where the daemon could not be asked, 2 for a wrong command line.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The policy file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Ask what it would be, and put nothing in force
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    question: Question,
}

/// Sends it and writes what is said.
pub fn apply(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { file, dry_run, question } = arguments;
    let sent = match read(&file)? {
        Ok(sent) => sent,
        Err(mistakes) if question.json => return no(&problem(&mistakes), None, true),
        Err(mistakes) => {
            let findings: String = mistakes.findings().iter().map(|finding| format!("{finding}\n\n")).collect();
            print(&(findings + &conclusion(&name(&file), mistakes.findings().len())))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let asking = Asking::of(&question.daemon)?;
    let request = PolicyRequest { text: sent.text.clone(), dry_run, ..PolicyRequest::default() };
    let answered = asking.ask_for(PATIENCE, async |client| client.apply(request).await);
    answer(answered, Some(&sent), question.json)
}

/// Writes what the daemon has said of what was `sent`, or of its own file.
pub fn answer(answered: Result<Applied, Unanswered>, sent: Option<&Sent>, as_json: bool) -> Result<ExitCode> {
    let applied = match answered {
        Ok(applied) => applied,
        Err(unanswered) => match unanswered.no() {
            Ok(problem) => return no(&problem, sent, as_json),
            Err(unanswered) => return unanswered.tell(),
        },
    };
    if as_json {
        print(&json(&applied))?;
        return Ok(ExitCode::SUCCESS);
    }
    let policy = &applied.policy;
    let outcome = match applied.applied {
        true => format!("policy {} is in force: {}\n", policy.generation, contents(policy)),
        false => format!("it can be put in force, and was not: {}\n", contents(policy)),
    };
    print(&(written(&applied.warnings, sent) + &outcome))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes why it is not in force.
fn no(problem: &Problem, sent: Option<&Sent>, as_json: bool) -> Result<ExitCode> {
    if as_json {
        print(&json(problem))?;
    } else if problem.mistakes.is_empty() {
        complain(&problem.to_string());
    } else {
        let name = sent.map_or("the daemon's file", |sent| &sent.name);
        print(&(written(&problem.mistakes, sent) + &conclusion(name, problem.mistakes.len())))?;
    }
    Ok(ExitCode::FAILURE)
}

/// What is to be sent, or what is wrong with it as far as that is seen here.
fn read(file: &Path) -> Result<Result<Sent, Mistakes>> {
    let name = name(file);
    let (bytes, folder) = if file == Path::new(STANDARD_INPUT) {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
        (bytes, Folder::current())
    } else {
        (fs::read(file).with_context(|| format!("cannot read {}", file.display()))?, Folder::of(file))
    };
    let text = match PolicyFile::text(&name, bytes) {
        Ok(text) => text,
        Err(mistakes) => return Ok(Err(mistakes)),
    };
    match PolicyFile::read(&name, &text, &folder, &ThisHost::new()) {
        Ok(_) => Ok(Ok(Sent { name, text: inlined(&text, &folder)? })),
        Err(mistakes) => Ok(Err(mistakes)),
    }
}

/// As it is called in what is said.
fn name(file: &Path) -> String {
    if file == Path::new(STANDARD_INPUT) { "standard input".into() } else { file.display().to_string() }
}

/// A million prefixes are compiled in seconds, on a busy host in more.
pub const PATIENCE: Duration = Duration::from_secs(300);

const STANDARD_INPUT: &str = "-";
