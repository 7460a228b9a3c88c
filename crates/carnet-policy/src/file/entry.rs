//! Providers and filters as they are written.

use std::net::SocketAddr;
use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use carnet_abi::CONTEXT_MAX;
use toml::Spanned;

use crate::file::conditions::{self, Conditions, Id32};
use crate::file::finding::Id;
use crate::file::read::{Keys, PROVIDER, Reader, Value, one_or_more};
use crate::file::sets::Sets;
use crate::file::source::shown;
use crate::{Action, HostAction, OnDead, Reach, Service, SockName};

/// A `[[provider]]`. What is `None` is missing or wrong, which has been told.
#[derive(Clone, Debug)]
pub(super) struct ProviderEntry {
    /// Its header.
    pub span: Range<usize>,
    pub name: Option<Spanned<String>>,
    pub rank: Option<Spanned<u16>>,
    pub listeners: Option<Spanned<Vec<Spanned<SocketAddr>>>>,
    pub owners: Option<Spanned<Vec<Spanned<OwnerEntry>>>>,
    pub service: Service,
    pub on_dead: OnDead,
    pub direct: bool,
    pub reach: Reach,
    pub sockname: SockName,
    pub in_flight_limit: u32,
    pub filters: Vec<FilterEntry<Action>>,
}

#[derive(Clone, Debug)]
pub(super) enum OwnerEntry {
    Cgroup(String),
    User(Id32),
}

/// A `[[filter]]` or a `[[provider.filter]]`.
#[derive(Clone, Debug)]
pub(super) struct FilterEntry<A> {
    /// Its header.
    pub span: Range<usize>,
    pub name: Option<Spanned<String>>,
    pub weight: u32,
    pub conditions: Conditions,
    /// Of `match`, where there is one.
    pub match_span: Option<Range<usize>>,
    pub action: Option<A>,
}

impl ProviderEntry {
    pub fn read(reader: &mut Reader, sets: &mut Sets, value: &Value) -> Option<Self> {
        let table = reader.table("provider", value, "{ name = \"dlp\", ... }, or begin it with [[provider]]")?;
        let keys = reader.keys(PROVIDER, table, value.span(), PROVIDER_KEYS);
        let service = choice(reader, &keys, "records", &[("aware", Service::Aware), ("unaware", Service::Unaware)]);
        let service = service.unwrap_or(Service::Aware);
        let limit = keys.value("in-flight-limit");
        let limit = limit.and_then(|value| reader.number("in-flight-limit", value, 0..=u32::MAX));
        Some(Self {
            span: value.span(),
            name: read_name(reader, &keys, "\"dlp\""),
            rank: (reader.required(&keys, "rank", "10")).and_then(|value| reader.number("rank", value, 0..=u16::MAX)),
            listeners: (reader.required(&keys, "listen", LISTEN)).and_then(|value| listeners(reader, value)),
            owners: (reader.required(&keys, "owner", OWNER)).and_then(|value| owners(reader, value)),
            service,
            on_dead: choice(reader, &keys, "on-dead", &[("closed", OnDead::Closed), ("open", OnDead::Open)])
                .unwrap_or(OnDead::Closed),
            direct: keys.value("direct").and_then(|value| reader.boolean("direct", value)).unwrap_or_default(),
            reach: choice(reader, &keys, "reach", &[("routes", Reach::Routes), ("anywhere", Reach::Anywhere)])
                .unwrap_or_default(),
            sockname: choice(
                reader,
                &keys,
                "sockname",
                &[("own", SockName::Own), ("destination", SockName::Destination)],
            )
            .unwrap_or_default(),
            in_flight_limit: limit.map_or_else(|| default_limit(service), Spanned::into_inner),
            filters: tables(reader, &keys, "filter", |reader, value| FilterEntry::of_provider(reader, sets, value)),
        })
    }

    /// Where its name is, or it begins.
    pub fn name_span(&self) -> Range<usize> {
        self.name.as_ref().map_or_else(|| self.span.clone(), Spanned::span)
    }
}

impl FilterEntry<HostAction> {
    pub fn of_host(reader: &mut Reader, sets: &mut Sets, value: &Value) -> Option<Self> {
        let words = [("permit", HostAction::Permit), ("block", HostAction::Block)];
        Self::read(reader, sets, value, "a filter of the host", HOST_FILTER_KEYS, "\"permit\"", |reader, _, value| {
            if value.get_ref().as_str().is_some_and(|action| matches!(action, "redirect" | "skip")) {
                let action =
                    "write it below the provider, as [[provider.filter]]. The host's can \"permit\" or \"block\"";
                let what = format!("a filter of the host cannot {}", value.get_ref().as_str().unwrap_or_default());
                reader.mistake(Id::UnknownWord, value.span(), what, action);
                return None;
            }
            reader.word("action", value, &words)
        })
    }
}

impl FilterEntry<Action> {
    fn of_provider(reader: &mut Reader, sets: &mut Sets, value: &Value) -> Option<Self> {
        let what = "a filter of a provider";
        Self::read(reader, sets, value, what, FILTER_KEYS, "\"redirect\"", |reader, keys, value| {
            if value.get_ref().as_str() == Some("permit") {
                let what = "a filter of a provider cannot permit";
                let action = "write \"skip\" to go on to the next provider, or permit in a [[filter]] of the host";
                reader.mistake(Id::UnknownWord, value.span(), what, action);
                return None;
            }
            let redirect = Action::Redirect { context: Vec::new() };
            let words = [("redirect", &redirect), ("skip", &Action::Skip), ("block", &Action::Block)];
            let context = context(reader, keys);
            match reader.word("action", value, &words)? {
                Action::Redirect { .. } => Some(Action::Redirect { context: context.unwrap_or_default() }),
                other => {
                    if let Some(span) = context_span(keys) {
                        let what = "only what is redirected has a context";
                        reader.mistake(Id::MisplacedKey, span, what, "leave it out, or write action = \"redirect\"");
                    }
                    Some(other.clone())
                }
            }
        })
    }
}

impl<A> FilterEntry<A> {
    fn read(
        reader: &mut Reader,
        sets: &mut Sets,
        value: &Value,
        what: &'static str,
        known: &[&'static str],
        example: &str,
        action: impl Fn(&mut Reader, &Keys, &Value) -> Option<A>,
    ) -> Option<Self> {
        let table = reader.table(
            "filter",
            value,
            "{ name = \"web\", ... }, or begin each with its own header: [[filter]], or [[provider.filter]]",
        )?;
        let keys = reader.keys(what, table, value.span(), known);
        Some(Self {
            span: value.span(),
            name: read_name(reader, &keys, "\"web\""),
            weight: keys
                .value("weight")
                .and_then(|value| reader.number("weight", value, 0..=u32::MAX))
                .map_or(0, Spanned::into_inner),
            conditions: keys
                .value("match")
                .map_or_else(Conditions::default, |value| Conditions::read(reader, sets, value)),
            match_span: keys.value("match").map(Spanned::span),
            action: reader.required(&keys, "action", example).and_then(|value| action(reader, &keys, value)),
        })
    }

    /// Where its name is, or it begins.
    pub fn name_span(&self) -> Range<usize> {
        self.name.as_ref().map_or_else(|| self.span.clone(), Spanned::span)
    }
}

/// The tables of a key that is written `[[key]]`.
pub(super) fn tables<T>(
    reader: &mut Reader,
    keys: &Keys,
    key: &str,
    mut read: impl FnMut(&mut Reader, &Value) -> Option<T>,
) -> Vec<T> {
    let values = keys.value(key).map(one_or_more).unwrap_or_default();
    values.into_iter().filter_map(|value| read(reader, value)).collect()
}

/// One of the words, where the key is there.
pub(super) fn choice<T: Copy>(reader: &mut Reader, keys: &Keys, key: &str, words: &[(&'static str, T)]) -> Option<T> {
    keys.value(key).and_then(|value| reader.word(key, value, words))
}

fn read_name(reader: &mut Reader, keys: &Keys, example: &str) -> Option<Spanned<String>> {
    let value = reader.required(keys, "name", example)?;
    let name = reader.text("name", value, example)?;
    if name.get_ref().is_empty() || name.get_ref().contains(char::is_control) {
        let what = if name.get_ref().is_empty() { "a name cannot be empty" } else { "a name is one line of text" };
        reader.mistake(Id::WrongName, value.span(), what, format!("write name = {example}"));
        return None;
    }
    Some(Spanned::new(name.span(), (*name.get_ref()).to_owned()))
}

/// Those that are right. `None` where all are wrong, which has been told.
fn listeners(reader: &mut Reader, value: &Value) -> Option<Spanned<Vec<Spanned<SocketAddr>>>> {
    let before = reader.findings.len();
    let mut listeners = Vec::new();
    for value in one_or_more(value) {
        let Some(text) = reader.text("listen", value, LISTEN) else { continue };
        match text.get_ref().parse::<SocketAddr>() {
            Ok(listener) => listeners.push(Spanned::new(value.span(), listener)),
            Err(_) => {
                let what = format!("{:?} is no address with a port", shown(text.get_ref()));
                reader.mistake(Id::WrongListener, value.span(), what, format!("write listen = {LISTEN}"));
            }
        }
    }
    (!listeners.is_empty() || reader.findings.len() == before).then(|| Spanned::new(value.span(), listeners))
}

/// Those that are right. `None` where all are wrong, which has been told.
fn owners(reader: &mut Reader, value: &Value) -> Option<Spanned<Vec<Spanned<OwnerEntry>>>> {
    let before = reader.findings.len();
    let mut owners = Vec::new();
    for value in one_or_more(value) {
        let Some(table) = reader.table("owner", value, OWNER) else { continue };
        if let Some((key, _)) = table.get_key_value("exe") {
            let what = "an executable is no owner: whoever may start it would be the provider";
            reader.mistake(Id::WrongOwner, key.span(), what, format!("write owner = {OWNER}"));
            continue;
        }
        let keys = reader.keys("an owner", table, value.span(), &["cgroup", "uid"]);
        let owner = match (keys.value("cgroup"), keys.value("uid")) {
            (Some(value), None) => conditions::cgroup(reader, "cgroup", value).map(OwnerEntry::Cgroup),
            (None, Some(value)) => user(reader, value).map(OwnerEntry::User),
            (Some(_), Some(_)) => {
                let action = "write a list of two: [{ cgroup = \"...\" }, { uid = \"...\" }]. Either is enough";
                reader.mistake(Id::MisplacedKey, value.span(), "an owner is a cgroup or a uid", action);
                None
            }
            (None, None) => {
                let what = "an owner needs \"cgroup\" or \"uid\"";
                reader.mistake(Id::MissingKey, value.span(), what, format!("write owner = {OWNER}"));
                None
            }
        };
        owners.extend(owner.map(|owner| Spanned::new(value.span(), owner)));
    }
    (!owners.is_empty() || reader.findings.len() == before).then(|| Spanned::new(value.span(), owners))
}

/// One user.
fn user(reader: &mut Reader, value: &Value) -> Option<Id32> {
    match conditions::id32(reader, "uid", value)? {
        Id32::Range(range) if range.start() != range.end() => {
            let what = "an owner is one user, not a range of them";
            reader.mistake(Id::WrongUser, value.span(), what, "write several owners: [{ uid = 990 }, { uid = 991 }]");
            None
        }
        user => Some(user),
    }
}

fn context(reader: &mut Reader, keys: &Keys) -> Option<Vec<u8>> {
    let text = keys.value("context");
    let base64 = keys.value("context-base64");
    let context = match (text, base64) {
        (None, None) => return None,
        (Some(_), Some(value)) => {
            let what = "a filter has one context";
            reader.mistake(Id::MisplacedKey, value.span(), what, "leave out \"context\" or \"context-base64\"");
            return None;
        }
        (Some(value), None) => reader.text("context", value, "\"site=hq\"")?.get_ref().as_bytes().to_vec(),
        (None, Some(value)) => {
            let text = reader.text("context-base64", value, "\"c2l0ZT1ocQ==\"")?;
            match BASE64_STANDARD.decode(text.get_ref()) {
                Ok(bytes) => bytes,
                Err(error) => {
                    let what = format!("it is no base64: {error}");
                    let action = "write what `base64 -w0` makes of the bytes, with the = at its end";
                    reader.mistake(Id::WrongContext, value.span(), what, action);
                    return None;
                }
            }
        }
    };
    if context.len() > CONTEXT_MAX {
        let what = format!("a context of {} bytes, at most {CONTEXT_MAX} fit", context.len());
        let span = context_span(keys).unwrap_or_else(|| keys.span());
        reader.mistake(Id::WrongContext, span, what, "shorten it");
        return None;
    }
    Some(context)
}

fn context_span(keys: &Keys) -> Option<Range<usize>> {
    keys.value("context").or(keys.value("context-base64")).map(Spanned::span)
}

/// A record tells who has had a flow, so the guard is only for what nobody has thought of. Without records, a helper
/// process outside the owner makes a loop that only the guard ends.
fn default_limit(service: Service) -> u32 {
    match service {
        Service::Aware => 32768,
        Service::Unaware => 4096,
    }
}

const LISTEN: &str = "[\"127.0.0.1:15001\", \"[::1]:15001\"]";

const OWNER: &str = "{ cgroup = \"/system.slice/dlp.service\" }";

const PROVIDER_KEYS: &[&str] = &[
    "name",
    "rank",
    "listen",
    "owner",
    "records",
    "on-dead",
    "direct",
    "reach",
    "sockname",
    "in-flight-limit",
    "filter",
];

const FILTER_KEYS: &[&str] = &["name", "weight", "match", "action", "context", "context-base64"];

const HOST_FILTER_KEYS: &[&str] = &["name", "weight", "match", "action"];
