//! `[[rule]]` and `[default]` as they are written.

use std::{
    collections::HashMap,
    net::IpAddr,
    ops::{Range, RangeInclusive},
    path::PathBuf,
};

use toml::de::DeValue;

use super::{
    Protocol, Rate, TokenBucket,
    conditions::{Conditions, Early, Late, Sorted},
    decision::{Action, Block, Outcome, Refusal, Rule, Unread},
    index::Lists,
    mistake::Kind,
    names::NamedLists,
    ranges::{Prefixes, Ranges, ports, prefix, range},
    rate,
    read::{Keys, Reader, Value},
    source::shown,
    upstream::Upstreams,
};

/// What rules refer to, and what is known of them so far.
pub(super) struct Context {
    pub(super) lists: Lists,
    pub(super) names: NamedLists,
    pub(super) upstreams: Upstreams,
    /// Where each id was first.
    pub(super) ids: HashMap<String, Range<usize>>,
}

impl Rule {
    /// `None` where its action is wrong, or it is no table.
    pub(super) fn read(reader: &mut Reader, context: &mut Context, index: usize, value: &Value) -> Option<Self> {
        let known = [&["id"], CONDITIONS, OUTCOME].concat();
        let keys = reader.keys("a rule", value, &known, "begin each with a header: [[rule]]")?;
        let id = keys.value("id").and_then(|value| id(reader, context, value));
        let conditions = conditions(reader, context, index, &keys);
        let outcome = outcome(reader, &context.upstreams, &keys);
        Some(Self { index, line: reader.source.line_of(value.span().start), id, outcome: outcome?, conditions })
    }
}

/// Of the value of `default`.
pub(super) fn default(reader: &mut Reader, upstreams: &Upstreams, value: &Value) -> Option<Outcome> {
    let keys = reader.keys("the default", value, OUTCOME, "write [default], and below it action = \"allow\"")?;
    outcome(reader, upstreams, &keys)
}

fn id(reader: &mut Reader, context: &mut Context, value: &Value) -> Option<String> {
    let id = reader.line("id", value, "\"ads\"")?.to_owned();
    match context.ids.get(&id) {
        Some(first) => {
            reader.twice(value.span(), first.clone(), format!("two rules have the id {:?}", shown(&id)), "rename one");
        }
        None => {
            context.ids.insert(id.clone(), value.span());
        }
    }
    Some(id)
}

fn conditions(reader: &mut Reader, context: &mut Context, index: usize, keys: &Keys) -> Conditions {
    let Context { names, lists, .. } = context;
    let name_lists = keys.value("name").map(|value| names.condition(reader, lists, index as u32, value));
    let early = Early {
        to: reader.values(keys, "to", to).map(|prefixes| Prefixes::of(&prefixes)),
        ports: reader
            .values(keys, "ports", |reader, value| {
                reader.parsed(Kind::WrongPort, "ports", value, "[443, \"8000-8999\"]", ports)
            })
            .map(Ranges::of),
        uids: reader.values(keys, "uid", uid).map(Ranges::of),
        exes: reader.values(keys, "exe", exe).map(Sorted::of),
        cgroups: reader.values(keys, "cgroup", cgroup).map(Sorted::of),
    };
    let late = Late {
        protocols: reader.values(keys, "protocol", protocol).map(Sorted::of),
        alpn: reader
            .values(keys, "alpn", |reader, value| reader.line("alpn", value, "[\"h2\"]").map(str::to_owned))
            .map(Sorted::of),
        ja4: reader.values(keys, "ja4", ja4).map(Sorted::of),
        ech: keys.value("ech").and_then(|value| reader.boolean("ech", value)),
    };
    Conditions { early, late, name_lists }
}

fn to(reader: &mut Reader, value: &Value) -> Option<(IpAddr, u8)> {
    reader.parsed(Kind::WrongPrefix, "to", value, "[\"10.0.0.0/8\", \"2001:db8::/32\"]", prefix)
}

/// A number, a range, or a name of which the host knows the number.
fn uid(reader: &mut Reader, value: &Value) -> Option<RangeInclusive<u32>> {
    let example = "[\"alice\", 1000, \"1000-1999\"]";
    let name = match value.get_ref() {
        DeValue::String(text) if text.starts_with(|c: char| c.is_ascii_digit()) || text.is_empty() => None,
        DeValue::String(text) => Some(&**text),
        _ => None,
    };
    let Some(name) = name else {
        let parse = |text: &str| range::<u32>(text, "a uid", example);
        return reader.parsed(Kind::WrongUser, "uid", value, example, parse);
    };
    match reader.host.uid(name) {
        Ok(Some(uid)) => return Some(uid..=uid),
        Ok(None) => {
            let what = format!("this host has no user {:?}", shown(name));
            reader.mistake(Kind::UnknownUser, value.span(), what, "look at its name, or write its number");
        }
        Err(error) => {
            let what = format!("cannot look up the user {:?}: {error}", shown(name));
            reader.mistake(Kind::UnknownUser, value.span(), what, "write its number");
        }
    }
    None
}

fn exe(reader: &mut Reader, value: &Value) -> Option<PathBuf> {
    let example = "\"/usr/bin/curl\"";
    let path = reader.text("exe", value, example)?;
    if path.starts_with('/') && !path.ends_with('/') && !path.contains('\0') {
        return Some(path.into());
    }
    let what = format!("{:?} is no path of a program", shown(path));
    reader.mistake(Kind::WrongPath, value.span(), what, format!("write the whole path, such as {example}"));
    None
}

fn cgroup(reader: &mut Reader, value: &Value) -> Option<String> {
    let example = "\"/user.slice\"";
    let path = reader.text("cgroup", value, example)?;
    let is_path = path.starts_with('/') && !path.contains('\0');
    let action = if let Some(inside) = path.strip_prefix("/sys/fs/cgroup/") {
        format!("leave out where cgroups are mounted: \"/{}\"", shown(inside))
    } else if !is_path || path.split('/').any(|step| matches!(step, "." | "..")) || path.contains("//") {
        format!("write the way from the root cgroup, such as {example}")
    } else {
        return Some(path.trim_end_matches('/').to_owned());
    };
    reader.mistake(Kind::WrongPath, value.span(), format!("{:?} is no path of a cgroup", shown(path)), action);
    None
}

fn protocol(reader: &mut Reader, value: &Value) -> Option<Option<Protocol>> {
    if value.get_ref().as_str() == Some("https") {
        reader.mistake(Kind::UnknownWord, value.span(), "\"protocol\" cannot be \"https\"", "write \"tls\"");
        return None;
    }
    reader.word("protocol", value, PROTOCOLS)
}

fn ja4(reader: &mut Reader, value: &Value) -> Option<String> {
    let example = "\"t13d1516h2_8daaf6152771_b186095e22b6\"";
    let text = reader.text("ja4", value, example)?;
    let parts: Vec<&str> = text.split('_').collect();
    let is_hash = |part: &str| part.len() == 12 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if let [first, ciphers, extensions] = parts[..]
        && first.len() == 10
        && first.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && is_hash(ciphers)
        && is_hash(extensions)
    {
        return Some(text.to_owned());
    }
    let what = format!("{:?} is no JA4 fingerprint", shown(text));
    let action = format!("write the whole of one, in lower case, such as {example}");
    reader.mistake(Kind::WrongFingerprint, value.span(), what, action);
    None
}

/// `None` where it is not known what happens.
fn outcome(reader: &mut Reader, upstreams: &Upstreams, keys: &Keys) -> Option<Outcome> {
    let action = reader.required(keys, "action", "\"allow\"").and_then(|value| action(reader, value));
    let blocks = [("403", Block::Forbidden), ("alert", Block::Alert), ("reset", Block::Reset)];
    let block = keys.value("block").and_then(|value| reader.word("block", value, &blocks)).unwrap_or_default();
    let reason = keys.value("reason").and_then(|value| reader.line("reason", value, "\"no ads\""));
    let outcome = Outcome {
        action: action.unwrap_or_default(),
        refusal: Refusal { block, reason: reason.map(str::to_owned) },
        log: reader.flag(keys, "log"),
        tap: reader.flag(keys, "tap"),
        rate: rate(reader, keys).map(TokenBucket::new),
        upstream: keys.value("upstream").and_then(|value| upstreams.named(reader, value)),
        unread: keys.value("unread").and_then(|value| reader.word("unread", value, UNREAD)).unwrap_or_default(),
    };
    let (misplaced, what, advice) = match action? {
        Action::Block => {
            let keys = &["tap", "rate", "upstream"][..];
            (keys, "what is blocked goes nowhere", "remove it, or write action = \"allow\"")
        }
        Action::Allow if keys.value("rate").is_none() => {
            let what = "what is allowed without a rate is not refused";
            (&["block", "reason"][..], what, "remove it, or write action = \"block\"")
        }
        Action::Open if keys.value("rate").is_none() && outcome.unread == Unread::Pass => {
            let what = "what is opened without a rate is not refused";
            (&["block", "reason"][..], what, "remove it, or add unread = \"block\"")
        }
        Action::Open | Action::Allow => (&[][..], "", ""),
    };
    if action? != Action::Open && keys.value("unread").is_some() {
        let what = "\"unread\" has no use here: only what is opened is to be read";
        reader.mistake(Kind::MisplacedKey, keys.key_span("unread"), what, "remove it, or write action = \"open\"");
    }
    for key in misplaced.iter().filter(|key| keys.value(key).is_some()) {
        reader.mistake(Kind::MisplacedKey, keys.key_span(key), format!("{key:?} has no use here: {what}"), advice);
    }
    Some(outcome)
}

fn action(reader: &mut Reader, value: &Value) -> Option<Action> {
    reader.word("action", value, &[("allow", Action::Allow), ("block", Action::Block), ("open", Action::Open)])
}

fn rate(reader: &mut Reader, keys: &Keys) -> Option<Rate> {
    let burst = keys.value("burst").and_then(|value| {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => return reader.wrong_type("burst", value, "a number", "20"),
        };
        let number = number.filter(|number| (1..=rate::MOST).contains(number));
        if number.is_none() {
            let what = format!("\"burst\" is a number from 1 to {}", rate::MOST);
            reader.mistake(Kind::WrongNumber, value.span(), what, "");
        }
        number
    });
    let Some(value) = keys.value("rate") else {
        if keys.value("burst").is_some() {
            let what = "\"burst\" has no use without \"rate\"";
            reader.mistake(Kind::MisplacedKey, keys.key_span("burst"), what, "add rate = \"10/s\", or remove it");
        }
        return None;
    };
    let text = reader.text("rate", value, "\"10/s\"")?;
    match Rate::parse(text) {
        Ok(rate) => Some(Rate { burst: burst.unwrap_or(rate.burst), ..rate }),
        Err((what, action)) => {
            reader.mistake(Kind::WrongRate, value.span(), what, action);
            None
        }
    }
}

const CONDITIONS: &[&str] = &["name", "to", "ports", "uid", "exe", "cgroup", "protocol", "alpn", "ja4", "ech"];

const OUTCOME: &[&str] = &["action", "block", "reason", "log", "tap", "rate", "burst", "upstream", "unread"];

const UNREAD: &[(&str, Unread)] = &[("pass", Unread::Pass), ("block", Unread::Block)];

const PROTOCOLS: &[(&str, Option<Protocol>)] = &[
    ("tls", Some(Protocol::Tls)),
    ("http", Some(Protocol::Http1)),
    ("http2", Some(Protocol::Http2)),
    ("ssh", Some(Protocol::Ssh)),
    ("unknown", None),
];
