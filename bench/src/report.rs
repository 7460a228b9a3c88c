//! Medians, spread and ratios: as JSON with every figure, as a table, as plots.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::compare::Row;
use crate::plot;

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// By variant.
    pub rows: Vec<Row>,
    /// How often each was measured.
    pub rounds: usize,
    /// How long each measure took.
    pub seconds: f64,
    /// How many flows were held, where the variant can.
    pub flows: usize,
    /// What it was measured on.
    pub machine: Vec<String>,
    /// Seconds in all.
    pub took: f64,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// In [`Figures`](crate::cell::Figures).
    pub key: &'static str,
    /// For people, with the unit.
    pub title: &'static str,
    /// As HAProxy's behind nft REDIRECT is 1, more than 1 is better where this is true.
    pub more_is_better: bool,
    digits: usize,
}

const fn more(key: &'static str, title: &'static str, digits: usize) -> Measure {
    Measure { key, title, more_is_better: true, digits }
}

const fn less(key: &'static str, title: &'static str, digits: usize) -> Measure {
    Measure { key, title, more_is_better: false, digits }
}

/// The columns, by table.
pub const TABLES: [(&str, &[Measure]); 4] = [
    (
        "Connections and throughput",
        &[
            more("new", "new connections/s", 0),
            more("keep_alive", "requests/s, kept", 0),
            more("single", "Gbit/s, 1 stream", 2),
            more("many", "Gbit/s, 8 streams", 2),
        ],
    ),
    (
        "Latency, one connection at a time",
        &[
            less("connect_p50", "connect() p50 µs", 1),
            less("connect_p99", "p99", 1),
            less("connect_p999", "p99.9", 1),
            less("answer_p50", "first byte p50 µs", 1),
            less("answer_p99", "p99", 1),
            less("answer_p999", "p99.9", 1),
        ],
    ),
    (
        "Processor seconds",
        &[
            less("cpu_new", "per 10,000 connections", 2),
            less("cpu_new_services", "of it services'", 2),
            less("cpu_new_daemon", "daemon's", 3),
            less("cpu_single", "per GB, 1 stream", 3),
            less("cpu_single_services", "of it services'", 3),
            less("cpu_many", "per GB, 8 streams", 3),
            less("cpu_many_services", "of it services'", 3),
        ],
    ),
    (
        "Memory",
        &[
            less("rss_idle", "services idle KiB", 0),
            more("flows_held", "flows", 0),
            less("rss_held", "with them KiB", 0),
            less("rss_flow", "bytes per flow", 0),
            less("rss_daemon", "daemon KiB", 0),
        ],
    ),
];

/// What ratios are to.
const BASES: [&str; 2] = ["direct", "nft-haproxy"];

/// Writes the three into a folder.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let table = markdown(report);
    put("compare.json", &(serde_json::to_string_pretty(report)? + "\n"))?;
    put("compare.md", &table)?;
    for measure in TABLES.iter().flat_map(|(_, measures)| *measures) {
        let bars: Vec<_> =
            report.rows.iter().filter_map(|row| Some((row.name, Spread::of(row, measure.key)?))).collect();
        if measure.key.starts_with("cpu_")
            || ["new", "keep_alive", "single", "many", "answer_p50"].contains(&measure.key)
        {
            put(&format!("{}.svg", measure.key), &plot::bars(&title(measure), measure.more_is_better, &bars))?;
        }
    }
    println!("{table}");
    Ok(())
}

fn title(measure: &Measure) -> String {
    match measure.key {
        "cpu_new_services" => "services' processor seconds per 10,000 connections".into(),
        "cpu_new_daemon" => "the daemon's processor seconds per 10,000 connections".into(),
        "cpu_single_services" => "services' processor seconds per GB, 1 stream".into(),
        "cpu_many_services" => "services' processor seconds per GB, 8 streams".into(),
        key if key.starts_with("cpu_") => format!("processor seconds {}", measure.title),
        _ => measure.title.into(),
    }
}

fn markdown(report: &Report) -> String {
    let mut text = String::from("# What Carnet costs, against its peers\n\n");
    for line in &report.machine {
        let _ = writeln!(text, "- {line}");
    }
    let (rounds, seconds) = (report.rounds, report.seconds);
    let _ = writeln!(
        text,
        "- {rounds} rounds, order shuffled in each, {seconds} s for each measure, {:.0} s in all",
        report.took
    );
    let _ = writeln!(text, "\nMedian, and the range of all rounds in brackets. What each means: docs/bench.md.\n");
    for (name, measures) in TABLES {
        let _ = writeln!(text, "## {name}\n");
        table(&mut text, report, measures, cell);
    }
    for base in BASES {
        let Some(base) = report.rows.iter().find(|row| row.name == base && !row.rounds.is_empty()) else { continue };
        let _ = writeln!(text, "## As ratios to {}\n\nThe median of the rounds' own ratios.\n", base.name);
        let ratios: Vec<_> = TABLES[..3].iter().flat_map(|(_, measures)| measures.iter().copied()).collect();
        let picked: Vec<_> = ratios.into_iter().filter(|measure| !measure.key.contains("p99")).collect();
        table(&mut text, report, &picked, |row, measure| {
            ratio(row, base, measure.key).map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"))
        });
    }
    let _ = writeln!(text, "## Left out\n");
    let mut all_there = true;
    for row in &report.rows {
        if let Some(why) = &row.missing {
            all_there = false;
            let _ = writeln!(text, "- {} ({}): {why}", row.name, row.what);
        }
        for failure in &row.failures {
            all_there = false;
            let _ = writeln!(text, "- {}, one round: {}", row.name, failure.lines().next().unwrap_or_default());
        }
    }
    if all_there {
        text += "Nothing.\n";
    }
    text
}

fn table(text: &mut String, report: &Report, measures: &[Measure], show: impl Fn(&Row, &Measure) -> String) {
    let titles: Vec<_> = measures.iter().map(|measure| measure.title).collect();
    let _ = writeln!(text, "| | {} |\n|---{}|", titles.join(" | "), "|---:".repeat(measures.len()));
    for row in &report.rows {
        let cells: Vec<_> = measures.iter().map(|measure| show(row, measure)).collect();
        let cells = if row.rounds.is_empty() { vec!["left out".into(); measures.len()] } else { cells };
        let _ = writeln!(text, "| {} | {} |", row.name, cells.join(" | "));
    }
    text.push('\n');
}

fn cell(row: &Row, measure: &Measure) -> String {
    let digits = measure.digits;
    let Some(spread) = Spread::of(row, measure.key) else { return "–".into() };
    format!("{:.digits$} ({:.digits$}–{:.digits$})", spread.median, spread.least, spread.most)
}

/// The median of the ratios within rounds: what else the machine did in a round is in both.
fn ratio(row: &Row, base: &Row, key: &str) -> Option<f64> {
    if row.rounds.len() != base.rounds.len() {
        return Some(Spread::of(row, key)?.median / Spread::of(base, key)?.median).filter(|ratio| ratio.is_finite());
    }
    let pairs = row.rounds.iter().zip(&base.rounds);
    let ratios = pairs.filter_map(|(own, its)| Some(own.get(key)? / its.get(key)?)).filter(|ratio| ratio.is_finite());
    Spread::among(ratios.collect()).map(|spread| spread.median)
}

/// The rounds' figures of one measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

impl Spread {
    fn of(row: &Row, key: &str) -> Option<Self> {
        Self::among(row.rounds.iter().filter_map(|figures| figures.get(key).copied()).collect())
    }

    /// Of these; nothing where there are none.
    pub fn among(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, new: &[f64]) -> Row {
        let rounds = new.iter().map(|&new| [("new".to_owned(), new)].into()).collect();
        Row { name, what: "", missing: None, rounds, failures: Vec::new() }
    }

    #[test]
    fn a_median_is_in_the_middle() {
        let odd = Spread::among(vec![3.0, 1.0, 2.0]).unwrap_or_else(|| panic!("there are three"));
        assert_eq!(odd, Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(Spread::among(vec![4.0, 1.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::among(Vec::new()), None);
    }

    #[test]
    fn a_ratio_is_within_rounds() {
        // The machine was ten times as fast in the second round.
        assert_eq!(ratio(&row("a", &[20.0, 200.0, 20.0]), &row("b", &[10.0, 100.0, 10.0]), "new"), Some(2.0));
    }

    #[test]
    fn what_is_left_out_is_named_with_its_reason() {
        let missing = Row { missing: Some("x not found".into()), ..row("peer", &[]) };
        let rows = vec![row("direct", &[10.0]), missing];
        let report = Report { rows, rounds: 1, seconds: 1.0, flows: 1, machine: Vec::new(), took: 1.0 };
        let text = markdown(&report);
        assert!(text.contains("| peer | left out |") && text.contains("- peer (): x not found"), "{text}");
    }
}
