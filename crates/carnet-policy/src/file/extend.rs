//! Providers and filters that are added to a file, by somebody else than who has written it.

use std::io;
use std::path::Path;

use crate::file::entry::{FilterEntry, ProviderEntry, tables};
use crate::file::finding::Finding;
use crate::file::locate::check_names;
use crate::file::read::Reader;
use crate::file::source::Source;
use crate::file::syntax::{self, Syntax};
use crate::file::{Loader, Mistakes, PolicyFile};

impl PolicyFile {
    /// This file with the `[[provider]]` and `[[filter]]` tables of another text behind its own. They may name its sets
    /// and its providers; sets of their own they cannot have, so that no file is read for them.
    ///
    /// `name` is what findings call the text: those of [`PolicyFile::resolve`] and [`PolicyFile::warnings`], too, where
    /// the added is what is wrong. Of two that cannot be together, such as two providers of one rank, that is the one
    /// that was added last.
    pub fn extend(&self, name: &str, text: &str) -> Result<Self, Mistakes> {
        let source = Source::new(name, text);
        let syntax = Syntax::of(&source);
        let (texts, start) = self.texts.and(source);
        // Behind as many blanks as there is text before it, each place is a place among all texts. A mark of the
        // byte order can only be at the very beginning.
        let blanks = " ".repeat(start);
        let readable = match syntax.readable.strip_prefix(BYTE_ORDER) {
            Some(rest) => blanks + &" ".repeat(BYTE_ORDER.len()) + rest,
            None => blanks + &syntax.readable,
        };
        let (table, _) = syntax::parse(&readable);

        let mut file = Self { texts: texts.clone(), ..self.clone() };
        let mut reader = Reader::new(&texts, &NoFiles);
        let keys = reader.keys("what is added to a policy", table.get_ref(), start..start, &["provider", "filter"]);
        let sets = &mut file.sets;
        file.providers
            .extend(tables(&mut reader, &keys, "provider", |reader, value| ProviderEntry::read(reader, sets, value)));
        file.filters
            .extend(tables(&mut reader, &keys, "filter", |reader, value| FilterEntry::of_host(reader, sets, value)));
        check_names(&file, &mut reader);
        let findings: Vec<Finding> = syntax.with_what_does_not_follow(reader.findings, name);
        Mistakes::of(findings, name).map_or(Ok(file), Err)
    }
}

/// All sets have been read.
struct NoFiles;

impl Loader for NoFiles {
    fn load(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

const BYTE_ORDER: &str = "\u{feff}";
