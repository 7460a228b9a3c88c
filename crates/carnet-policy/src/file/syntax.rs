//! What is no TOML. A line that nobody can read is told and left out, so that the mistakes behind it are found, too.

use std::collections::BTreeSet;

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
        for round in 1..=ROUNDS {
            let (_, errors) = parse(&syntax.readable);
            // What is there twice does not keep the rest from being read.
            let (twice, errors): (Vec<_>, Vec<_>) = errors.into_iter().partition(is_twice);
            if errors.is_empty() || round == ROUNDS {
                syntax.is_cut = !errors.is_empty();
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
            self.readable.replace_range(span.clone(), &" ".repeat(span.len()));
        }
        is_alone
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
    let action = match error.message() {
        _ if is_twice(error) => "a key is there once: remove or rename one",
        message if message.contains("string values must be quoted") => "write texts in quotes",
        _ => "",
    };
    Finding::new(Id::Syntax, source.place(span), error.message(), action)
}

/// How often a text is read anew.
const ROUNDS: usize = 20;
