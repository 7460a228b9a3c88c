//! What a scan has to say.

use std::{fmt, net::SocketAddr};

use super::{BodyFacts, Direction, Match, Unscanned};

/// Something was found in a body, or the body could not be looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScanReport {
    /// [`carnet::Flow::id`].
    pub flow_id: u128,
    /// Where the flow is going.
    pub destination: SocketAddr,
    /// User of the application.
    pub uid: Option<u32>,
    /// Whose body.
    pub direction: Direction,
    /// The request's method.
    pub method: String,
    /// The request's URL.
    pub url: String,
    /// What was found.
    pub finding: Finding,
    /// The body was stopped.
    pub blocked: bool,
}

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// A rule matches.
    Match(Match),
    /// Nothing is known of the body, or of a part of it.
    Unscanned(Unscanned),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // For clients as well, which need not know where files are.
            Self::Match(Match { rule, .. }) => write!(f, "YARA rule {rule} matches"),
            Self::Unscanned(why) => why.fmt(f),
        }
    }
}

/// What is known of a body, kept.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    flow_id: u128,
    destination: SocketAddr,
    uid: Option<u32>,
    direction: Direction,
    method: String,
    url: String,
}

impl Subject {
    pub(super) fn of(facts: &BodyFacts<'_>) -> Self {
        let &BodyFacts { flow_id, destination, uid, direction, .. } = facts;
        Self { flow_id, destination, uid, direction, method: facts.method.to_owned(), url: facts.url.to_owned() }
    }

    pub(super) fn report(&self, finding: Finding, blocked: bool) -> ScanReport {
        let Self { flow_id, destination, uid, direction, method, url } = self.clone();
        ScanReport { flow_id, destination, uid, direction, method, url, finding, blocked }
    }
}
