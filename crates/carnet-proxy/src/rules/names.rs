//! `[names.NAME]`: lists of names, and where rules use them.

use std::{collections::BTreeMap, path::Path};

use toml::Spanned;

use super::{
    index::Lists,
    mistake::{Kind, Mistake},
    nearest::instead,
    pattern::Pattern,
    read::{Keys, Reader, Value, Wrong, one_or_more},
    source::{Source, shown},
};

/// The lists of a file, by their names.
#[derive(Debug, Default)]
pub(super) struct NamedLists {
    by_name: BTreeMap<String, u32>,
}

impl NamedLists {
    pub(super) fn read(reader: &mut Reader, lists: &mut Lists, value: &Value, folder: &Path) -> Self {
        let example = "begin each with a header: [names.ads]";
        let Some(table) = value.get_ref().as_table() else {
            reader.mistake(Kind::WrongType, value.span(), "\"names\" is a table of lists", example);
            return Self::default();
        };
        let mut named = Self::default();
        for (name, value) in table {
            let Some(keys) = reader.keys("a list of names", value, KEYS, example) else { continue };
            if keys.value("names").is_none() && keys.value("file").is_none() {
                let what = format!("the list {:?} has no names", shown(name.get_ref()));
                let action = "add names = [\"example.org\"] or file = \"names.txt\"";
                reader.mistake(Kind::MissingKey, name.span(), what, action);
            }
            let mut patterns = reader.values(&keys, "names", in_list).unwrap_or_default();
            patterns.extend(of_file(reader, &keys, folder));
            let with_below = reader.flag(&keys, "subdomains");
            named.by_name.insert(name.get_ref().to_string(), lists.add(patterns, with_below));
        }
        named
    }

    /// Of the value of a rule's `name`: how many lists it has.
    pub(super) fn condition(&self, reader: &mut Reader, lists: &mut Lists, rule: u32, value: &Value) -> usize {
        let mut own = Vec::new();
        let mut used = Vec::new();
        for value in one_or_more(value) {
            match value.get_ref().as_str().and_then(|text| text.strip_prefix('@')) {
                Some(name) => used.extend(self.named(reader, value, name)),
                None => own.extend(pattern(reader, "name", value)),
            }
        }
        if !own.is_empty() {
            used.push(lists.add(own, false));
        }
        used.iter().for_each(|list| lists.used(*list, rule));
        used.len()
    }

    fn named(&self, reader: &mut Reader, value: &Value, name: &str) -> Option<u32> {
        let list = self.by_name.get(name).copied();
        if list.is_none() {
            let near: Vec<String> = self.by_name.keys().map(|name| format!("@{name}")).collect();
            let action = match near.is_empty() {
                true => format!("define it: [names.{}]", shown(name)),
                false => instead(&format!("@{name}"), near.iter().map(|name| &**name)),
            };
            let what = format!("there is no list of names {:?}", shown(name));
            reader.mistake(Kind::UnknownNames, value.span(), what, action);
        }
        list
    }
}

fn in_list(reader: &mut Reader, value: &Value) -> Option<Pattern> {
    if value.get_ref().as_str().is_some_and(|text| text.starts_with('@')) {
        let action = "name both lists where this one is used";
        reader.mistake(Kind::WrongName, value.span(), "a list cannot be in another list", action);
        return None;
    }
    pattern(reader, "names", value)
}

fn pattern(reader: &mut Reader, key: &str, value: &Value) -> Option<Pattern> {
    let text = reader.text(key, value, "[\"example.org\", \"*.example.org\"]")?;
    Pattern::parse(text).map_err(|(what, action)| reader.mistake(Kind::WrongName, value.span(), what, action)).ok()
}

fn of_file(reader: &mut Reader, keys: &Keys, folder: &Path) -> Vec<Pattern> {
    let Some(value) = keys.value("file") else { return Vec::new() };
    let Some(file) = reader.line("file", value, "\"names.txt\"") else { return Vec::new() };
    let path = folder.join(file);
    match reader.host.read(&path) {
        Ok(text) => lines(&path.display().to_string(), &text, &mut reader.mistakes),
        Err(error) => {
            let action = "a path is relative to the rules file, or absolute";
            let what = format!("cannot read {:?}: {error}", shown(file));
            reader.mistake(Kind::UnreadableFile, value.span(), what, action);
            Vec::new()
        }
    }
}

/// One in each line. What is behind a `#` is a comment.
fn lines(file: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    let mut wrong: Vec<Spanned<Wrong>> = Vec::new();
    let mut more = 0_usize;
    let mut start = text.len() - text.trim_start_matches('\u{feff}').len();
    for line in text[start..].split('\n') {
        let entry = line.split_once('#').map_or(line, |(entry, _)| entry);
        let indent = entry.len() - entry.trim_start().len();
        let (at, entry) = (start + indent, entry.trim());
        start += line.len() + 1;
        if entry.is_empty() {
            continue;
        }
        match Pattern::parse(entry) {
            Ok(pattern) => patterns.push(pattern),
            Err(_) if wrong.len() == MOST_WRONG => more += 1,
            Err(why) => wrong.push(Spanned::new(at..at + entry.len(), why)),
        }
    }
    if !wrong.is_empty() {
        let source = Source::new(file, text);
        let last = wrong.len() - 1;
        mistakes.extend(wrong.into_iter().enumerate().map(|(index, wrong)| {
            let place = source.place(wrong.span());
            let (mut what, action) = wrong.into_inner();
            if index == last && more > 0 {
                what += &format!("; {more} more lines are wrong, too");
            }
            Mistake::new(Kind::WrongName, place, what, action)
        }));
    }
    patterns
}

const KEYS: &[&str] = &["names", "file", "subdomains"];

/// Wrong lines of one file that are told one by one.
const MOST_WRONG: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_in_each_line() {
        let mut mistakes = Vec::new();
        let text = "\u{feff}example.org\r\n# all\r\n\r\n  *.example.net # ads\r\nb c\n x..y #";
        let patterns = lines("f", text, &mut mistakes);
        let suffixes: Vec<_> = patterns.iter().map(|pattern| &*pattern.suffix).collect();
        assert_eq!(suffixes, ["example.org", "example.net"]);
        let places: Vec<_> =
            mistakes.iter().map(|m| (m.place.line, m.place.column, &text[m.place.span.clone()])).collect();
        assert_eq!(places, [(5, 1, "b c"), (6, 2, "x..y")]);
    }

    #[test]
    fn of_very_many_wrong_lines_the_last_are_counted() {
        let mut mistakes = Vec::new();
        lines("f", &"a..b\n".repeat(1234), &mut mistakes);
        assert_eq!(mistakes.len(), MOST_WRONG);
        assert!(mistakes[MOST_WRONG - 1].what.ends_with("; 1134 more lines are wrong, too"));
    }
}
