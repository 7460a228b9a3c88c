//! What is said about a policy file, for people and for programs.

use std::path::Path;

use carnet_policy::file::{Finding, Level, Place};
use serde::Serialize;

/// All findings of one file.
pub struct Report {
    file: String,
    findings: Vec<Finding>,
}

impl Report {
    /// In the order of their places.
    pub fn new(file: &Path, mut findings: Vec<Finding>) -> Self {
        let file = file.display().to_string();
        findings.sort_by_key(|finding| (finding.place.file != file, finding.place.span.start));
        Self { file, findings }
    }

    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Each finding, and at the end what it comes to.
    pub fn text(&self) -> String {
        let mut text: String = self.findings.iter().map(|finding| format!("{finding}\n\n")).collect();
        text += &format!("carnet check: {}\n", self.conclusion());
        text
    }

    /// One object, one line.
    pub fn json(&self) -> String {
        let object = Object {
            version: env!("CARGO_PKG_VERSION"),
            file: &self.file,
            usable: self.count(Level::Mistake) == 0,
            findings: self.findings.iter().map(Item::from).collect(),
        };
        // Strings and numbers always have a JSON form.
        serde_json::to_string(&object).unwrap_or_default() + "\n"
    }

    fn conclusion(&self) -> String {
        let answer = if self.count(Level::Mistake) == 0 { "can be used" } else { "cannot be used" };
        let counts = [(Level::Mistake, "mistake"), (Level::Warning, "warning"), (Level::Note, "note")];
        let counts = counts.map(|(level, name)| match self.count(level) {
            0 => None,
            1 => Some(format!("1 {name}")),
            count => Some(format!("{count} {name}s")),
        });
        match &counts.into_iter().flatten().collect::<Vec<_>>()[..] {
            [] => format!("{} {answer}", self.file),
            counts => format!("{} {answer}; {}{}", self.file, counts.join(", "), self.unsaid()),
        }
    }

    /// Warnings are of a policy, and there is none where there is a mistake.
    fn unsaid(&self) -> &'static str {
        if self.count(Level::Mistake) == 0 { "" } else { ". Warnings are looked for when there is none" }
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level() == level).count()
    }
}

#[derive(Serialize)]
struct Object<'r> {
    version: &'static str,
    file: &'r str,
    usable: bool,
    findings: Vec<Item<'r>>,
}

/// One finding.
#[derive(Serialize)]
struct Item<'r> {
    id: &'static str,
    level: &'static str,
    #[serde(flatten)]
    place: At<'r>,
    what: &'r str,
    #[serde(rename = "do")]
    action: &'r str,
    also: Vec<Also<'r>>,
}

#[derive(Serialize)]
struct At<'r> {
    file: &'r str,
    line: usize,
    column: usize,
    /// Bytes of the file: the first, and the first one behind.
    span: [usize; 2],
}

#[derive(Serialize)]
struct Also<'r> {
    #[serde(flatten)]
    place: At<'r>,
    what: &'r str,
}

impl<'r> From<&'r Finding> for Item<'r> {
    fn from(finding: &'r Finding) -> Self {
        let also = finding.also.iter().map(|(place, what)| Also { place: place.into(), what });
        Self {
            id: finding.id.name(),
            level: finding.level().name(),
            place: (&finding.place).into(),
            what: &finding.what,
            action: &finding.action,
            also: also.collect(),
        }
    }
}

impl<'r> From<&'r Place> for At<'r> {
    fn from(place: &'r Place) -> Self {
        Self { file: &place.file, line: place.line, column: place.column, span: [place.span.start, place.span.end] }
    }
}
