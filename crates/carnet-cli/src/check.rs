//! `carnet check`: what is wrong with a policy file, all of it, and what is perhaps not as it was meant.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use carnet_policy::file::{Finding, Host, Level, Nowhere};
use clap::{Args, ValueEnum};

pub use self::report::Report;

use crate::host::ThisHost;
use crate::policy_file;
use crate::stdout::write_out;

mod report;

/// Say what is wrong with a policy file, all of it, with lines, columns and suggestions
///
/// Needs no root and no kernel: nothing is put in force. Users, programs and cgroups that the file names are looked up
/// on this host; what is not there (yet) is a note. Warnings name what can be used and is perhaps not meant.
/// docs/policy.md explains each.
///
/// The exit code is 0 where the policy can be used, 1 where it cannot, 3 where the file cannot be read, 2 for a wrong
/// command line.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The policy file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where names of users, programs and the like are looked up
    #[arg(long, value_enum, default_value = "this", value_name = "HOST")]
    host: Where,

    /// End with 1 where there is a warning, too
    #[arg(long)]
    deny_warnings: bool,

    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Where names are looked up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Where {
    /// On this host
    This,
    /// Nowhere: for a policy that is for another host
    None,
}

/// Checks a file and writes what is to be said of it.
pub fn check(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { file, host, deny_warnings, json } = arguments;
    let host = host.host();
    let findings = match policy_file::read(&file, &*host)? {
        Err(mistakes) => mistakes.findings().to_vec(),
        Ok((policy, resolved)) => match policy.compile(&resolved, 1, &mut |_| {}) {
            Err(mistakes) => mistakes.findings().to_vec(),
            Ok(_) => [policy.warnings(&resolved, &*host), resolved.notes].concat(),
        },
    };
    let report = Report::new(&file, findings);
    let text = if json { report.json() } else { report.text() };
    write_out(text.as_bytes())?;
    let worst = report.findings().iter().map(Finding::level).max();
    let is_no = worst == Some(Level::Mistake) || deny_warnings && worst == Some(Level::Warning);
    Ok(ExitCode::from(u8::from(is_no)))
}

impl Where {
    /// What answers.
    pub fn host(self) -> Box<dyn Host> {
        match self {
            Self::This => Box::new(ThisHost::new()),
            Self::None => Box::new(Nowhere),
        }
    }
}
