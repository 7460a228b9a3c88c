//! The objects of the flow log, with the names they have there.

use serde::{Deserialize, Serialize};

use super::Line;

/// A line of `GET /v1/flows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FlowLine {
    /// A flow: `ended` is `open` while it lasts.
    Flow(Box<Flow>),
    /// A socket that cannot be inspected.
    Socket(Socket),
    /// Something that people should know.
    Warning {
        /// For people.
        message: String,
    },
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

/// One application connection, over all its hops. `docs/flow-log.md` has the meaning of each field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Flow {
    /// The flow's id, 32 hexadecimal digits.
    pub flow: String,
    /// Which kind of socket.
    pub protocol: Protocol,
    /// Of the `connect()`, or of the first datagram; RFC 3339, UTC.
    pub time: String,
    /// Process of the application.
    pub pid: u32,
    /// Its real uid.
    pub uid: u32,
    /// Its name, which it chooses itself.
    pub program: String,
    /// The address and port it came from.
    pub source: Option<String>,
    /// The address and port it asked for.
    pub destination: String,
    /// The destination's name, as the application sent it: not verified.
    pub name: Option<String>,
    /// `tls` or `http`.
    pub name_from: Option<String>,
    /// Payload bytes from the application.
    pub sent: Option<u64>,
    /// Payload bytes to it.
    pub received: Option<u64>,
    /// From `connect()` to the end.
    pub duration_ms: Option<f64>,
    /// At the application's `connect()`.
    pub decision: Decision,
    /// With the decision `left-alone`, the reason.
    pub left_alone: Option<String>,
    /// Services in order.
    pub chain: Vec<Link>,
    /// The connection of a service, whose flows to this destination have several applications.
    pub ambiguous: bool,
    /// How it ended.
    pub ended: Option<Ended>,
    /// Where.
    pub at: Option<At>,
    /// The errno: `ECONNREFUSED`.
    pub error: Option<String>,
    /// With the end `refused`, the reason.
    pub reason: Option<String>,
}

/// Which kind of socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// MPTCP, too.
    Tcp,
    /// Not redirected.
    Udp,
}

/// What was decided at the application's `connect()`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Through at least one service.
    Redirected,
    /// Straight to its destination.
    Direct,
    /// Straight to its destination, because it cannot be redirected.
    LeftAlone,
    /// Straight to its destination, without being looked at: UDP.
    NotInspected,
    /// Not let through.
    Refused,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Both sides said that they were done.
    Closed,
    /// The application broke it off.
    Aborted,
    /// Broken off by, or lost at, the place in `at`.
    Reset,
    /// Never got through.
    Failed,
    /// By Carnet.
    Refused,
    /// It is not over.
    Open,
}

/// One service of the chain.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Link {
    /// Its name.
    pub service: String,
    /// It set no record, so which flow its connection belongs to was inferred.
    pub inferred: bool,
}

/// Where a flow ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// At the destination, or on the way to it.
    Destination,
    /// At a service.
    #[serde(untagged)]
    Service {
        /// Its name.
        service: String,
    },
}

/// A socket that cannot be inspected.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Socket {
    /// When it was made; RFC 3339, UTC.
    pub time: String,
    /// Process that made it.
    pub pid: u32,
    /// Its real uid.
    pub uid: u32,
    /// Its name.
    pub program: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// `raw`, `ping`, `udp-lite`, `sctp`, `dccp`, `l2tp`, `smc` or `other`.
    pub kind: String,
    /// The protocol's number.
    pub protocol: u32,
    /// `not-inspected` or `refused`.
    pub decision: Decision,
    /// The errno, where it was refused.
    pub error: Option<String>,
}

impl Line for FlowLine {
    fn lost(lost: u64) -> Self {
        Self::Lost { lost }
    }

    fn closing(reason: &str) -> Self {
        Self::Closing { reason: reason.into() }
    }
}
