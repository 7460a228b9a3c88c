use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{FilterRegistration, Id, OneOrMore, SessionId};

/// A provider that a session registers, in the words of the policy file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProviderRegistration {
    /// Unique among all providers.
    pub name: String,
    /// Unique place in the order of providers; lower is earlier. Left out: behind all that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u16>,
    /// Addresses the service listens on by itself.
    #[serde(default, skip_serializing_if = "OneOrMore::is_empty")]
    pub listen: OneOrMore<SocketAddr>,
    /// Listeners that are passed along with the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<PassedListener>,
    /// Whether the service carries records.
    #[serde(default)]
    pub records: Records,
    /// What happens to its connections while none of the listeners is the provider's own.
    #[serde(default)]
    pub on_dead: OnDead,
    /// Whether applications may dial the listeners directly: an explicit proxy.
    #[serde(default)]
    pub direct: bool,
    /// Whether it gets connections to where this host has no route.
    #[serde(default)]
    pub reach: Reach,
    /// What `getsockname()` answers on a connection it has accepted.
    #[serde(default)]
    pub sockname: SockName,
    /// Connections handed to it at once per destination, the runaway guard. 0: no limit; left out: the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight_limit: Option<u32>,
    /// Whose listeners and outgoing connections are the provider's. Left out: the daemon takes the caller's.
    #[serde(default, skip_serializing_if = "OneOrMore::is_empty")]
    pub owner: OneOrMore<Owner>,
    /// What is redirected to it, and what is not. In any order; weights order them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterRegistration>,
}

/// A listening TCP socket that was passed with `SCM_RIGHTS`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PassedListener {
    /// Its place among the descriptors passed with this request, from 0.
    pub fd: u32,
}

/// Whether a service carries records.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Records {
    /// It sets the record of a connection on the one it goes on with.
    #[default]
    Aware,
    /// It knows `SO_ORIGINAL_DST` only.
    Unaware,
}

/// What a dead provider means for the connections it should have had.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnDead {
    /// Refused.
    #[default]
    Closed,
    /// The next provider is asked.
    Open,
}

/// Where a service can go on to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Where this host has a route to.
    #[default]
    Routes,
    /// Anywhere: it goes on by a proxy or a tunnel of its own.
    Anywhere,
}

/// What `getsockname()` answers on a connection that a service has accepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SockName {
    /// The socket's own address, the listener's.
    #[default]
    Own,
    /// Where the application asked to go, as with a TPROXY rule.
    Destination,
}

/// Whose listeners and outgoing connections are a provider's.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// Everything in this cgroup or below it, a path below the cgroup2 mount.
    Cgroup(String),
    /// Everything of a user that nothing else uses.
    Uid(Id),
}

/// What `GET /v1/providers` answers.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Providers {
    /// In the order of their ranks.
    pub providers: Vec<Provider>,
}

/// A provider and how it does.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Provider {
    /// Unique.
    pub name: String,
    /// Lower is earlier.
    pub rank: u16,
    /// Its identity in records; never used again.
    pub handle: u32,
    /// Addresses that connections are redirected to.
    pub listen: Vec<SocketAddr>,
    /// Whether the service carries records.
    pub records: Records,
    /// What happens to its connections while it is dead.
    pub on_dead: OnDead,
    /// Whether applications may dial it directly.
    pub direct: bool,
    /// Whose listeners and outgoing connections are its own.
    pub owner: Vec<Owner>,
    /// How many filters it has.
    pub filters: u32,
    /// How it does.
    pub state: ProviderState,
    /// The session it lives as long as; `null`: it is from the policy file.
    pub session: Option<SessionId>,
    /// Open flows that it has or had.
    pub flows: u64,
}

/// How a provider does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProviderState {
    /// Its listener is there, and its own.
    Alive,
    /// Nobody listens.
    Dead,
    /// A process that is not the provider's listens on its address, and gets nothing.
    Stranger,
    /// Its listener is there, but connections wait in its queue: a stopped process.
    Stopped,
    /// The daemon holds its listeners while it restarts.
    Held,
}
