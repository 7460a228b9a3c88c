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
    /// For people.
    pub message: String,
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
