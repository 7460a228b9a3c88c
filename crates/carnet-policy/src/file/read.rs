//! Reads keys and values of TOML, and says what is wrong with each.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::file::Loader;
use crate::file::finding::{Finding, Id};
use crate::file::nearest::{instead, one_of};
use crate::file::source::{Texts, shown};

/// Reads one file, and keeps what is wrong with it.
pub(super) struct Reader<'s> {
    pub texts: &'s Texts,
    pub loader: &'s dyn Loader,
    pub findings: Vec<Finding>,
}

/// A value and where it is.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A table whose keys are known ones.
pub(super) struct Keys<'t, 'i> {
    /// What it is, with its article.
    what: &'static str,
    table: &'t DeTable<'i>,
    span: Range<usize>,
}

impl<'s> Reader<'s> {
    pub fn new(texts: &'s Texts, loader: &'s dyn Loader) -> Self {
        Self { texts, loader, findings: Vec::new() }
    }

    /// Notes a mistake.
    pub fn mistake(&mut self, id: Id, span: Range<usize>, what: impl Into<String>, action: impl Into<String>) {
        self.findings.push(Finding::new(id, self.texts.place(span), what, action));
    }

    /// The table, after all its keys have been looked at.
    pub fn keys<'t, 'i>(
        &mut self,
        what: &'static str,
        table: &'t DeTable<'i>,
        span: Range<usize>,
        known: &[&'static str],
    ) -> Keys<'t, 'i> {
        for key in table.keys().filter(|key| !known.contains(&&**key.get_ref())) {
            let name = shown(key.get_ref());
            let action = match &**key.get_ref() {
                "handle" if what == PROVIDER => "leave it out: the engine counts handles".to_owned(),
                key => instead(key, known),
            };
            self.mistake(Id::UnknownKey, key.span(), format!("{what} has no key {name:?}"), action);
        }
        Keys { what, table, span }
    }

    /// The value of a key that has to be there.
    pub fn required<'t, 'i>(&mut self, keys: &Keys<'t, 'i>, key: &str, example: &str) -> Option<&'t Value<'i>> {
        let value = keys.value(key);
        if value.is_none() {
            let what = format!("{} needs {key:?}", keys.what);
            self.mistake(Id::MissingKey, keys.span.clone(), what, format!("add {key} = {example}"));
        }
        value
    }

    /// The table that a key has for a value.
    pub fn table<'t, 'i>(&mut self, key: &str, value: &'t Value<'i>, example: &str) -> Option<&'t DeTable<'i>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => self.wrong_type(key, value, "a table", example),
        }
    }

    /// A text.
    pub fn text<'t>(&mut self, key: &str, value: &'t Value, example: &str) -> Option<Spanned<&'t str>> {
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(value.span(), text)),
            _ => self.wrong_type(key, value, "a text", example),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &str, value: &Value) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(boolean) => Some(*boolean),
            DeValue::String(text) if matches!(&**text, "true" | "false") => {
                let action = format!("write {key} = {text}, without quotes");
                self.mistake(Id::WrongType, value.span(), format!("{key:?} is true or false, not a text"), action);
                None
            }
            _ => self.wrong_type(key, value, "true or false", "true"),
        }
    }

    /// A whole number of a range.
    pub fn number<T>(&mut self, key: &str, value: &Value, range: RangeInclusive<T>) -> Option<Spanned<T>>
    where
        T: Copy + Display + PartialOrd + TryFrom<i64>,
    {
        let number = match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(text) if text.parse::<i64>().is_ok() => {
                let action = format!("write {key} = {text}, without quotes");
                self.mistake(Id::WrongType, value.span(), format!("{key:?} is a number, not a text"), action);
                return None;
            }
            _ => return self.wrong_type(key, value, "a number", &range.start().to_string()),
        };
        let number = number.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            let what = format!("{key:?} is a number from {} to {}", range.start(), range.end());
            self.mistake(Id::WrongNumber, value.span(), what, "");
        }
        Some(Spanned::new(value.span(), number?))
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, key: &str, value: &Value, words: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
        let text = self.text(key, value, &format!("{:?}", names.first().copied().unwrap_or_default()))?;
        let found = words.iter().find(|(name, _)| name == text.get_ref());
        if found.is_none() {
            let what = format!("{key:?} cannot be {:?}", shown(text.get_ref()));
            self.mistake(Id::UnknownWord, value.span(), what, one_of(text.get_ref(), &names));
        }
        found.map(|(_, word)| *word)
    }

    /// What is not of the type that it must be.
    pub fn wrong_type<T>(&mut self, key: &str, value: &Value, expected: &str, example: &str) -> Option<T> {
        let what = format!("{key:?} is {expected}, not {}", type_name(value.get_ref()));
        self.mistake(Id::WrongType, value.span(), what, format!("write {key} = {example}"));
        None
    }
}

impl<'t, 'i> Keys<'t, 'i> {
    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&'t Value<'i>> {
        self.table.get(key)
    }

    /// Where the key itself is.
    pub fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }

    /// Where the table is.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

/// A list's values, or the one value.
pub(super) fn one_or_more<'t, 'i>(value: &'t Value<'i>) -> Vec<&'t Value<'i>> {
    match value.get_ref() {
        DeValue::Array(values) => values.iter().collect(),
        _ => vec![value],
    }
}

/// With its article.
pub(super) fn type_name(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What a provider's table is called.
pub(super) const PROVIDER: &str = "a provider";
