//! `match`: conditions as they are written. Users, programs and the like are names until a host is asked.

use std::ops::RangeInclusive;
use std::sync::Arc;

use carnet_abi::LINE;
use toml::Spanned;
use toml::de::DeValue;

use crate::file::finding::Id;
use crate::file::prefixes::range;
use crate::file::read::{Keys, Reader, Value, one_or_more, type_name};
use crate::file::sets::{Sets, lists};
use crate::file::source::shown;
use crate::{Condition, Prefix, Protocol};

/// What one `match` says.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    pub protocol: Option<Protocol>,
    pub remote: Condition<Prefix>,
    pub ports: Condition<RangeInclusive<u16>>,
    pub uids: Names<Id32>,
    pub gids: Names<Id32>,
    pub exes: Names<String>,
    pub cgroups: Names<String>,
    pub netns: Names<String>,
    pub via: Names<String>,
}

/// What is to be looked up.
#[derive(Clone, Debug)]
pub(super) struct Names<T> {
    pub only: Option<Vec<Spanned<T>>>,
    pub except: Vec<Spanned<T>>,
}

/// A user or a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Id32 {
    Range(RangeInclusive<u32>),
    Name(String),
}

impl Conditions {
    /// Of the value of `match`.
    pub fn read(reader: &mut Reader, sets: &mut Sets, value: &Value) -> Self {
        let Some(table) = reader.table("match", value, "{ remote-port = 443 }") else { return Self::default() };
        let keys = reader.keys("match", table, value.span(), KEYS);
        let (protocol, no_protocol) = protocol(reader, &keys);
        let mut conditions = Self {
            protocol,
            remote: condition(reader, sets, &keys, "remote", "not-remote"),
            ports: condition(reader, sets, &keys, "remote-port", "not-remote-port"),
            uids: Names::read(reader, &keys, "uid", "not-uid", id32),
            gids: Names::read(reader, &keys, "gid", "not-gid", id32),
            exes: Names::read(reader, &keys, "exe", "not-exe", executable),
            cgroups: Names::read(reader, &keys, "cgroup", "not-cgroup", cgroup),
            netns: Names::read(reader, &keys, "netns", "not-netns", netns),
            via: Names::read(reader, &keys, "via", "not-via", |reader, key, value| name(reader, key, value, "\"dlp\"")),
        };
        if no_protocol {
            // The model has no word for it.
            conditions.ports.only = Some(Vec::new());
        }
        conditions
    }
}

impl<T> Names<T> {
    /// Whether anything is to be looked up.
    pub fn all(&self) -> impl Iterator<Item = &Spanned<T>> {
        self.only.iter().flatten().chain(&self.except)
    }

    fn read(
        reader: &mut Reader,
        keys: &Keys,
        only: &'static str,
        except: &'static str,
        read: impl Fn(&mut Reader, &'static str, &Value) -> Option<T>,
    ) -> Self {
        let mut all = |key: &'static str, value: &Value| {
            let values = one_or_more(value).into_iter();
            values.filter_map(|value| Some(Spanned::new(value.span(), read(reader, key, value)?))).collect()
        };
        Self {
            only: keys.value(only).map(|value| all(only, value)),
            except: keys.value(except).map_or_else(Vec::new, |value| all(except, value)),
        }
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { only: None, except: Vec::new() }
    }
}

fn condition<T: crate::file::sets::Entry>(
    reader: &mut Reader,
    sets: &mut Sets,
    keys: &Keys,
    only: &str,
    except: &str,
) -> Condition<T> {
    let mut lists =
        |key: &str| -> Option<Vec<Arc<[T]>>> { keys.value(key).map(|value| lists(reader, sets, key, value)) };
    Condition { only: lists(only), except: lists(except).unwrap_or_default() }
}

/// Also whether none is left.
fn protocol(reader: &mut Reader, keys: &Keys) -> (Option<Protocol>, bool) {
    let words = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let mut named = |key: &str| {
        let values = keys.value(key).map(one_or_more);
        values.map(|values| values.iter().filter_map(|value| reader.word(key, value, &words)).collect::<Vec<_>>())
    };
    let (only, except) = (named("protocol"), named("not-protocol").unwrap_or_default());
    let holds = |protocol| only.as_ref().is_none_or(|only| only.contains(&protocol)) && !except.contains(&protocol);
    match (holds(Protocol::Tcp), holds(Protocol::Udp)) {
        (true, true) => (None, false),
        (true, false) => (Some(Protocol::Tcp), false),
        (false, true) => (Some(Protocol::Udp), false),
        (false, false) => (None, true),
    }
}

/// A number, a range or a name.
pub(super) fn id32(reader: &mut Reader, key: &str, value: &Value) -> Option<Id32> {
    let text = match value.get_ref() {
        DeValue::Integer(_) => {
            let number = *reader.number(key, value, 0..=u32::MAX - 1)?.get_ref();
            return Some(Id32::Range(number..=number));
        }
        DeValue::String(text) => text,
        other => {
            let what = format!("{} cannot be in {key:?}", type_name(other));
            reader.mistake(Id::WrongType, value.span(), what, format!("write {key} = [\"alice\", 1000]"));
            return None;
        }
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_range = text.split_once('-').is_some_and(|(first, last)| is_number(first.trim()) && is_number(last.trim()));
    if is_number(text) || is_range {
        return match range::<u32>(text, "an id", "1000 or \"1000-1999\"") {
            Ok(range) => Some(Id32::Range(range)),
            Err((what, action)) => {
                reader.mistake(Id::WrongUser, value.span(), what, action);
                None
            }
        };
    }
    if text.is_empty() || text.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':') {
        let what = format!("{:?} is no name, no number and no range", shown(text));
        reader.mistake(Id::WrongUser, value.span(), what, format!("write {key} = \"alice\" or 1000"));
        return None;
    }
    Some(Id32::Name(text.to_string()))
}

fn executable(reader: &mut Reader, key: &'static str, value: &Value) -> Option<String> {
    let example = "\"/usr/bin/curl\"";
    let path = name(reader, key, value, example)?;
    if path.starts_with('/') && !path.ends_with('/') && !path.contains('\0') {
        return Some(path);
    }
    let what = format!("{:?} is no path of a program", shown(&path));
    reader.mistake(Id::WrongPath, value.span(), what, format!("write the whole path, such as {example}"));
    None
}

/// A cgroup's way from the root, without slashes at its end.
pub(super) fn cgroup(reader: &mut Reader, key: &'static str, value: &Value) -> Option<String> {
    let example = "\"/user.slice\"";
    let path = name(reader, key, value, example)?;
    let steps: Vec<_> = path.split('/').filter(|step| !step.is_empty()).collect();
    let action = if let Some(inside) = path.strip_prefix("/sys/fs/cgroup/") {
        format!(
            "leave out where cgroups are mounted: \"/{}\"",
            shown(inside.strip_prefix("unified/").unwrap_or(inside))
        )
    } else if !path.starts_with('/') || path.contains('\0') || steps.iter().any(|step| matches!(*step, "." | "..")) {
        format!("write the way from the root cgroup, such as {example}")
    } else if steps.len() > LINE {
        let what =
            format!("the cgroup {:?} is {} levels deep, at most {LINE} are looked at", shown(&path), steps.len());
        let above = shown(&steps[..LINE].join("/"));
        reader.mistake(Id::TooDeep, value.span(), what, format!("name one above it, such as \"/{above}\""));
        return None;
    } else {
        return Some(format!("/{}", steps.join("/")));
    };
    reader.mistake(Id::WrongPath, value.span(), format!("{:?} is no path of a cgroup", shown(&path)), action);
    None
}

/// A name, of which the file is in `/run/netns`, or a file.
fn netns(reader: &mut Reader, key: &'static str, value: &Value) -> Option<String> {
    let example = "\"blue\"";
    let netns = name(reader, key, value, example)?;
    let is_path = netns.starts_with('/') && !netns.ends_with('/');
    if (is_path || !netns.contains('/')) && !netns.contains('\0') && !matches!(&netns[..], "." | "..") {
        return Some(netns);
    }
    let what = format!("{:?} is no network namespace", shown(&netns));
    let action = format!("write the name of one, such as {example}, or a whole path such as \"/run/netns/blue\"");
    reader.mistake(Id::WrongPath, value.span(), what, action);
    None
}

/// A text that is not empty.
fn name(reader: &mut Reader, key: &str, value: &Value, example: &str) -> Option<String> {
    let text = match value.get_ref() {
        DeValue::String(text) => text,
        other => {
            let what = format!("{} cannot be in {key:?}", type_name(other));
            reader.mistake(Id::WrongType, value.span(), what, format!("write {key} = {example}"));
            return None;
        }
    };
    if text.is_empty() {
        reader.mistake(Id::WrongName, value.span(), format!("{key:?} is empty"), format!("write {key} = {example}"));
        return None;
    }
    Some(text.to_string())
}

const KEYS: &[&str] = &[
    "protocol",
    "remote",
    "remote-port",
    "uid",
    "gid",
    "exe",
    "cgroup",
    "netns",
    "via",
    "not-protocol",
    "not-remote",
    "not-remote-port",
    "not-uid",
    "not-gid",
    "not-exe",
    "not-cgroup",
    "not-netns",
    "not-via",
];
