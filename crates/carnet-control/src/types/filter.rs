use std::fmt;

use serde::{Deserialize, Serialize};

use super::{OneOrMore, Protocol};

/// A filter that a session registers, in the words of the policy file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FilterRegistration {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Heavier first.
    #[serde(default)]
    pub weight: u32,
    /// Conditions on a connection; all must hold.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// What happens then.
    pub action: Action,
    /// Text that the provider gets with each connection this filter redirects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Bytes instead of a text, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_base64: Option<String>,
}

/// Conditions; one that is left out holds for every connection. Of a list, one item has to hold; with `not-`, none.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Match {
    /// Of the connection.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub protocol: OneOrMore<Protocol>,
    /// Destinations: addresses, prefixes and sets.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub remote: OneOrMore<String>,
    /// Destination ports.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub remote_port: OneOrMore<Ports>,
    /// Users of the application: the real uid.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub uid: OneOrMore<Id>,
    /// Groups of the application: the real gid.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub gid: OneOrMore<Id>,
    /// Executables by path.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub exe: OneOrMore<String>,
    /// Cgroups, with all below them, as paths below the cgroup2 mount.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub cgroup: OneOrMore<String>,
    /// Network namespaces, by name or path.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub netns: OneOrMore<String>,
    /// Providers whose connection it is.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub via: OneOrMore<String>,
    /// Excepted from what holds.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub not_protocol: OneOrMore<Protocol>,
    /// Excepted from what holds.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub not_remote: OneOrMore<String>,
    /// Excepted from what holds.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub not_remote_port: OneOrMore<Ports>,
    /// Excepted from what holds.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub not_uid: OneOrMore<Id>,
    /// Excepted from what holds.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub not_gid: OneOrMore<Id>,
    /// Excepted from what holds.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub not_exe: OneOrMore<String>,
    /// Excepted from what holds.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub not_cgroup: OneOrMore<String>,
    /// Excepted from what holds.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub not_netns: OneOrMore<String>,
    /// Excepted from what holds.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub not_via: OneOrMore<String>,
}

/// What a filter does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// To the provider. Of a provider's filter only.
    Redirect,
    /// To the next provider. Of a provider's filter only.
    Skip,
    /// Straight to the destination. Of the host's filters only.
    Permit,
    /// Refused.
    Block,
}

/// A port, or several.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a port (443), a range (\"8000-8999\") or a set (\"@web\")")]
pub enum Ports {
    /// One.
    Port(u16),
    /// A range, or a set.
    Text(String),
}

/// A user or a group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a number or a name")]
pub enum Id {
    /// uid or gid.
    Number(u32),
    /// Looked up by the daemon; or a range of numbers.
    Name(String),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}
