//! What is no TOML. A line that nobody can read is told and left out, so that the mistakes behind it are found, too.

use toml::{
    Spanned,
    de::{DeTable, Error},
};

use super::{
    mistake::{Kind, Mistake},
    source::Source,
};

/// A text to go on with, and what is wrong with its form.
pub(super) struct Syntax {
    pub(super) mistakes: Vec<Mistake>,
    /// As long as the first, with blanks for what could not be read.
    pub(super) readable: String,
    /// From which line on nothing is certain.
    cut: Option<usize>,
}

impl Syntax {
    pub(super) fn of(source: &Source) -> Self {
        let mut syntax = Self { mistakes: Vec::new(), readable: source.text.to_owned(), cut: None };
        for round in 1.. {
            let (_, errors) = parse(&syntax.readable);
            // What is there twice does not keep the rest from being read.
            let (twice, errors): (Vec<_>, Vec<_>) = errors.into_iter().partition(is_twice);
            let Some(first) = errors.iter().map(|error| syntax.mistake(source, error)).min_by_key(|m| m.place.line)
            else {
                let twice: Vec<_> = twice.iter().map(|error| syntax.mistake(source, error)).collect();
                syntax.mistakes.extend(twice);
                break;
            };
            let line = first.place.line;
            syntax.mistakes.push(first);
            // One mistake often makes errors of many lines, so they are taken one by one.
            if round == ROUNDS || !syntax.leave_out(source, line) {
                syntax.cut = Some(line);
                break;
            }
        }
        syntax
    }

    /// These with `others`, as far as those do not follow from these: a key that could not be read is not missing.
    pub(super) fn with_what_does_not_follow(self, mut others: Vec<Mistake>, file: &str) -> Vec<Mistake> {
        if self.mistakes.is_empty() {
            return others;
        }
        others.retain(|mistake| {
            let line = mistake.place.line;
            let may_be_there = matches!(mistake.kind, Kind::UnknownNames | Kind::UnknownUpstream);
            let is_certain = self.cut.is_none_or(|cut| line < cut && !may_be_there);
            mistake.kind != Kind::MissingKey && (mistake.place.file != file || is_certain)
        });
        others.extend(self.mistakes);
        others
    }

    fn mistake(&self, source: &Source, error: &Error) -> Mistake {
        let end = source.text.len();
        let mut span = error.span().unwrap_or(end..end);
        // What ends too early is told where the text has its last word.
        if span.start >= source.text.trim_end().len() {
            let last = source.text.trim_end().len();
            span = last.saturating_sub(1)..last;
        }
        let what = error.message();
        let action = ACTIONS.iter().find(|(beginning, _)| what.starts_with(beginning)).map_or("", |(_, action)| action);
        Mistake::new(Kind::Syntax, source.place(span), what, action)
    }

    /// Puts blanks in the place of a line, where that does not change what the others mean.
    fn leave_out(&mut self, source: &Source, line: usize) -> bool {
        let span = source.line(line);
        let text = &self.readable[span.clone()];
        let count = |bracket: char| text.matches(bracket).count();
        let is_alone = !text.trim_start().starts_with(['[', ']', '{', '}', '"', '\''])
            && count('[') == count(']')
            && count('{') == count('}')
            && !text.contains("\"\"\"")
            && !text.contains("'''")
            && !text.trim().is_empty()
            && DeTable::parse(text).is_err();
        if is_alone {
            let blanks = " ".repeat(span.len());
            self.readable.replace_range(span, &blanks);
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

/// What to do, by what the parser says.
const ACTIONS: &[(&str, &str)] = &[
    ("duplicate key", "a key is there once: remove or rename one"),
    ("string values must be quoted", "write texts in quotes; true and false have none"),
    ("invalid boolean", "write true or false"),
    ("key with no value", "write KEY = VALUE"),
    ("missing value", "write KEY = VALUE"),
    ("unexpected key or value", "begin a new line, or write several values as a list: [1, 2]"),
    ("extra comma", "remove it"),
    ("missing comma", "put a comma between two values, or a bracket behind the last one before this"),
    ("unclosed array", "add a ]"),
    ("unclosed table", "add a ]; a rule begins with [[rule]]"),
    ("unclosed inline table", "add a }"),
    ("invalid basic string", "close it with \""),
    ("invalid literal string", "close it with '"),
    ("missing escaped value", "write \\\\ for one \\, or put the text in single quotes"),
];

/// How often a text is read anew.
const ROUNDS: usize = 50;
