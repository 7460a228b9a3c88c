//! `[control]`: who may do what over the control socket.

use toml::Spanned;
use toml::de::DeValue;

use crate::file::conditions::{Id32, id32};
use crate::file::finding::Id;
use crate::file::read::{Reader, Value, one_or_more};

/// Who may do what over the control socket of `carnet serve`. Root alone, where nothing is said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Control {
    /// See status, providers, flows.
    pub read: Vec<Principal>,
    /// Register a provider of their own.
    pub register: Vec<Principal>,
    /// Change the policy, and end the engine.
    pub administer: Vec<Principal>,
}

/// A user or the members of a group.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Principal {
    /// This user.
    Uid(u32),
    /// Whoever is in this group.
    Gid(u32),
}

impl Default for Control {
    fn default() -> Self {
        Self { read: vec![Principal::Uid(0)], register: vec![Principal::Uid(0)], administer: vec![Principal::Uid(0)] }
    }
}

/// As it is written; `None`: nothing is.
#[derive(Clone, Debug, Default)]
pub(super) struct ControlEntry {
    pub read: Option<Vec<Spanned<PrincipalEntry>>>,
    pub register: Option<Vec<Spanned<PrincipalEntry>>>,
    pub administer: Option<Vec<Spanned<PrincipalEntry>>>,
}

/// As it is written.
#[derive(Clone, Debug)]
pub(super) enum PrincipalEntry {
    User(Id32),
    Group(Id32),
}

impl ControlEntry {
    pub fn read(reader: &mut Reader, value: &Value) -> Self {
        let Some(table) = reader.table("control", value, "{ read = [\"%adm\"] }, or begin it with [control]") else {
            return Self::default();
        };
        let keys = reader.keys("control", table, value.span(), &["read", "register", "administer"]);
        let mut all = |key: &'static str| {
            let values = one_or_more(keys.value(key)?);
            let who = |value: &&Value| Some(Spanned::new(value.span(), who(reader, key, value)?));
            Some(values.iter().filter_map(who).collect())
        };
        Self { read: all("read"), register: all("register"), administer: all("administer") }
    }
}

/// A user, or a group behind a percent sign.
fn who(reader: &mut Reader, key: &'static str, value: &Value) -> Option<PrincipalEntry> {
    let (id, is_group) = match value.get_ref() {
        DeValue::String(text) if text.starts_with('%') => {
            let group = Spanned::new(value.span(), DeValue::String(text[1..].to_owned().into()));
            (id32(reader, key, &group)?, true)
        }
        _ => (id32(reader, key, value)?, false),
    };
    if matches!(&id, Id32::Range(range) if range.start() != range.end()) {
        let action = "name each, or a group they are in: \"%group\"";
        reader.mistake(Id::WrongUser, value.span(), "it is one user or one group, not a range of them", action);
        return None;
    }
    Some(if is_group { PrincipalEntry::Group(id) } else { PrincipalEntry::User(id) })
}
