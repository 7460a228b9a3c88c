//! Every variant in each round, in an order that is drawn anew, so that what else the machine does falls on all alike.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::cell::Figures;
use crate::report::Report;
use crate::variant::{ALL, Variant, program, version};
use crate::{ground, report};

#[derive(clap::Args)]
pub struct Arguments {
    /// One round of 0.3 seconds for each measure, to see that all of it works; the figures mean little
    #[arg(long)]
    quick: bool,
    /// How often each variant is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each measure takes
    #[arg(long)]
    seconds: Option<f64>,
    /// Flows that are held at a time
    #[arg(long)]
    flows: Option<usize>,
    /// Only these variants
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Folder for the table, the plots and the figures
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
}

/// One variant and what came of it.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// Why it was left out, where it was.
    pub missing: Option<String>,
    /// By round.
    pub rounds: Vec<Figures>,
    /// What went wrong in rounds that are not there.
    pub failures: Vec<String>,
}

/// Measures, and writes what came of it.
pub fn compare(arguments: &Arguments) -> Result<()> {
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 5 });
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { 0.3 } else { 3.0 });
    let flows = arguments.flows.unwrap_or(if arguments.quick { 500 } else { 10_000 });
    let mut rows = rows(&arguments.only)?;
    ground::sweep()?;

    let begin = Instant::now();
    let mut random = Random(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64 | 1);
    for round in 1..=rounds {
        let mut order: Vec<usize> = (0..rows.len()).filter(|&index| rows[index].missing.is_none()).collect();
        random.shuffle(&mut order);
        for index in order {
            let row = &mut rows[index];
            match cell(row.name, seconds, flows) {
                Ok(figures) => {
                    let new = figures.get("new").copied().unwrap_or_default();
                    eprintln!("round {round} of {rounds}: {:<20} {new:>8.0} new connections a second", row.name);
                    row.rounds.push(figures);
                }
                Err(error) => {
                    eprintln!("round {round} of {rounds}: {:<20} failed: {error:#}", row.name);
                    row.failures.push(format!("{error:#}"));
                }
            }
        }
    }
    ensure!(rows.iter().any(|row| !row.rounds.is_empty()), "nothing could be measured");
    let failed = rows.iter().filter(|row| !row.failures.is_empty()).count();
    let report = Report { rows, rounds, seconds, flows, machine: machine(), took: begin.elapsed().as_secs_f64() };
    report::write(&report, &arguments.out)?;
    ensure!(failed == 0, "{failed} variants failed in some round; what they said is above and in the report");
    Ok(())
}

fn rows(only: &[String]) -> Result<Vec<Row>> {
    if let Some(unknown) = only.iter().find(|name| Variant::named(name).is_none()) {
        let all: Vec<_> = ALL.iter().map(|variant| variant.name).collect();
        bail!("{unknown}: no such variant; there are {}", all.join(", "));
    }
    if program("carnet").is_none() {
        bail!("the command is not there: set CARNET to its path, or use make bench");
    }
    let is_wanted = |variant: &Variant| only.is_empty() || only.iter().any(|name| name == variant.name);
    let row = |variant: &Variant| Row {
        name: variant.name,
        what: variant.what,
        missing: if is_wanted(variant) { variant.missing() } else { Some("not asked for in this run".into()) },
        rounds: Vec::new(),
        failures: Vec::new(),
    };
    Ok(ALL.iter().map(row).collect())
}

/// In a process of its own, whose namespaces go with it.
fn cell(name: &str, seconds: f64, flows: usize) -> Result<Figures> {
    // Seven measures; what takes ten times as long does not end by itself. It still may clean up.
    let limit = 60.0 + 70.0 * seconds;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "timeout", "--kill-after", "5", &limit.to_string()])
        .arg(std::env::current_exe()?)
        .args(["cell", name]);
    command.args(["--seconds", &seconds.to_string(), "--flows", &flows.to_string()]);
    // What is told is to be a reason, not a place in the code.
    let output = command.env("RUST_BACKTRACE", "0").output().context("setpriv does not start")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("what the cell says")
}

/// What the figures were taken on, in lines.
fn machine() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let kernel: String = release.split('.').take(2).collect::<Vec<_>>().join(".");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, name)| name);
    let load = read("/proc/loadavg");
    let mut lines = vec![
        format!("Linux {kernel}, {cpus} processors, {model}"),
        format!("load average at the end: {}", load.split(' ').take(3).collect::<Vec<_>>().join(", ")),
    ];
    lines.extend(["carnet", "haproxy"].map(version));
    lines
}

/// xorshift64: enough to draw an order.
struct Random(u64);

impl Random {
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            items.swap(end, (self.0 % (end as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_shuffle_loses_nothing_and_changes_the_order() {
        let mut items: Vec<u32> = (0..50).collect();
        Random(7).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
