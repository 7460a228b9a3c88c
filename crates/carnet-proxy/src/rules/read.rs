//! Reads keys and values of TOML, and says what is wrong with each.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Host,
    mistake::{Kind, Mistake},
    nearest::instead,
    source::{Source, shown},
};

/// Reads one file, and keeps what is wrong with it.
pub(super) struct Reader<'s> {
    pub(super) source: &'s Source<'s>,
    pub(super) host: &'s dyn Host,
    pub(super) mistakes: Vec<Mistake>,
}

/// A value and where it is.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// What is wrong with a text, and what to write instead.
pub(super) type Wrong = (String, String);

/// A table whose keys are known ones.
pub(super) struct Keys<'t, 'i> {
    /// What it is, with its article.
    what: &'static str,
    table: &'t DeTable<'i>,
    pub(super) span: Range<usize>,
}

impl Reader<'_> {
    pub(super) fn mistake(&mut self, kind: Kind, at: Range<usize>, what: impl Into<String>, action: impl Into<String>) {
        self.mistakes.push(Mistake::new(kind, self.source.place(at), what, action));
    }

    /// Something that is there already.
    pub(super) fn twice(&mut self, at: Range<usize>, first: Range<usize>, what: String, action: &str) {
        let mistake = Mistake::new(Kind::Duplicate, self.source.place(at), what, action);
        self.mistakes.push(Mistake { also: Some((self.source.place(first), "the first is here")), ..mistake });
    }

    /// The table of a value, after all its keys have been looked at.
    pub(super) fn keys<'t, 'i>(
        &mut self,
        what: &'static str,
        value: &'t Value<'i>,
        known: &[&'static str],
        example: &str,
    ) -> Option<Keys<'t, 'i>> {
        let Some(table) = value.get_ref().as_table() else {
            let is = type_name(value.get_ref());
            self.mistake(Kind::WrongType, value.span(), format!("{what} is a table, not {is}"), example);
            return None;
        };
        Some(self.keys_of(what, table, value.span(), known))
    }

    pub(super) fn keys_of<'t, 'i>(
        &mut self,
        what: &'static str,
        table: &'t DeTable<'i>,
        span: Range<usize>,
        known: &[&'static str],
    ) -> Keys<'t, 'i> {
        for key in table.keys().filter(|key| !known.contains(&&**key.get_ref())) {
            let action = instead(key.get_ref(), known.iter().copied());
            self.mistake(Kind::UnknownKey, key.span(), format!("{what} has no key {:?}", shown(key.get_ref())), action);
        }
        Keys { what, table, span }
    }

    /// The value of a key that has to be there.
    pub(super) fn required<'t, 'i>(&mut self, keys: &Keys<'t, 'i>, key: &str, example: &str) -> Option<&'t Value<'i>> {
        let value = keys.value(key);
        if value.is_none() {
            let what = format!("{} needs {key:?}", keys.what);
            self.mistake(Kind::MissingKey, keys.span.clone(), what, format!("add {key} = {example}"));
        }
        value
    }

    pub(super) fn text<'t>(&mut self, key: &str, value: &'t Value, example: &str) -> Option<&'t str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => self.wrong_type(key, value, "a text", example),
        }
    }

    /// A text of one line that is not empty and not too long.
    pub(super) fn line<'t>(&mut self, key: &str, value: &'t Value, example: &str) -> Option<&'t str> {
        let text = self.text(key, value, example)?;
        let what = if text.trim().is_empty() {
            format!("{key:?} is empty")
        } else if text.contains(char::is_control) {
            format!("{key:?} is one line of text")
        } else if text.chars().count() > LONGEST_LINE {
            format!("{key:?} has more than {LONGEST_LINE} characters")
        } else {
            return Some(text);
        };
        self.mistake(Kind::WrongText, value.span(), what, format!("write {key} = {example}"));
        None
    }

    pub(super) fn boolean(&mut self, key: &str, value: &Value) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(boolean) => Some(*boolean),
            _ => self.wrong_type(key, value, "true or false", "true"),
        }
    }

    /// `true` where the key is there and says so.
    pub(super) fn flag(&mut self, keys: &Keys, key: &str) -> bool {
        keys.value(key).and_then(|value| self.boolean(key, value)).unwrap_or_default()
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, value: &Value, words: &[(&'static str, T)]) -> Option<T> {
        let names = words.iter().map(|(name, _)| *name);
        let example = format!("{:?}", names.clone().next().unwrap_or_default());
        let text = self.text(key, value, &example)?;
        let found = words.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let what = format!("{key:?} cannot be {:?}", shown(text));
            self.mistake(Kind::UnknownWord, value.span(), what, instead(text, names));
        }
        found.map(|(_, word)| *word)
    }

    /// What a condition's values are, those that are right; `None` where the key is not there.
    pub(super) fn values<T>(
        &mut self,
        keys: &Keys,
        key: &str,
        mut read: impl FnMut(&mut Self, &Value) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = keys.value(key)?;
        Some(one_or_more(value).into_iter().filter_map(|value| read(self, value)).collect())
    }

    /// What `parse` makes of a value that is a text, or a number that may be written as one.
    pub(super) fn parsed<T>(
        &mut self,
        kind: Kind,
        key: &str,
        value: &Value,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let parsed = match value.get_ref() {
            DeValue::String(text) => parse(text),
            DeValue::Integer(number) if number.radix() == 10 => parse(number.as_str()),
            other => {
                let what = format!("{} cannot be in {key:?}", type_name(other));
                self.mistake(Kind::WrongType, value.span(), what, format!("write {key} = {example}"));
                return None;
            }
        };
        parsed.map_err(|(what, action)| self.mistake(kind, value.span(), what, action)).ok()
    }

    pub(super) fn wrong_type<T>(&mut self, key: &str, value: &Value, expected: &str, example: &str) -> Option<T> {
        let what = format!("{key:?} is {expected}, not {}", type_name(value.get_ref()));
        self.mistake(Kind::WrongType, value.span(), what, format!("write {key} = {example}"));
        None
    }
}

impl<'t, 'i> Keys<'t, 'i> {
    pub(super) fn value(&self, key: &str) -> Option<&'t Value<'i>> {
        self.table.get(key)
    }

    /// Where the key itself is.
    pub(super) fn key_span(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or_else(|| self.span.clone(), |(key, _)| key.span())
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
fn type_name(value: &DeValue) -> &'static str {
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

const LONGEST_LINE: usize = 200;
