//! Lists that a policy has in files of their own, put into its text.
//!
//! The daemon reads the files of others for root alone, and from its own folder. So each set's `file` becomes `prefixes` or
//! `ports`, in its place and on its line: all other lines stay what they are, and with them the places of mistakes.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use carnet_policy::file::{Loader, PolicyFile};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The text with all lists in it. It has no mistake.
pub fn inlined(text: &str, loader: &dyn Loader) -> Result<String> {
    let mut edits = edits(text, loader)?;
    if edits.is_empty() {
        return Ok(text.to_owned());
    }
    edits.sort_by_key(|edit| edit.at.start);
    let mut inlined = String::new();
    let mut done = 0;
    for edit in edits {
        inlined.push_str(text.get(done..edit.at.start).unwrap_or_default());
        inlined.push_str(&edit.by);
        done = edit.at.end;
    }
    inlined.push_str(text.get(done..).unwrap_or_default());
    // TOML can be written in many ways, and this knows those that people use.
    if let Err(mistakes) = PolicyFile::parse("", &inlined, &NoFiles) {
        bail!("the lists in files of their own cannot be put into the policy's text; write them into it ({mistakes})");
    }
    Ok(inlined)
}

/// What comes in the place of what.
struct Edit {
    at: Range<usize>,
    by: String,
}

fn edits(text: &str, loader: &dyn Loader) -> Result<Vec<Edit>> {
    let mut edits = Vec::new();
    let Ok(table) = DeTable::parse(text) else { return Ok(edits) };
    let sets = table.get_ref().get("sets").and_then(|sets| sets.get_ref().as_table());
    for (name, set) in sets.into_iter().flatten() {
        let Some(set) = set.get_ref().as_table() else { continue };
        let Some((key, value)) = set.get_key_value("file") else { continue };
        let Some(path) = value.get_ref().as_str() else { continue };
        let list = loader.load(Path::new(path)).with_context(|| format!("cannot read {path}"))?;
        let entries: Vec<&str> = entries(&list).collect();
        let own = ["prefixes", "ports"].into_iter().find_map(|kind| set.get(kind));
        match own {
            Some(own) => {
                edits.push(added(own, &entries));
                edits.push(removed(text, key.span().start..value.span().end));
            }
            None => {
                let kind = if are_ports(&entries, table.get_ref(), name.get_ref()) { "ports" } else { "prefixes" };
                edits.push(Edit { at: key.span(), by: kind.into() });
                edits.push(Edit { at: value.span(), by: format!("[{}]", quoted(&entries)) });
            }
        }
    }
    Ok(edits)
}

/// As `carnet_policy` reads such a file.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    let list = list.strip_prefix('\u{feff}').unwrap_or(list);
    let content = |line: &'_ str| line.split_once('#').map_or(line.len(), |(content, _)| content.len());
    list.split('\n').map(move |line| line[..content(line)].trim()).filter(|entry| !entry.is_empty())
}

fn quoted(entries: &[&str]) -> String {
    let mut text = String::with_capacity(entries.iter().map(|entry| entry.len() + 4).sum());
    for entry in entries {
        text.push_str(if text.is_empty() { "\"" } else { ", \"" });
        text.push_str(entry);
        text.push('"');
    }
    text
}

/// Before the entries that the set has in the policy itself.
fn added(own: &Spanned<DeValue<'_>>, entries: &[&str]) -> Edit {
    let Range { start, end } = own.span();
    match own.get_ref() {
        DeValue::Array(_) if entries.is_empty() => Edit { at: start..start, by: String::new() },
        DeValue::Array(_) => Edit { at: start + 1..start + 1, by: quoted(entries) + ", " },
        // One entry: it becomes the last of a list.
        DeValue::String(text) => Edit { at: start..end, by: format!("[{}]", quoted(&[entries, &[text]].concat())) },
        DeValue::Integer(number) => {
            Edit { at: start..end, by: format!("[{}]", quoted(&[entries, &[number.as_str()]].concat())) }
        }
        _ => Edit { at: start..start, by: String::new() },
    }
}

/// Without a key and its value, and without a comma too many in an inline table.
fn removed(text: &str, pair: Range<usize>) -> Edit {
    let before = text[..pair.start].rfind(['{', ',', '\n']).map_or(0, |at| at + 1);
    // A dotted key begins before its last part.
    let mut at = before..pair.end;
    let behind = text[pair.end..].trim_start_matches([' ', '\t']);
    if let Some(rest) = behind.strip_prefix(',') {
        at.end = text.len() - rest.len();
    } else if text[..before].ends_with(',') {
        at.start = before - 1;
    }
    Edit { at, by: String::new() }
}

/// What a set is of that has nothing but its file: told by an entry, or where it is used.
fn are_ports(entries: &[&str], policy: &DeTable<'_>, name: &str) -> bool {
    match entries.first() {
        Some(entry) => !entry.contains(['.', ':']),
        None => tables(policy, "provider")
            .flat_map(|provider| tables(provider, "filter"))
            .chain(tables(policy, "filter"))
            .filter_map(|filter| filter.get("match")?.get_ref().as_table())
            .any(|matches| ["remote-port", "not-remote-port"].iter().any(|key| is_used(matches, key, name))),
    }
}

fn tables<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> impl Iterator<Item = &'t DeTable<'i>> {
    let all = match table.get(key).map(Spanned::get_ref) {
        Some(DeValue::Array(tables)) => tables.iter().filter_map(|table| table.get_ref().as_table()).collect(),
        Some(DeValue::Table(table)) => vec![table],
        _ => Vec::new(),
    };
    all.into_iter()
}

fn is_used(matches: &DeTable<'_>, key: &str, name: &str) -> bool {
    let is_it = |value: &DeValue<'_>| value.as_str().and_then(|text| text.strip_prefix('@')) == Some(name);
    match matches.get(key).map(Spanned::get_ref) {
        Some(DeValue::Array(values)) => values.iter().any(|value| is_it(value.get_ref())),
        Some(value) => is_it(value),
        None => false,
    }
}

/// Nothing is to be read any more.
struct NoFiles;

impl Loader for NoFiles {
    fn load(&self, _: &Path) -> std::io::Result<String> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use carnet_policy::Condition;
    use carnet_policy::file::Nowhere;

    use super::*;

    struct Files;

    impl Loader for Files {
        fn load(&self, path: &Path) -> io::Result<String> {
            match path.to_str().unwrap() {
                "prefixes" => Ok("\u{feff}# all\r\n10.0.0.0/8 # inside\r\n\r\n2001:db8::/32".into()),
                "ports" => Ok("443\n8000-8999\n".into()),
                "empty" => Ok("# nothing\n".into()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    /// The policy of a text, with sets' files or without, and its sets in an order of their own.
    fn policy(text: &str, loader: &dyn Loader) -> carnet_policy::Policy {
        let read = PolicyFile::read("p", text, loader, &Nowhere);
        let mut policy = read.unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}")).1.policy;
        for filter in &mut policy.filters {
            sort(&mut filter.matches.remote);
            sort(&mut filter.matches.ports);
        }
        policy
    }

    fn sort<T: Clone + std::fmt::Debug>(condition: &mut Condition<T>) {
        for list in condition.only.iter_mut().flatten() {
            let mut sorted = list.to_vec();
            sorted.sort_by_key(|entry| format!("{entry:?}"));
            *list = Arc::from(sorted);
        }
    }

    #[test]
    fn the_policy_is_the_same_and_so_are_its_lines() {
        let uses = "[[filter]]\nname = \"f\"\naction = \"block\"\nmatch = { remote = \"@a\", remote-port = \"@b\" }\n";
        for sets in [
            "[sets.a]\nfile = \"prefixes\"\n[sets.b]\nfile = \"ports\"\n",
            "[sets.a] # one\nfile = \"prefixes\" # two\nprefixes = [\"192.0.2.1\"]\n[sets.b]\nports = [1, \"2-3\"]\nfile = 'ports'\n",
            "[sets]\na = { file = \"prefixes\", prefixes = [] }\nb = { ports = 7, file = \"ports\" }\n",
            "[sets]\na = { prefixes = \"192.0.2.1\" , file = \"prefixes\" }\nb.file = \"ports\"\nb.ports = [\n  1,\n  2,\n]\n",
            "sets = { a.file = \"prefixes\", a.prefixes = [\"192.0.2.1\"], b = { \"file\" = \"empty\" } }\n",
            "sets.a.prefixes = [\"192.0.2.1\"]\nsets.a.file = \"prefixes\"\nsets.b.\"file\" = \"\"\"ports\"\"\"\n",
            "[sets.a]\nfile = \"empty\"\n[sets.b]\nfile = \"empty\"\nports = [1]\n",
            "[sets.a]\nfile = \"empty\"\n[sets.b]\nfile = \"empty\"\n",
        ] {
            let text = format!("{sets}{uses}");
            let inlined = inlined(&text, &Files).unwrap();
            assert!(!inlined.contains("file ="), "{inlined}");
            assert_eq!(policy(&inlined, &NoFiles), policy(&text, &Files), "{inlined}");
            assert_eq!(inlined.lines().count(), text.lines().count());
            for (number, (line, before)) in inlined.lines().zip(text.lines()).enumerate() {
                assert!(line == before || number < sets.lines().count(), "{line}");
            }
        }
    }

    #[test]
    fn a_text_without_files_stays_as_it_is() {
        let text = "# file = \"x\"\n[sets.a]\nprefixes = [\"10.0.0.0/8\"]\n";
        assert_eq!(inlined(text, &NoFiles).unwrap(), text);
    }
}
