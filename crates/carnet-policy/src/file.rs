//! The policy file: TOML as people write it, with a place for everything that is said about it.
//!
//! ```text
//! text ──► PolicyFile::parse ──► PolicyFile ──► resolve ──► Resolved: the Policy, and what is not there (yet)
//!   sets' files by a Loader          users, programs, cgroups by a Host    └──► warnings
//! ```
//!
//! [`PolicyFile::extend`] adds providers and filters to a file that stays as it is.
//!
//! Nothing here touches the system: what has to be read or looked up is asked of a [`Loader`] and a [`Host`].
//! [`PolicyFile::read`] does both steps and returns the mistakes of both at once. The reference of the language is
//! `docs/policy.md`.

mod conditions;
mod control;
mod entry;
mod extend;
mod finding;
mod host;
mod locate;
mod nearest;
mod prefixes;
mod read;
mod resolve;
mod sets;
mod source;
mod syntax;
mod warnings;

use std::io;
use std::path::Path;

use toml::de::DeTable;

pub use self::control::{Control, Principal};
pub use self::finding::{Finding, Id, Level, Mistakes};
pub use self::host::{Account, Answer, CgroupAt, ExecutableAt, Host, Nowhere, OpenTo, Writers};
pub use self::nearest::nearest;
pub use self::resolve::{Resolved, Watched};
pub use self::source::Place;

use self::control::ControlEntry;
use self::entry::{FilterEntry, ProviderEntry, choice, tables};
use self::locate::check_names;
use self::read::Reader;
use self::sets::Sets;
use self::source::{Source, Texts};
use self::syntax::Syntax;
use crate::{Action, HostAction};

/// A policy file that has no mistake in itself. What it names has not been looked up yet.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    texts: Texts,
    default: HostAction,
    block_quic: bool,
    strict: bool,
    providers: Vec<ProviderEntry>,
    filters: Vec<FilterEntry<HostAction>>,
    control: ControlEntry,
    sets: Sets,
}

/// Reads the files that a policy file names.
pub trait Loader {
    /// The text of a file. A path that is not absolute is relative to the policy file's folder.
    fn load(&self, path: &Path) -> io::Result<String>;
}

impl PolicyFile {
    /// Reads a text; `name` is what its findings call it.
    pub fn parse(name: &str, text: &str, loader: &dyn Loader) -> Result<Self, Mistakes> {
        let (file, mistakes) = Self::parse_all(name, text, loader);
        Mistakes::of(mistakes, name).map_or(Ok(file), Err)
    }

    /// [`PolicyFile::parse`] and [`PolicyFile::resolve`], with the mistakes of both.
    pub fn read(name: &str, text: &str, loader: &dyn Loader, host: &dyn Host) -> Result<(Self, Resolved), Mistakes> {
        let (file, mut mistakes) = Self::parse_all(name, text, loader);
        let (resolved, more) = file.resolve_all(host, &[]);
        mistakes.extend(more);
        Mistakes::of(mistakes, name).map_or(Ok((file, resolved)), Err)
    }

    /// The text of a file's bytes, which have to be UTF-8.
    pub fn text(name: &str, bytes: Vec<u8>) -> Result<String, Mistakes> {
        String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let place = Source::new(name, &String::from_utf8_lossy(error.as_bytes())).place(valid..valid);
            let finding = Finding::new(Id::Syntax, place, "this is no text in UTF-8", "save the file as UTF-8");
            Mistakes::all(vec![finding])
        })
    }

    /// The files that its sets are in, as it names them.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sets.files()
    }

    /// What could be read, and all mistakes.
    fn parse_all(name: &str, text: &str, loader: &dyn Loader) -> (Self, Vec<Finding>) {
        let source = Source::new(name, text);
        let syntax = Syntax::of(&source);
        let (table, _) = syntax::parse(&syntax.readable);
        let texts = Texts::of(source);
        let mut reader = Reader::new(&texts, loader);
        let file = Self::of_table(&mut reader, table.get_ref());
        check_names(&file, &mut reader);
        let findings = syntax.with_what_does_not_follow(reader.findings, name);
        (file, findings)
    }

    fn of_table(reader: &mut Reader, table: &DeTable) -> Self {
        let keys = reader.keys("a policy", table, 0..0, KEYS);
        let mut sets = match keys.value("sets") {
            Some(value) => {
                let table =
                    reader.table("sets", value, "{ NAME = { prefixes = [...] } }, or begin one with [sets.NAME]");
                table.map_or_else(Sets::default, |table| Sets::read(reader, table))
            }
            None => Sets::default(),
        };
        let boolean = |reader: &mut Reader, key: &str| keys.value(key).and_then(|value| reader.boolean(key, value));
        let actions = [("permit", HostAction::Permit), ("block", HostAction::Block)];
        let mut file = Self {
            texts: reader.texts.clone(),
            default: choice(reader, &keys, "default", &actions).unwrap_or(HostAction::Permit),
            block_quic: boolean(reader, "block-quic").unwrap_or_default(),
            strict: boolean(reader, "strict").unwrap_or_default(),
            providers: tables(reader, &keys, "provider", |reader, value| ProviderEntry::read(reader, &mut sets, value)),
            filters: tables(reader, &keys, "filter", |reader, value| FilterEntry::of_host(reader, &mut sets, value)),
            control: keys
                .value("control")
                .map_or_else(ControlEntry::default, |value| ControlEntry::read(reader, value)),
            sets: Sets::default(),
        };
        sets.finish(reader);
        file.sets = sets;
        file
    }

    /// Every filter of a provider, with its provider's position and its own.
    fn provider_filters(&self) -> impl Iterator<Item = (usize, usize, &FilterEntry<Action>)> {
        let providers = self.providers.iter().enumerate();
        providers.flat_map(|(provider, entry)| {
            entry.filters.iter().enumerate().map(move |(filter, entry)| (provider, filter, entry))
        })
    }
}

const KEYS: &[&str] = &["default", "block-quic", "strict", "provider", "filter", "sets", "control"];
