//! What the single parts cost: each BPF program by the kernel's own statistics, socket options, and connect() alone.

pub mod calls;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::ground;
use crate::report::Spread;

#[derive(clap::Args)]
pub struct Arguments {
    /// How often each is measured
    #[arg(long, default_value = "5")]
    rounds: usize,
    /// How long each measure takes
    #[arg(long, default_value = "1")]
    seconds: f64,
    /// Folder for the table and the figures
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
}

/// One figure.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Part {
    /// What was measured.
    pub name: String,
    /// Nanoseconds, or connections per second.
    pub value: f64,
}

/// What the parts are measured with.
const STATES: [&str; 4] = ["direct", "unmatched", "carnet", "asked"];

/// Measures, and writes what came of it.
pub fn micro(arguments: &Arguments) -> Result<()> {
    ground::sweep()?;
    let mut all: Vec<(&str, Part)> = Vec::new();
    for round in 1..=arguments.rounds {
        for state in STATES {
            all.extend(parts(state, arguments.seconds, false)?.into_iter().map(|part| (state, part)));
        }
        eprintln!("round {round} of {}", arguments.rounds);
    }
    // Counting has a price of its own, so it is done by itself.
    let counting = Counting::begin()?;
    for state in &STATES[1..3] {
        all.extend(parts(state, arguments.seconds, true)?.into_iter().map(|part| (*state, part)));
    }
    drop(counting);

    let mut text =
        String::from("# What the parts of Carnet cost\n\n| with | what | median | range |\n|---|---|---:|---:|\n");
    let mut done: Vec<(&str, &str)> = Vec::new();
    for (state, part) in &all {
        if done.contains(&(state, &part.name)) {
            continue;
        }
        done.push((state, &part.name));
        let same = all.iter().filter(|(other, its)| other == state && its.name == part.name);
        let Some(spread) = Spread::among(same.map(|(_, part)| part.value).collect()) else { continue };
        text +=
            &format!("| {state} | {} | {:.0} | {:.0}–{:.0} |\n", part.name, spread.median, spread.least, spread.most);
    }
    println!("{text}");
    fs::create_dir_all(&arguments.out)?;
    let put = |name: &str, text: &str| {
        let path = arguments.out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put("micro.md", &text)?;
    put("micro.json", &(serde_json::to_string_pretty(&all)? + "\n"))
}

fn parts(state: &str, seconds: f64, counted: bool) -> Result<Vec<Part>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["calls", state, "--seconds", &seconds.to_string()]);
    if counted {
        command.arg("--programs");
    }
    let output = command.output().context("it does not start")?;
    ensure!(output.status.success(), "{state}: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("what it says")
}

/// The kernel counts the run time of programs while this is there.
struct Counting(String);

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Counting {
    fn begin() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).context(SWITCH)?;
        fs::write(SWITCH, "1").context(SWITCH)?;
        Ok(Self(before))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.0.trim()) {
            eprintln!("{SWITCH} was {}, and cannot be put back: {error}", self.0.trim());
        }
    }
}
