//! One variant, measured once, in a process and namespaces of its own. Prints a [`Figures`] as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnet_engine::cgroup::Cgroup;
use nix::sys::resource::{Resource, getrlimit};

use crate::ground::{Ground, SERVER, within};
use crate::load::{Kind, Outcome};
use crate::variant::Variant;

#[derive(clap::Args)]
pub struct Arguments {
    variant: String,
    /// How long each measure takes
    #[arg(long, default_value = "1")]
    seconds: f64,
    /// Most flows that are held at a time
    #[arg(long, default_value = "10000")]
    flows: usize,
}

/// What was measured, by the name of a [`Measure`](crate::report::Measure).
pub type Figures = BTreeMap<String, f64>;

/// Threads where many connections are wanted.
const MANY: usize = 16;

/// Streams where throughput of many is wanted.
const STREAMS: usize = 8;

/// Sets the variant up, measures, and takes it down.
pub fn cell(arguments: &Arguments) -> Result<()> {
    let variant = Variant::named(&arguments.variant).context("no such variant")?;
    let mut ground = Ground::new()?;
    let prefix = variant.set_up(&mut ground)?;
    let mut cell = Cell { ground, prefix, seconds: arguments.seconds, figures: Figures::new() };
    // Each has two sockets in a service.
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let flows = arguments.flows.min(variant.flows).min((files as usize).saturating_sub(1000) / 2);
    let measured = cell.measure(variant, flows);
    measured.with_context(|| cell.ground.logs())?;
    println!("{}", serde_json::to_string(&cell.figures)?);
    Ok(())
}

struct Cell {
    ground: Ground,
    /// What the client's command begins with.
    prefix: Vec<String>,
    seconds: f64,
    figures: Figures,
}

impl Cell {
    fn measure(&mut self, variant: Variant, flows: usize) -> Result<()> {
        self.run(Kind::New, MANY, self.seconds.min(0.3))?;
        self.tell("rss_idle", rss(&self.ground.services)?);
        self.tell("rss_daemon", rss(&self.ground.engine)?);

        let before = Spent::now(&self.ground)?;
        let new = self.run(Kind::New, MANY, self.seconds)?;
        let spent = Spent::now(&self.ground)?.since(&before);
        self.tell("new", new.done as f64 / new.seconds);
        self.tell("cpu_new", spent.all() * 10_000.0 / new.done as f64);
        self.tell("cpu_new_services", spent.services * 10_000.0 / new.done as f64);
        self.tell("cpu_new_daemon", spent.engine * 10_000.0 / new.done as f64);
        ensure!(!variant.has_service() || spent.services > 0.0, "the service was passed by");

        let latency = self.run(Kind::New, 1, self.seconds)?;
        for (name, times) in [("connect", &latency.connect), ("answer", &latency.answer)] {
            for (part, suffix) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p999")] {
                self.tell(&format!("{name}_{suffix}"), quantile(times, part) / 1000.0);
            }
        }

        let kept = self.run(Kind::KeepAlive, MANY, self.seconds)?;
        self.tell("keep_alive", kept.done as f64 / kept.seconds);

        for (name, count) in [("single", 1), ("many", STREAMS)] {
            let before = Spent::now(&self.ground)?;
            let bulk = self.run(Kind::Bulk, count, self.seconds)?;
            let spent = Spent::now(&self.ground)?.since(&before);
            self.tell(name, bulk.bytes as f64 * 8.0 / bulk.seconds / 1e9);
            self.tell(&format!("cpu_{name}"), spent.all() * 1e9 / bulk.bytes as f64);
            self.tell(&format!("cpu_{name}_services"), spent.services * 1e9 / bulk.bytes as f64);
        }

        if variant.has_service() {
            self.hold(flows)?;
        }
        self.ground.check_children()
    }

    fn tell(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.figures.insert(name.to_owned(), value);
        }
    }

    fn run(&self, kind: Kind, count: usize, seconds: f64) -> Result<Outcome> {
        let output = self.client(kind, count, seconds)?.stderr(Stdio::piped()).output().context("the client")?;
        ensure!(output.status.success(), "the client: {}", String::from_utf8_lossy(&output.stderr));
        let outcome: Outcome = serde_json::from_slice(&output.stdout).context("what the client says")?;
        ensure!(outcome.done > 0, "nothing came through: {} failed {}", outcome.failed, kind.name());
        ensure!(outcome.failed * 100 <= outcome.done, "{} of {} failed {}", outcome.failed, outcome.done, kind.name());
        Ok(outcome)
    }

    /// What the services take while so many flows are open.
    fn hold(&mut self, flows: usize) -> Result<()> {
        let mut command = self.client(Kind::Hold, flows, 0.0)?;
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(client.stdout.take().context("its output")?).read_line(&mut said)?;
        let held = rss(&self.ground.services)?;
        drop(client.stdin.take());
        let status = client.wait()?;
        ensure!(said.trim() == "held" && status.success(), "not all of {flows} flows could be held");
        let idle = self.figures.get("rss_idle").copied().unwrap_or_default();
        self.tell("flows_held", flows as f64);
        self.tell("rss_held", held);
        self.tell("rss_flow", (held - idle).max(0.0) * 1024.0 / flows as f64);
        // They end before the next is measured.
        thread::sleep(Duration::from_millis(100));
        Ok(())
    }

    fn client(&self, kind: Kind, count: usize, seconds: f64) -> Result<Command> {
        let own = std::env::current_exe()?.display().to_string();
        let (count, seconds) = (count.to_string(), seconds.to_string());
        let mut words: Vec<&str> = self.prefix.iter().map(String::as_str).collect();
        words.extend([&own, "load", kind.name(), SERVER, "--count", &count, "--seconds", &seconds]);
        Ok(within(&self.ground.app, &words))
    }
}

/// Seconds of processors.
struct Spent {
    app: f64,
    services: f64,
    server: f64,
    engine: f64,
}

impl Spent {
    fn now(ground: &Ground) -> Result<Self> {
        Ok(Self {
            app: seconds(&ground.app)?,
            services: seconds(&ground.services)?,
            server: seconds(&ground.server)?,
            engine: seconds(&ground.engine)?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            app: self.app - before.app,
            services: self.services - before.services,
            server: self.server - before.server,
            engine: self.engine - before.engine,
        }
    }

    fn all(&self) -> f64 {
        self.app + self.services + self.server + self.engine
    }
}

fn seconds(cgroup: &Cgroup) -> Result<f64> {
    let text = fs::read_to_string(cgroup.path().join("cpu.stat")).context("cpu.stat of a cgroup")?;
    let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage_usec")?;
    Ok(used.trim().parse::<f64>()? / 1e6)
}

/// Of all processes in it and below, in KiB.
fn rss(cgroup: &Cgroup) -> Result<f64> {
    fn below(folder: &Path) -> Result<f64> {
        let mut sum = 0.0;
        for pid in fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
            sum += line.trim().trim_end_matches(" kB").parse::<f64>()?;
        }
        for entry in fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_dir()) {
            sum += below(&entry.path())?;
        }
        Ok(sum)
    }
    below(cgroup.path())
}

/// Of sorted times.
fn quantile(times: &[u32], part: f64) -> f64 {
    let index = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(index).map_or(f64::NAN, |&time| f64::from(time))
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_is_one_of_the_times() {
        let times: Vec<u32> = (1..=1000).collect();
        assert_eq!([0.5, 0.99, 0.999, 1.0].map(|part| quantile(&times, part)), [501.0, 991.0, 1000.0, 1000.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
