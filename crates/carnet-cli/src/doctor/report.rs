use std::fs;

use serde::Serialize;

use crate::EXIT_SYSTEM;
use crate::doctor::EXIT_PROBLEM;
use crate::doctor::finding::{Area, Finding, Level};

/// All findings, in the order in which they were made.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    version: &'static str,
    kernel: String,
    findings: Vec<Finding>,
    worst: Level,
    /// What decides whether Carnet works was not to be looked at.
    #[serde(skip)]
    refused: bool,
}

impl Report {
    /// With nothing found yet.
    pub fn new() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim_end().to_owned();
        Self { version: env!("CARGO_PKG_VERSION"), kernel, findings: Vec::new(), worst: Level::Ok, refused: false }
    }

    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        self.worst = self.worst.max(finding.level);
        self.findings.push(finding);
    }

    /// Adds one because of which it is not known whether Carnet works.
    pub fn refused(&mut self, finding: Finding) {
        self.refused = true;
        self.add(finding);
    }

    /// A problem is an answer, whatever else was not to be seen.
    pub fn exit_code(&self) -> u8 {
        match self.worst {
            Level::Problem => EXIT_PROBLEM,
            _ if self.refused => EXIT_SYSTEM,
            _ => 0,
        }
    }

    /// One object, one line.
    pub fn json(&self) -> String {
        // Strings, numbers and maps with string keys always have a JSON form.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// For people: by area, each and what to do, and at the end what it comes to. In lines of so many characters.
    pub fn text(&self, width: usize) -> String {
        let mut text = String::new();
        for area in Area::ALL {
            let mut findings = self.findings.iter().filter(|finding| finding.area == *area).peekable();
            if findings.peek().is_some() {
                text += &format!("{}\n", area.name());
            }
            for finding in findings {
                text += &hanging(&format!("  {:7}  ", finding.level.name()), &finding.what, width);
                if finding.level != Level::Ok && !["", "Nothing"].contains(&&finding.action[..]) {
                    text += &hanging("           do: ", &finding.action, width);
                }
            }
        }
        text + &hanging("", &self.conclusion(), width)
    }

    fn conclusion(&self) -> String {
        let count = |level, one: &str, more: &str| match self
            .findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
        {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {more}")),
        };
        let answer = match self.exit_code() {
            EXIT_PROBLEM => "Carnet cannot work here as it is",
            EXIT_SYSTEM => "whether Carnet works here could not be looked at",
            _ => "nothing stands in the way",
        };
        let counts = [
            count(Level::Problem, "problem", "problems"),
            count(Level::Warning, "warning", "warnings"),
            count(Level::Note, "note", "notes"),
        ];
        let counts: Vec<_> = counts.into_iter().flatten().collect();
        match &counts[..] {
            [] => format!("carnet doctor: {answer}"),
            counts => format!("carnet doctor: {answer}; {}", counts.join(", ")),
        }
    }
}

/// A text behind its head. Where it is wider than a line it goes on in the next one, below its own beginning. What has
/// no blanks, such as a path, stays whole.
fn hanging(head: &str, text: &str, width: usize) -> String {
    let room = width.saturating_sub(head.len()).max(NARROWEST);
    let text = one_line(text);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if used + 1 + length <= room => {
                line.push(' ');
                line.push_str(word);
                used += 1;
            }
            _ => {
                lines.push(word.to_owned());
                used = 0;
            }
        }
        used += length;
    }
    let indent = " ".repeat(head.len());
    format!("{head}{}\n", lines.join(&format!("\n{indent}")))
}

/// A terminal may say that it has one column.
const NARROWEST: usize = 20;

/// Names come from anywhere: what would tear the line or move the cursor is shown as what it is.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
