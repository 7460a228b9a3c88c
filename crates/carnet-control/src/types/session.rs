use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Event, FilterRegistration, Line, PassedListener, ProviderRegistration};

/// What `POST /v1/session` takes.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// The provider that the filters redirect to. Without one the filters are the host's, for which the caller has to
    /// be an administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderRegistration>,
    /// In any order; weights order them.
    #[serde(default)]
    pub filters: Vec<FilterRegistration>,
}

/// A session; never used again while the daemon lives.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SessionId(pub u64);

/// A line of a session.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SessionLine {
    /// The first line: the registration is in force.
    Registered {
        /// What it is known by.
        registered: Registered,
    },
    /// Something happened that concerns this session.
    Event(Event),
    /// The reader was too slow, and lines were left out here.
    Lost {
        /// How many.
        lost: u64,
    },
    /// The last line of a session which the daemon ends.
    Closing {
        /// For people.
        reason: String,
    },
}

/// What a registration is known by.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Registered {
    /// The session.
    pub session: SessionId,
    /// The provider's name.
    pub provider: Option<String>,
    /// The provider's handle.
    pub handle: Option<u32>,
    /// How many filters are in force.
    pub filters: u32,
}

/// What `POST /v1/providers/{name}/hold` takes.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// The provider's listeners, passed along with the request.
    pub listeners: Vec<PassedListener>,
}

/// What `POST /v1/providers/{name}/hold` answers: new connections wait in the queues of these listeners.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Held {
    /// The provider.
    pub provider: String,
    /// Where the held listeners listen.
    pub listeners: Vec<SocketAddr>,
}

/// What `POST /v1/providers/{name}/release` answers. The descriptors come along with it, in this order.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Released {
    /// The provider.
    pub provider: String,
    /// Where the listeners listen.
    pub listeners: Vec<SocketAddr>,
}

impl Line for SessionLine {
    fn lost(lost: u64) -> Self {
        Self::Lost { lost }
    }

    fn closing(reason: &str) -> Self {
        Self::Closing { reason: reason.into() }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
