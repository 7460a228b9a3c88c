//! `carnet proxy`: the built-in service by itself, where something else redirects to it, such as `carnet serve`.
//!
//! ```text
//! listeners ──► carnet_proxy::Service ──► told.rs: a line for each thing it says
//!                    ▲ SIGHUP: the rules are read again; SIGTERM: it drains
//! ```

mod told;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use carnet_policy::file::Loader;
use carnet_proxy::rules::{self, Mistake, Rules};
use carnet_proxy::tap::{self, Tap};
use carnet_proxy::{Inspection, Options, Service, channel, raise_file_limit};
use clap::Args;
use nix::unistd::User;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::told::Told;
use crate::policy_file::Folder;
use crate::run::print_line;

/// Inspect connections: the built-in service by itself
///
/// It accepts what an engine redirects to it, reads the names that clients ask for, applies rules, and passes every byte
/// on to where the connection was going. `carnet serve`, or whatever else governs, is told of it by a policy: a
/// [[provider]] with this address in `listen` and this process's cgroup or user as `owner`.
///
/// SIGHUP reads the rules again. SIGTERM ends it: it accepts no more, and waits for the flows that are open.
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

    /// How long a destination may take to accept [default: as long as the kernel tries]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    connect_timeout: Option<Duration>,

    /// Most flows at a time; more wait [default: as many as there are files for]
    #[arg(long, value_name = "NUMBER")]
    max_flows: Option<usize>,

    /// How long open flows may go on after SIGTERM
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
    let inspection = Arc::new(Inspection::new(rules, tap));
    let service = Service::bind(&arguments.listen, options(&arguments))?.inspecting(Arc::clone(&inspection));
    if files < FILES_WANTED {
        told.warn(&format!(
            "the limit of open files is {files}, so about {} connections can be open at a time; more wait",
            files / 2
        ));
    }
    told.ready(&service.addresses()?);

    // A reader of standard output who does not read is not to stop flows.
    let (reporter, mut reports) = channel(REPORTS);
    let (lost, writer) = (reporter.clone(), told.clone());
    let writer = thread::spawn(move || {
        while let Some(report) = reports.blocking_recv() {
            writer.report(report);
        }
    });

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let summary = runtime.block_on(async {
        let hang_up = signal(SignalKind::hangup()).context("cannot wait for signals")?;
        let shutdown = shutdown()?;
        tokio::spawn(reload_on(hang_up, arguments.rules, inspection, told.clone()));
        anyhow::Ok(service.run(reporter, shutdown).await?)
    })?;
    drop(runtime);
    told.lost(lost.lost());
    drop(lost);
    let _ = writer.join();
    told.ended(summary);
    Ok(ExitCode::SUCCESS)
}

/// Rules, or what is wrong with them. The error is that the file cannot be read at all.
fn read(path: &Path) -> Result<Result<Rules, Vec<Mistake>>> {
    let text = Folder::current().load(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Rules::parse(&text, path, &ThisHost))
}

/// Reads the rules again whenever it is told to. Those that hold stay where the new ones have mistakes.
async fn reload_on(mut hang_up: Signal, path: Option<PathBuf>, inspection: Arc<Inspection>, told: Told) {
    let Some(path) = path else {
        while hang_up.recv().await.is_some() {
            told.warn("there are no rules to be read again: --rules was not given");
        }
        return;
    };
    while hang_up.recv().await.is_some() {
        let file = path.clone();
        // Reading 100,000 names takes a while, in which flows are to go on.
        match tokio::task::spawn_blocking(move || read(&file)).await {
            Ok(Ok(Ok(rules))) => {
                inspection.replace(rules);
                told.rules(&[]);
            }
            Ok(Ok(Err(mistakes))) => told.rules(&mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Ok(Err(error)) => told.rules(&[format!("{error:#}")]),
            Err(error) => told.rules(&[error.to_string()]),
        }
    }
}

/// Ready when the process is to end.
fn shutdown() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
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
    Options {
        connect_timeout: arguments.connect_timeout,
        max_flows: arguments.max_flows,
        drain: arguments.drain,
        ..Options::default()
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = "write a number of seconds, as 30 or 0.5";
    let seconds: f64 = text.parse().map_err(|_| wanted)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wanted.into())
}

/// Reports that may wait for a slow reader.
const REPORTS: usize = 8192;

/// The rules have mistakes.
const EXIT_MISTAKES: u8 = 1;

/// For 10,000 flows, or nearly.
const FILES_WANTED: u64 = 20_000;
