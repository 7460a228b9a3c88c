use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Event, FilterRegistration, Flow, FlowLine, Line, PassedListener, ProviderRegistration, Socket};

/// What `POST /v1/session` takes.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// Put in force as one. Those without a rank come behind all others, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<ProviderRegistration>,
    /// Filters of the host, for which the caller has to be an administrator. In any order; weights order them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterRegistration>,
    /// Whether flows that these providers have had, or whose origin is in a cgroup that their filters name, are told on this
    /// connection when they end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flows: bool,
}

/// A session; never used again while the daemon lives.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SessionId(pub u64);

/// A line of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// A flow that one of its providers has had, or whose origin its filters name. Only where the request said `flows`, like
    /// the next two.
    Flow(Box<Flow>),
    /// A socket that cannot be inspected.
    Socket(Socket),
    /// Something that people should know of flows.
    Warning {
        /// For people.
        message: String,
    },
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
    /// Its providers, in the order of the request.
    pub providers: Vec<RegisteredProvider>,
    /// How many filters are in force, the host's and all of its providers'.
    pub filters: u32,
}

/// A provider of a session.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RegisteredProvider {
    /// As it was asked for.
    pub name: String,
    /// Its identity in records; never used again.
    pub handle: u32,
    /// Its place among all providers.
    pub rank: u16,
}

/// What `POST /v1/providers/{name}/hold` takes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// The provider's listeners, passed along with the request.
    pub listeners: Vec<PassedListener>,
    /// For at most so many seconds, an hour at most. Then the provider is as dead as it would be without.
    #[serde(rename = "for", default = "usual_hold")]
    #[cfg_attr(test, schemars(range(min = 1, max = 3600)))]
    pub seconds: u32,
}

/// What `POST /v1/providers/{name}/hold` answers: new connections wait in the queues of these listeners.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Held {
    /// The provider.
    pub provider: String,
    /// Where the held listeners listen.
    pub listeners: Vec<SocketAddr>,
    /// For at most so many seconds.
    #[serde(rename = "for")]
    pub seconds: u32,
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

impl HoldRequest {
    /// Most seconds that can be asked for.
    pub(crate) const MOST_SECONDS: u32 = 3600;
}

impl Default for HoldRequest {
    fn default() -> Self {
        Self { listeners: Vec::new(), seconds: usual_hold() }
    }
}

fn usual_hold() -> u32 {
    60
}

impl From<FlowLine> for SessionLine {
    fn from(line: FlowLine) -> Self {
        match line {
            FlowLine::Flow(flow) => Self::Flow(flow),
            FlowLine::Socket(socket) => Self::Socket(socket),
            FlowLine::Warning { message } => Self::Warning { message },
            FlowLine::Lost { lost } => Self::Lost { lost },
            FlowLine::Closing { reason } => Self::Closing { reason },
        }
    }
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
