use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Line, ProviderState, SessionId};

/// A line of `GET /v1/events`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventLine {
    /// Something happened.
    Event(Event),
    /// The reader was too slow, and lines were left out here.
    Lost {
        /// How many.
        lost: u64,
    },
    /// The last line of a stream which the daemon ends.
    Closing {
        /// For people.
        reason: String,
    },
}

/// Something that happened to the daemon, to a provider or to a session.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// When; RFC 3339, UTC.
    pub time: String,
    /// What.
    pub event: EventKind,
    /// The provider concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// How that provider does now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ProviderState>,
    /// The session concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// With `stranger`, who listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stranger: Option<Stranger>,
    /// For people.
    pub message: String,
}

/// A socket that listens where only a provider's should.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stranger {
    /// Where it listens.
    pub address: SocketAddr,
    /// Of its maker.
    pub uid: u32,
    /// The cgroup it was made in, as a path below the cgroup2 mount, where that is to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// A process that has it, where that is to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// That process's name, which it chooses itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// Another policy is in force.
    Policy,
    /// A provider's state is another one.
    Provider,
    /// A session began.
    SessionBegan,
    /// A session is over.
    SessionEnded,
    /// The daemon found programs of an earlier one at work, and took them over.
    Adopted,
    /// A process that is not the provider's listens on its address, and gets nothing.
    Stranger,
    /// A program that the policy names is another file now: an upgrade, say.
    Replaced,
    /// What the policy names has changed, and it cannot be put in force as it would be now. The one before stays.
    Refused,
    /// The daemon holds a provider's listeners.
    Held,
    /// It holds them no more: the provider listens again, or the time is over.
    Released,
    /// The kernel's buffer had no room for events.
    EventsLost,
    /// Something else that people should know.
    Warning,
}

impl Line for EventLine {
    fn lost(lost: u64) -> Self {
        Self::Lost { lost }
    }

    fn closing(reason: &str) -> Self {
        Self::Closing { reason: reason.into() }
    }
}
