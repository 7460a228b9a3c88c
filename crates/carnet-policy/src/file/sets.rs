//! Named sets of prefixes or ports, and lists in which they are used.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Prefix;
use crate::file::finding::Id;
use crate::file::nearest::{instead, nearest};
use crate::file::prefixes::{self, Wrong};
use crate::file::read::{Reader, Value, one_or_more, type_name};
use crate::file::source::shown;

/// The `[sets.NAME]` of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    by_name: BTreeMap<String, Set>,
}

/// One set. What is in its file is known once somebody has used the set for prefixes, or for ports.
#[derive(Clone, Debug)]
struct Set {
    /// Of its name.
    span: Range<usize>,
    kind: Option<Kind>,
    file: Option<Spanned<String>>,
    prefixes: Vec<Prefix>,
    ports: Vec<RangeInclusive<u16>>,
    shared: Option<Shared>,
    is_used: bool,
}

#[derive(Clone, Debug)]
enum Shared {
    Prefixes(Arc<[Prefix]>),
    Ports(Arc<[RangeInclusive<u16>]>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Prefixes,
    Ports,
}

/// What a list and a set can be of.
pub(super) trait Entry: Clone + Sized {
    fn parse(text: &str) -> Result<Self, Wrong>;
    /// Of a number in a list.
    fn of_number(number: &str) -> Option<Result<Self, Wrong>>;
    fn id() -> Id;
    fn example() -> &'static str;
    fn of_set(sets: &mut Sets, reader: &mut Reader, name: &str, span: Range<usize>) -> Option<Arc<[Self]>>;
}

impl Sets {
    /// Of the value of `sets`.
    pub fn read(reader: &mut Reader, table: &DeTable) -> Self {
        let mut sets = Self::default();
        for (name, value) in table {
            let key = format!("sets.{}", shown(name.get_ref()));
            let Some(table) = reader.table(&key, value, "{ prefixes = [\"10.0.0.0/8\"] }") else { continue };
            let keys = reader.keys("a set", table, name.span(), &["prefixes", "ports", "file"]);
            let kind = match (keys.value("prefixes"), keys.value("ports")) {
                (Some(_), Some(_)) => {
                    let span = keys.key_span("ports").unwrap_or_else(|| keys.span());
                    let what = format!("the set {:?} has prefixes and ports", shown(name.get_ref()));
                    reader.mistake(Id::MisplacedKey, span, what, "make two sets of it");
                    Some(Kind::Prefixes)
                }
                (Some(_), None) => Some(Kind::Prefixes),
                (None, Some(_)) => Some(Kind::Ports),
                (None, None) => None,
            };
            let file = keys.value("file").and_then(|value| reader.text("file", value, "\"blocked.txt\""));
            if kind.is_none() && keys.value("file").is_none() {
                let what = format!("the set {:?} has nothing in it", shown(name.get_ref()));
                reader.mistake(
                    Id::MissingKey,
                    name.span(),
                    what,
                    "add prefixes = [...], ports = [...] or file = \"...\"",
                );
            }
            let set = Set {
                span: name.span(),
                kind,
                file: file.map(|file| Spanned::new(file.span(), (*file.get_ref()).to_owned())),
                prefixes: keys.value("prefixes").map_or_else(Vec::new, |value| in_set(reader, "prefixes", value)),
                ports: keys.value("ports").map_or_else(Vec::new, |value| in_set(reader, "ports", value)),
                shared: None,
                is_used: false,
            };
            sets.by_name.insert(name.get_ref().to_string(), set);
        }
        sets
    }

    /// Reads what nobody has used, for its mistakes, and for who uses it later.
    pub fn finish(&mut self, reader: &mut Reader) {
        for set in self.by_name.values_mut().filter(|set| !set.is_used) {
            let kind = *set.kind.get_or_insert(Kind::Prefixes);
            set.load(reader, kind);
        }
    }

    /// The names of those that nobody has used, and where they are.
    pub fn unused(&self) -> impl Iterator<Item = Spanned<&str>> {
        let unused = self.by_name.iter().filter(|(_, set)| !set.is_used);
        unused.map(|(name, set)| Spanned::new(set.span.clone(), &**name))
    }

    /// The files that they are in, as they are named.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.by_name.values().filter_map(|set| Some(Path::new(set.file.as_ref()?.get_ref())))
    }

    /// What is in a set that is used at `span`.
    fn used(&mut self, reader: &mut Reader, name: &str, span: Range<usize>, kind: Kind) -> Option<Shared> {
        let Some(set) = self.by_name.get_mut(name) else {
            let names: Vec<_> = self.by_name.keys().map(|name| &**name).collect();
            let action = match nearest(name, names.iter().copied()) {
                Some(name) => format!("did you mean \"@{name}\"?"),
                None if name.is_empty() => "write the name of a set behind the @".to_owned(),
                None => format!("define it: [sets.{}]", shown(name)),
            };
            reader.mistake(Id::UnknownSet, span, format!("there is no set {:?}", shown(name)), action);
            return None;
        };
        set.is_used = true;
        if *set.kind.get_or_insert(kind) != kind {
            let (is, wanted) = match kind {
                Kind::Prefixes => ("ports", "prefixes"),
                Kind::Ports => ("prefixes", "ports"),
            };
            let what = format!("the set {:?} is of {is}, and {wanted} are meant here", shown(name));
            reader.mistake(Id::WrongSet, span, what, "use another set");
            return None;
        }
        set.load(reader, kind);
        set.shared.clone()
    }
}

impl Set {
    /// Reads its file, once.
    fn load(&mut self, reader: &mut Reader, kind: Kind) {
        if self.shared.is_some() {
            return;
        }
        let mut prefixes = std::mem::take(&mut self.prefixes);
        let mut ports = std::mem::take(&mut self.ports);
        if let Some(file) = &self.file {
            match reader.loader.load(Path::new(file.get_ref())) {
                Ok(text) => {
                    let folder = Path::new(reader.texts.name()).parent().unwrap_or(Path::new(""));
                    let name = folder.join(file.get_ref()).display().to_string();
                    let findings = &mut reader.findings;
                    match kind {
                        Kind::Prefixes => prefixes.extend(of_file::<Prefix>(&name, &text, findings)),
                        Kind::Ports => ports.extend(of_file::<RangeInclusive<u16>>(&name, &text, findings)),
                    }
                }
                Err(error) => {
                    let what = format!("cannot read {:?}: {error}", shown(file.get_ref()));
                    let action = "a path is relative to the policy file, or absolute";
                    reader.mistake(Id::UnreadableFile, file.span(), what, action);
                }
            }
        }
        self.shared = Some(match kind {
            Kind::Prefixes => Shared::Prefixes(prefixes.into()),
            Kind::Ports => Shared::Ports(ports.into()),
        });
    }
}

/// The lists that a value of a condition stands for: the values in it, and each set.
pub(super) fn lists<T: Entry>(reader: &mut Reader, sets: &mut Sets, key: &str, value: &Value) -> Vec<Arc<[T]>> {
    let mut own = Vec::new();
    let mut lists = Vec::new();
    for value in one_or_more(value) {
        match value.get_ref() {
            DeValue::String(text) if text.starts_with('@') => {
                lists.extend(T::of_set(sets, reader, &text[1..], value.span()));
            }
            _ => own.extend(entry::<T>(reader, key, value)),
        }
    }
    if !own.is_empty() {
        lists.insert(0, own.into());
    }
    lists
}

/// The values of a set itself.
fn in_set<T: Entry>(reader: &mut Reader, key: &str, value: &Value) -> Vec<T> {
    let mut own = Vec::new();
    for value in one_or_more(value) {
        match value.get_ref() {
            DeValue::String(text) if text.starts_with('@') => {
                let action = "name both sets where this one is used";
                reader.mistake(Id::WrongSet, value.span(), "a set cannot be in another set", action);
            }
            _ => own.extend(entry::<T>(reader, key, value)),
        }
    }
    own
}

fn entry<T: Entry>(reader: &mut Reader, key: &str, value: &Value) -> Option<T> {
    let parsed = match value.get_ref() {
        DeValue::String(text) => Some(T::parse(text)),
        DeValue::Integer(number) if number.radix() == 10 => T::of_number(number.as_str()),
        _ => None,
    };
    match parsed {
        Some(Ok(entry)) => Some(entry),
        Some(Err((what, action))) => {
            reader.mistake(T::id(), value.span(), what, action);
            None
        }
        None => {
            let what = format!("{} cannot be in {key:?}", type_name(value.get_ref()));
            reader.mistake(Id::WrongType, value.span(), what, format!("write {key} = {}", T::example()));
            None
        }
    }
}

fn of_file<T: Entry>(name: &str, text: &str, findings: &mut Vec<super::Finding>) -> Vec<T> {
    prefixes::lines(name, text, T::id(), T::parse, findings)
}

impl Entry for Prefix {
    fn parse(text: &str) -> Result<Self, Wrong> {
        prefixes::prefix(text)
    }

    fn of_number(_: &str) -> Option<Result<Self, Wrong>> {
        None
    }

    fn id() -> Id {
        Id::WrongPrefix
    }

    fn example() -> &'static str {
        "[\"10.0.0.0/8\", \"2001:db8::/32\"]"
    }

    fn of_set(sets: &mut Sets, reader: &mut Reader, name: &str, span: Range<usize>) -> Option<Arc<[Self]>> {
        match sets.used(reader, name, span, Kind::Prefixes)? {
            Shared::Prefixes(prefixes) => Some(prefixes),
            Shared::Ports(_) => None,
        }
    }
}

impl Entry for RangeInclusive<u16> {
    fn parse(text: &str) -> Result<Self, Wrong> {
        prefixes::ports(text)
    }

    fn of_number(number: &str) -> Option<Result<Self, Wrong>> {
        Some(prefixes::ports(number))
    }

    fn id() -> Id {
        Id::WrongPort
    }

    fn example() -> &'static str {
        "[443, \"8000-8999\"]"
    }

    fn of_set(sets: &mut Sets, reader: &mut Reader, name: &str, span: Range<usize>) -> Option<Arc<[Self]>> {
        match sets.used(reader, name, span, Kind::Ports)? {
            Shared::Ports(ports) => Some(ports),
            Shared::Prefixes(_) => None,
        }
    }
}

/// Advice for a name that is none of `names`.
pub(super) fn known(given: &str, names: &[&str], else_do: &str) -> String {
    if names.is_empty() { else_do.to_owned() } else { instead(given, names) }
}
