//! The ioctl contract, asked of the system it runs on: every rule and every row of the error tables as a case.
//!
//! On Linux each answer is compared with the one that Carnet gives by decision, and another one is exit code 1. On
//! Windows the answers are recorded; nobody knows them all. `docs/contract.md` says how to run it and what it found.
#![deny(unsafe_code)]

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::Parser;

use crate::{
    case::Verdict,
    report::Report,
    run::Row,
    stage::{Facts, Stage},
};

#[allow(unsafe_code, reason = "calls with arguments that no safe interface lets through")]
mod calls;
mod case;
mod catalogue;
mod client;
mod columns;
mod compare;
mod report;
mod run;
mod service;
mod stage;
mod words;

/// Asks the system every case of the ioctl contract, and tells where Linux and Windows differ.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    mode: Mode,
    /// Connections to wait for, such as one with a context and one without
    #[arg(long, value_name = "COUNT", default_value_t = 1, requires = "port")]
    connections: usize,
    /// End after the cases, instead of when told to
    #[arg(long, requires = "port")]
    once: bool,
    /// The context that the filter gives
    #[arg(long, value_name = "FILE", requires = "port")]
    context: Option<PathBuf>,
    /// A record that another service has just read
    #[arg(long, value_name = "FILE")]
    others_record: Option<PathBuf>,
    /// Write all rows and each call's numbers, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
    /// Print the table as a document has it
    #[arg(long, requires = "list", conflicts_with = "json")]
    markdown: bool,
    /// Of one group only
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Print only the rows where the systems differ
    #[arg(long, conflicts_with = "unknown")]
    differences: bool,
    /// Print only the rows of which nothing is documented and Windows can be asked
    #[arg(long)]
    unknown: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Mode {
    /// Be a redirect service on this port, and ask about the connections that come to it
    #[arg(long)]
    port: Option<u16>,
    /// Ask what needs no redirected connection
    #[arg(long)]
    unredirected: bool,
    /// Ask nothing: print the cases
    #[arg(long)]
    list: bool,
    /// Connect to these addresses, print what comes from there, and end when they do
    #[arg(long, value_name = "ADDRESS", num_args = 1..)]
    client: Vec<SocketAddr>,
    /// Print the cases whose answers differ in two reports
    #[arg(long, value_name = "REPORT", num_args = 2)]
    compare: Vec<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if !arguments.mode.client.is_empty() {
        return client::connect(&arguments.mode.client).map(|()| ExitCode::SUCCESS);
    }
    if let [one, other] = &arguments.mode.compare[..] {
        put_out(compare::table(one, other)?.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.mode.list {
        let rows = catalogue::all().into_iter().map(Arc::new).map(Row::listed).collect();
        put_out(&arguments.show(Report { mode: "list", facts: None, rows })?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stage = arguments.stage()?;
    match arguments.mode.port {
        Some(port) => service::serve(port, stage, &arguments),
        None => {
            let report = arguments.asked("unredirected", &Arc::new(stage))?;
            let failed = report.has_failed();
            put_out(&arguments.show(report)?)?;
            Ok(exit_code(failed))
        }
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn put_out(text: &str) -> Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write the output"),
        _ => Ok(()),
    }
}

fn exit_code(failed: bool) -> ExitCode {
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl Arguments {
    fn stage(&self) -> Result<Stage> {
        let mut stage = Stage::new().context("cannot make a connection on loopback")?;
        for (file, place) in
            [(&self.context, &mut stage.known_context), (&self.others_record, &mut stage.others_record)]
        {
            if let Some(file) = file {
                *place = Some(fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
            }
        }
        Ok(stage)
    }

    /// All cases, asked; the report is written where it is wanted.
    fn asked(&self, mode: &'static str, stage: &stage::Shared) -> Result<Report> {
        let facts: Facts = stage.facts;
        let cases = catalogue::all().into_iter().map(Arc::new).collect();
        let report = Report { mode, facts: Some(facts), rows: run::run(cases, stage) };
        if let Some(file) = &self.report {
            let text = format!("{:#}\n", report.json());
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(report)
    }

    /// As much of it as is wanted.
    fn show(&self, mut report: Report) -> Result<String> {
        if let Some(group) = &self.group {
            report.rows.retain(|row| row.case.group == group);
        }
        if self.differences {
            report = report.only(&[Verdict::Differs, Verdict::Failed]);
        } else if self.unknown {
            report.rows.retain(|row| row.case.documented.is_empty() && row.case.on_windows);
        }
        Ok(match (self.json, self.markdown) {
            (true, _) => format!("{:#}", report.json()),
            (_, true) => report.markdown().trim_end().to_owned(),
            _ => report.table().trim_end().to_owned(),
        })
    }
}
