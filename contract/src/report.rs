//! The rows as a table or as JSON.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    calls::Told,
    case::{Linux, Verdict},
    columns::align,
    run::Row,
    stage::Facts,
};

/// What was asked where, and the answers.
pub struct Report {
    pub mode: &'static str,
    pub facts: Option<Facts>,
    pub rows: Vec<Row>,
}

impl Report {
    /// Keeps the rows that have one of these verdicts.
    pub fn only(mut self, verdicts: &[Verdict]) -> Self {
        self.rows.retain(|row| verdicts.contains(&row.verdict));
        self
    }

    pub fn has_failed(&self) -> bool {
        self.count(Verdict::Failed) > 0
    }

    pub fn table(&self) -> String {
        let head = ["CASE", "RULE", "DOCUMENTED", "LINUX", "THIS SYSTEM", "VERDICT"].map(str::to_owned);
        let mut lines = vec![head];
        lines.extend(self.rows.iter().map(|row| {
            let this = match (&row.observed, &row.why) {
                (Some(observed), _) => observed.clone(),
                (None, Some(why)) => format!("({why})"),
                (None, None) => String::new(),
            };
            [row.case.id.clone(), row.case.rule.to_owned(), documented(row), linux(row), this, row.verdict.to_string()]
        }));
        let mut text = align(&lines);
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{}", self.summary());
        text
    }

    /// Of a document: the same without what only a run knows.
    pub fn markdown(&self) -> String {
        let mut text =
            String::from("| case | rule | what | documented | Carnet on Linux |\n| --- | --- | --- | --- | --- |\n");
        for row in &self.rows {
            let case = &row.case;
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                case.id,
                case.rule,
                case.about,
                documented(row),
                linux(row)
            );
        }
        text
    }

    pub fn json(&self) -> Value {
        json!({
            "program": concat!("carnet-contract ", env!("CARGO_PKG_VERSION")),
            "system": std::env::consts::OS,
            "version": system_version(),
            "mode": self.mode,
            "engine": self.facts.map(|facts| facts.engine),
            "elevated": self.facts.map(|facts| facts.elevated),
            "cases": self.rows.iter().map(JsonRow::of).collect::<Vec<_>>(),
            "summary": {
                "cases": self.rows.len(),
                "same": self.count(Verdict::Same),
                "differs": self.count(Verdict::Differs),
                "unknown": self.count(Verdict::Unknown),
                "not_run": self.count(Verdict::NotRun),
                "failed": self.count(Verdict::Failed),
            },
        })
    }

    fn summary(&self) -> String {
        let counts = [Verdict::Same, Verdict::Differs, Verdict::Unknown, Verdict::NotRun, Verdict::Failed]
            .map(|verdict| format!("{} {verdict}", self.count(verdict)));
        let facts = self.facts.map_or(String::new(), |Facts { engine, elevated }| {
            format!(
                " This system: {}{}, {}.",
                std::env::consts::OS,
                if engine { "" } else { " without an engine" },
                if elevated { "elevated" } else { "not elevated" }
            )
        });
        format!("{} cases: {}.{facts}", self.rows.len(), counts.join(", "))
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }
}

/// One case of the JSON report.
#[derive(Serialize)]
struct JsonRow<'a> {
    id: &'a str,
    group: &'static str,
    rule: &'static str,
    about: &'a str,
    documented: &'a [String],
    /// Null where it cannot occur.
    linux: Option<&'a str>,
    /// On Linux where no engine answers; null where that makes no difference.
    without_engine: Option<&'a str>,
    observed: Option<&'a str>,
    /// Why it was not run, or cannot occur on Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    verdict: String,
    calls: &'a [Told],
}

impl<'a> JsonRow<'a> {
    fn of(row: &'a Row) -> Self {
        let (linux, never) = match &row.case.linux {
            Linux::Answers(answer) => (Some(&answer[..]), None),
            Linux::Never(why) => (None, Some(*why)),
        };
        Self {
            id: &row.case.id,
            group: row.case.group,
            rule: row.case.rule,
            about: &row.case.about,
            documented: &row.case.documented,
            linux,
            without_engine: row.case.without_engine.as_deref(),
            observed: row.observed.as_deref(),
            why: row.why.as_deref().or(never),
            verdict: row.verdict.to_string(),
            calls: &row.told,
        }
    }
}

fn documented(row: &Row) -> String {
    match &row.case.documented[..] {
        [] => "nothing".to_owned(),
        answers => answers.join(" or "),
    }
}

fn linux(row: &Row) -> String {
    match &row.case.linux {
        Linux::Answers(answer) => answer.clone(),
        Linux::Never(why) => format!("cannot occur: {why}"),
    }
}

/// As the system tells it; empty where it does not.
fn system_version() -> String {
    #[cfg(target_os = "linux")]
    let told = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    #[cfg(windows)]
    let told = std::process::Command::new("cmd").args(["/c", "ver"]).output().map(|output| {
        let wine = crate::calls::system::wine_version().map_or(String::new(), |version| format!(", Wine {version}"));
        String::from_utf8_lossy(&output.stdout).trim().to_owned() + &wine
    });
    told.unwrap_or_default().trim().to_owned()
}
