//! Scanning bodies with rules of YARA: `carnet proxy --yara`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use carnet_proxy::scan::{Act, Direction, Finding, Match, Matcher, Scan, ScanOptions, ScanReport, Scanner};
use carnet_proxy::{Report, Reporter, Sender};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::told::{Told, with_cause};

/// For bodies of HTTP in opened flows (docs/scan.md).
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Arguments {
    /// Scan bodies of HTTP in opened flows with these YARA rules, a file or a folder of *.yar and *.yara (docs/scan.md);
    /// may be repeated
    #[arg(long, value_name = "PATH")]
    yara: Vec<PathBuf>,

    /// What becomes of a body that a YARA rule matches
    #[arg(long, value_name = "ACTION", default_value = "block")]
    yara_match: Action,

    /// What becomes of a body that cannot be scanned: it takes too long, or is a bomb
    #[arg(long, value_name = "ACTION", default_value = "block")]
    yara_unscanned: Action,

    /// Hold bodies back until they are scanned, up to so many MiB; longer ones are scanned in pieces
    #[arg(long, value_name = "MIB", default_value = "8", value_parser = clap::value_parser!(u8).range(1..=32))]
    yara_hold: u8,
}

/// What becomes of a body.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// It is stopped
    Block,
    /// It passes, and is told of
    Log,
}

/// Scans bodies, by rules that may be read again.
pub struct Scanning {
    paths: Vec<PathBuf>,
    scanner: Arc<Scanner>,
}

impl Scanning {
    /// `None`: nobody wants it.
    pub fn new(arguments: &Arguments, reporter: &Sender, told: &Told) -> Result<Option<Self>> {
        let paths = arguments.yara.clone();
        if paths.is_empty() {
            return Ok(None);
        }
        let Read { matcher, warnings, .. } = read(&paths)?;
        for warning in warnings {
            told.warn(&warning);
        }
        let options = ScanOptions {
            on_match: arguments.yara_match.into(),
            on_unscanned: arguments.yara_unscanned.into(),
            hold: usize::from(arguments.yara_hold) << 20,
            ..ScanOptions::default()
        };
        let reporter = reporter.clone();
        let tell = move |report| reporter.report(Report::Scan(Box::new(report)));
        Ok(Some(Self { paths, scanner: Arc::new(Scanner::new(matcher, options, tell)) }))
    }

    pub fn scan(&self) -> Arc<dyn Scan> {
        Arc::clone(&self.scanner) as Arc<dyn Scan>
    }

    /// Reads the rules again. Those that hold stay where the new ones have mistakes.
    pub async fn reload(&self, told: &Told) {
        let paths = self.paths.clone();
        // Thousands of rules take seconds.
        let read = match tokio::task::spawn_blocking(move || read(&paths)).await {
            Ok(read) => read.map_err(|error| with_cause(&*error)),
            Err(error) => Err(error.to_string()),
        };
        let read = read.map(|Read { matcher, warnings, count }| {
            self.scanner.replace(matcher);
            warnings.iter().for_each(|warning| told.warn(warning));
            count
        });
        told.yara(&read);
    }
}

/// Whether the rules have mistakes; else they cannot be had at all.
#[cfg(feature = "yara")]
pub fn is_mistakes(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(carnet_proxy::scan::YaraError::Mistakes { .. }))
}

#[cfg(not(feature = "yara"))]
pub fn is_mistakes(_: &anyhow::Error) -> bool {
    false
}

struct Read {
    matcher: Arc<dyn Matcher>,
    warnings: Vec<String>,
    count: usize,
}

#[cfg(feature = "yara")]
fn read(paths: &[PathBuf]) -> Result<Read> {
    let rules = carnet_proxy::scan::YaraRules::load(paths)?;
    let (warnings, count) = (rules.warnings().to_vec(), rules.count());
    Ok(Read { matcher: Arc::new(rules), warnings, count })
}

#[cfg(not(feature = "yara"))]
fn read(_: &[PathBuf]) -> Result<Read> {
    anyhow::bail!(
        "this carnet is built without YARA-X; build one with it: cargo build --release -p carnet-cli --features yara"
    )
}

/// `match  uid 1000 -> 192.0.2.7:443  response of GET https://example.org/a  eicar (rules/test.yar) test,harmless  blocked`
pub fn words_of(report: &ScanReport) -> String {
    let uid = report.uid.map(|uid| format!("  uid {uid}")).unwrap_or_default();
    let ScanReport { destination, method, url, blocked, .. } = report;
    let becomes = if *blocked { "blocked" } else { "passed on" };
    let (kind, finding) = match &report.finding {
        Finding::Match(Match { rule, namespace, tags }) => {
            let tags = if tags.is_empty() { String::new() } else { format!(" {}", tags.join(",")) };
            ("match", format!("{rule} ({namespace}){tags}"))
        }
        other => ("unscanned", other.to_string()),
    };
    let url = url.escape_debug();
    format!("{kind}{uid} -> {destination}  {} of {method} {url}  {finding}  {becomes}", part(report.direction))
}

/// What does not apply to a finding is null.
pub fn json_of(report: &ScanReport) -> Value {
    let (matched, unscanned) = match &report.finding {
        Finding::Match(matched) => (Some(matched), None),
        Finding::Unscanned(why) => (None, Some(why)),
        _ => (None, None),
    };
    json!({
        "type": "scan",
        "flow": format!("{:032x}", report.flow_id),
        "destination": report.destination.to_string(),
        "uid": report.uid,
        "body": part(report.direction),
        "method": report.method,
        "url": report.url,
        "rule": matched.map(|matched| &matched.rule),
        "namespace": matched.map(|matched| &matched.namespace),
        "tags": matched.map(|matched| &matched.tags),
        "unscanned": unscanned.map(|why| why.name()),
        "action": if report.blocked { "block" } else { "log" },
    })
}

fn part(direction: Direction) -> &'static str {
    match direction {
        Direction::Request => "request",
        Direction::Response => "response",
    }
}

impl From<Action> for Act {
    fn from(action: Action) -> Self {
        match action {
            Action::Block => Self::Block,
            Action::Log => Self::Log,
        }
    }
}
