//! What is no TOML. A line that nobody can read is told and left out, so that the mistakes behind it are found, too.

mod statements;

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, Error};

use crate::file::finding::{Finding, Id};
use crate::file::source::Source;

/// What is wrong with the form of a text.
pub(super) struct Syntax {
    /// In the order in which it was found.
    pub findings: Vec<Finding>,
    /// The text to go on with: as long as the first, with blanks for what could not be read.
    pub readable: String,
    /// Whether part of it is still not read, so that what seems to be missing may be there.
    pub is_cut: bool,
}

impl Syntax {
    pub fn of(source: &Source) -> Self {
        let mut syntax = Self { findings: Vec::new(), readable: source.text().to_owned(), is_cut: false };
        let mut told = BTreeSet::new();
        let (_, errors) = parse(&syntax.readable);
        if !errors.iter().all(is_twice) {
            for open in statements::open(source.text()) {
                let finding = Finding::new(Id::Syntax, source.place(open.span), open.what, open.action);
                told.insert(finding.place.line);
                syntax.findings.push(finding);
                syntax.lose(open.lost);
            }
        }
        for round in 1..=ROUNDS {
            let (_, errors) = parse(&syntax.readable);
            // What is there twice does not keep the rest from being read.
            let (twice, errors): (Vec<_>, Vec<_>) = errors.into_iter().partition(is_twice);
            if errors.is_empty() || round == ROUNDS {
                syntax.is_cut |= !errors.is_empty();
                syntax.findings.extend(errors.iter().chain(&twice).map(|error| finding(source, error)));
                break;
            }
            let mut lines = BTreeSet::new();
            for error in &errors {
                let finding = finding(source, error);
                lines.insert(finding.place.line);
                // One mistake often makes several errors of a line.
                if told.insert(finding.place.line) {
                    syntax.findings.push(finding);
                }
            }
            if !lines.iter().all(|&line| syntax.leave_out(source, line)) {
                syntax.is_cut = true;
                syntax.findings.extend(twice.iter().map(|error| finding(source, error)));
                break;
            }
        }
        syntax
    }

    /// These, with what was found in what could be read, as far as it does not follow from these: a key that could not
    /// be read is not missing.
    pub fn with_what_does_not_follow(self, mut findings: Vec<Finding>, file: &str) -> Vec<Finding> {
        if self.findings.is_empty() {
            return findings;
        }
        let lines: HashSet<_> = self.findings.iter().map(|finding| finding.place.line).collect();
        let may_be_there = |id| matches!(id, Id::UnknownSet | Id::UnknownProvider) && self.is_cut;
        findings.retain(|finding| {
            let is_in_file = finding.place.file == file;
            finding.id != Id::MissingKey
                && !may_be_there(finding.id)
                && !(is_in_file && lines.contains(&finding.place.line))
        });
        findings.extend(self.findings);
        findings
    }

    /// Whether a line could be left out without changing what the others mean.
    fn leave_out(&mut self, source: &Source, line: usize) -> bool {
        let span = source.line(line);
        let text = &self.readable[span.clone()];
        let count = |bracket: char| text.matches(bracket).count();
        let is_alone = !text.trim_start().starts_with(['[', ']', '}', '"', '\''])
            && count('[') == count(']')
            && count('{') == count('}')
            && !text.contains("\"\"\"")
            && !text.contains("'''")
            && !text.trim().is_empty()
            && DeTable::parse(text).is_err();
        if is_alone {
            self.lose(span);
        }
        is_alone
    }

    /// Puts blanks in the place of what cannot be read.
    fn lose(&mut self, span: Range<usize>) {
        let lost = &self.readable[span.clone()];
        // Names, and tables that have them.
        self.is_cut |= lost.lines().any(|line| line.trim_start().starts_with(['[', 'n']));
        let blanks = lost.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect::<String>();
        self.readable.replace_range(span, &blanks);
    }
}

/// The table of a text, as far as it could be read.
pub(super) fn parse(text: &str) -> (Spanned<DeTable<'_>>, Vec<Error>) {
    DeTable::parse_recoverable(text)
}

fn is_twice(error: &Error) -> bool {
    error.message().starts_with("duplicate key")
}

fn finding(source: &Source, error: &Error) -> Finding {
    let end = source.text().len();
    let span = error.span().unwrap_or(end..end);
    let what = match error.message() {
        // The same message for two things.
        message if message.starts_with("string values must be quoted") => match source.text().get(span.clone()) {
            Some(text) if !text.trim().is_empty() => "a text has quotes around it",
            _ => "a value is missing",
        },
        message => message,
    };
    let action = ACTIONS.iter().find(|(beginning, _)| what.starts_with(beginning)).map_or("", |(_, action)| action);
    Finding::new(Id::Syntax, source.place(span), what, action)
}

/// What to do, by what the parser says.
const ACTIONS: &[(&str, &str)] = &[
    ("duplicate key", "a key is there once: remove or rename one"),
    ("a text has quotes", "write it in quotes; true and false have none"),
    ("a value is missing", "write KEY = VALUE"),
    ("invalid boolean", "write true or false"),
    ("key with no value", "write KEY = VALUE"),
    ("missing value", "write KEY = VALUE"),
    ("invalid key-value pair", "write KEY = VALUE"),
    ("unexpected key or value", "begin a new line, or write several values as a list: [1, 2]"),
    ("extra comma", "remove it"),
    ("extra `=`", "remove it"),
    ("missing comma", "put a comma between two values"),
    ("missing escaped value", "write \\\\ for one \\, or put the text in single quotes"),
    ("missing opening quote", "write texts in quotes"),
    ("unexpected leading zero", "leave out the zeros before it"),
    ("redundant numeric sign", "write the number with one sign, or none"),
];

/// How often a text is read anew.
const ROUNDS: usize = 20;
