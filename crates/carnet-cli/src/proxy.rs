//! `carnet proxy`: the built-in service by itself, where something else redirects to it, such as `carnet serve`.
//!
//! ```text
//! listeners ──► carnet_proxy::Service ──► told.rs: a line for each thing it says
//!     ▲              ▲ SIGHUP: the rules are read again; SIGTERM: it drains, at once at the second (signals.rs)
//! hand_over.rs: from the process before, and to the next one
//! ```

mod hand_over;
mod open;
mod options;
mod scan;
mod serving;
mod signals;
mod told;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use carnet_policy::file::Loader;
use carnet_proxy::rules::{self, Mistake, Rate, Rules};
use carnet_proxy::tap::{self, Tap};
use carnet_proxy::{Inspection, Limits, Options, channel, raise_file_limit};
use clap::Args;
use nix::unistd::User;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::open::Opening;
use self::options::{flows, rate, seconds};
use self::scan::Scanning;
use self::serving::Prepared;
use self::told::Told;
use crate::policy_file::Folder;
use crate::run::print_line;

/// Inspect connections: the built-in service by itself
///
/// It accepts what an engine redirects to it, reads the names that clients ask for, applies rules, and passes every byte
/// on to where the connection was going. `carnet serve`, or whatever else governs, is told of it by a policy: a
/// [[provider]] with this address in `listen` and this process's cgroup or user as `owner`.
///
/// SIGHUP reads the rules again. SIGTERM ends it: it accepts no more, and waits for the flows that are open; a second one
/// resets them. With --hand-over the next process takes over from the running one, and no connection is refused or lost.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Where to listen, as 127.0.0.1:15001 or [::1]:15001; may be repeated
    #[arg(long, value_name = "ADDRESS", required = true)]
    listen: Vec<SocketAddr>,

    /// Rules by which flows are allowed, blocked and passed on (docs/rules.md)
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,

    /// Write what passes to this file, which must not be there, as TCP streams in pcapng (docs/tap.md). Where rules say
    /// `tap`, only what they say it of
    #[arg(long, value_name = "FILE")]
    tap: Option<PathBuf>,

    #[command(flatten)]
    open: open::Arguments,

    #[command(flatten)]
    scan: scan::Arguments,

    /// How long a destination may take to accept [default: as long as the kernel tries]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    connect_timeout: Option<Duration>,

    /// Most flows at a time; more wait [default: as many as there are files for]
    #[arg(long, value_name = "NUMBER", value_parser = flows)]
    max_flows: Option<u32>,

    /// Most flows of one user at a time; one more is reset [default: no limit]
    #[arg(long, value_name = "NUMBER", value_parser = flows)]
    max_flows_per_user: Option<u32>,

    /// New flows in a second, or as 600/m or 1000/h; more wait [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    max_rate: Option<Rate>,

    /// The same of one user; more are reset [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    max_rate_per_user: Option<Rate>,

    /// Take over from the process that was started with the same path, where there is one, and let the next one take over
    #[arg(long, value_name = "PATH")]
    hand_over: Option<PathBuf>,

    /// How long open flows may go on after SIGTERM, and after the next process has taken over
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    drain: Duration,

    /// One JSON object a line, instead of words
    #[arg(long)]
    json: bool,
}

/// Serves until it is told to end.
pub fn proxy(arguments: Arguments) -> Result<ExitCode> {
    let files = raise_file_limit().context("cannot raise the limit of open files")?;
    let rules = match &arguments.rules {
        Some(path) => match read(path)? {
            Ok(rules) => rules,
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| print_line(&mistake.to_string()));
                return Ok(ExitCode::from(EXIT_MISTAKES));
            }
        },
        None => Rules::default(),
    };
    let told = Told::new(arguments.json);
    let tap = match &arguments.tap {
        Some(path) => {
            let told = told.clone();
            Some(Tap::create(path, tap::Options::default(), move |stopped| told.warn(&told::with_cause(&stopped)))?)
        }
        None => None,
    };
    // A reader of standard output who does not read is not to stop flows.
    let (reporter, mut reports) = channel(REPORTS);
    let scanning = match Scanning::new(&arguments.scan, &reporter, &told) {
        Err(mistakes) if scan::is_mistakes(&mistakes) => {
            print_line(&mistakes.to_string());
            return Ok(ExitCode::from(EXIT_MISTAKES));
        }
        scanning => scanning?,
    };
    let opening = Opening::new(&arguments.open, scanning.as_ref().map(Scanning::scan), &told)?;
    let inspection = Arc::new(Inspection::new(Rules::default(), tap));
    opening.prepare(&rules, &inspection)?;
    if scanning.is_some() && !rules.open() {
        told.warn("no rule says action = \"open\", so nothing is scanned");
    }
    inspection.replace(rules);
    let mut prepared = Prepared::new(&arguments.listen, options(&arguments), arguments.hand_over.as_ref())?;
    prepared.service = prepared.service.inspecting(Arc::clone(&inspection));
    if files < FILES_WANTED {
        told.warn(&format!(
            "the limit of open files is {files}, so about {} connections can be open at a time; more wait",
            files / 2
        ));
    }

    let (lost, writer) = (reporter.clone(), told.clone());
    let writer = thread::spawn(move || {
        while let Some(report) = reports.blocking_recv() {
            writer.report(report);
        }
    });

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let summary = runtime.block_on(async {
        let hang_up = signal(SignalKind::hangup()).context("cannot wait for signals")?;
        tokio::spawn(reload_on(hang_up, arguments.rules, inspection, opening, scanning, told.clone()));
        prepared.serve(reporter, &told).await
    })?;
    drop(runtime);
    told.lost(lost.lost());
    drop(lost);
    let _ = writer.join();
    if let Some(summary) = summary {
        told.ended(summary);
    }
    Ok(ExitCode::SUCCESS)
}

/// Rules, or what is wrong with them. The error is that the file cannot be read at all.
fn read(path: &Path) -> Result<Result<Rules, Vec<Mistake>>> {
    let text = Folder::current().load(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Rules::parse(&text, path, &ThisHost))
}

/// Reads the rules again whenever it is told to. Those that hold stay where the new ones have mistakes.
async fn reload_on(
    mut hang_up: Signal,
    path: Option<PathBuf>,
    inspection: Arc<Inspection>,
    opening: Opening,
    scanning: Option<Scanning>,
    told: Told,
) {
    let opening = Arc::new(opening);
    let Some(path) = path else {
        while hang_up.recv().await.is_some() {
            match &scanning {
                Some(scanning) => scanning.reload(&told).await,
                None => told.warn("there are no rules to be read again: --rules was not given"),
            }
        }
        return;
    };
    while hang_up.recv().await.is_some() {
        if let Some(scanning) = &scanning {
            scanning.reload(&told).await;
        }
        let (file, opening, inspection) = (path.clone(), Arc::clone(&opening), Arc::clone(&inspection));
        let read_again = move || {
            let rules = read(&file)?;
            if let Ok(rules) = &rules {
                opening.prepare(rules, &inspection)?;
            }
            anyhow::Ok(rules.map(|rules| inspection.replace(rules)))
        };
        // Reading 100,000 names takes a while, in which flows are to go on.
        match tokio::task::spawn_blocking(read_again).await {
            Ok(Ok(Ok(()))) => told.rules(&[]),
            Ok(Ok(Err(mistakes))) => told.rules(&mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Ok(Err(error)) => told.rules(&[format!("{error:#}")]),
            Err(error) => told.rules(&[error.to_string()]),
        }
    }
}

/// Where the rules' files and users are looked up.
struct ThisHost;

impl rules::Host for ThisHost {
    fn read(&self, path: &Path) -> io::Result<String> {
        Folder::current().load(path)
    }

    fn uid(&self, user: &str) -> io::Result<Option<u32>> {
        Ok(User::from_name(user)?.map(|user| user.uid.as_raw()))
    }
}

fn options(arguments: &Arguments) -> Options {
    let limits = Limits {
        flows_per_user: arguments.max_flows_per_user,
        rate_per_user: arguments.max_rate_per_user,
        rate: arguments.max_rate,
    };
    Options {
        connect_timeout: arguments.connect_timeout,
        max_flows: arguments.max_flows.map(|flows| flows as usize),
        limits,
        drain: arguments.drain,
        ..Options::default()
    }
}

/// Reports that may wait for a slow reader.
const REPORTS: usize = 8192;

/// The rules have mistakes.
const EXIT_MISTAKES: u8 = 1;

/// For 10,000 flows, or nearly.
const FILES_WANTED: u64 = 20_000;
