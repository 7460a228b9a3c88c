use std::{fmt, sync::Arc, time::Duration};

use super::{Protocol, TokenBucket, Upstream, conditions::Conditions};

/// What happens to a flow, and why.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'r> {
    /// The rule that says so; `None`: no rule matches, so `[default]` does.
    pub rule: Option<&'r Rule>,
    /// What it says.
    pub outcome: &'r Outcome,
}

/// One rule of a file.
#[derive(Debug)]
pub struct Rule {
    /// Position among the rules, from 0.
    pub index: usize,
    /// Line of the file, from 1.
    pub line: usize,
    /// Its `id`, where it has one.
    pub id: Option<String>,
    /// What happens to flows that it matches.
    pub outcome: Outcome,
    pub(super) conditions: Conditions,
}

/// What a rule says of the flows that it matches.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whether they pass.
    pub action: Action,
    /// How those are refused that do not pass, or are too many for `rate`.
    pub refusal: Refusal,
    /// Whether they are to be logged.
    pub log: bool,
    /// Whether what they carry is to be recorded.
    pub tap: bool,
    /// How many of them pass. See [`Decision::admits`].
    pub rate: Option<TokenBucket>,
    /// Through what they pass; `None`: straight on.
    pub upstream: Option<Arc<Upstream>>,
    /// Of flows that are to be opened: what becomes of those that cannot be read.
    pub unread: Unread,
}

/// Whether flows pass.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// They pass.
    #[default]
    Allow,
    /// They are refused.
    Block,
    /// They pass, and what is in them is read: TLS is opened.
    Open,
}

/// What becomes of a flow that is to be opened, where that is not possible.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Unread {
    /// It passes as it is.
    #[default]
    Pass,
    /// It is refused.
    Block,
}

/// How a flow is refused.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Refusal {
    /// As the rule wants it.
    pub block: Block,
    /// For whoever is refused, and for the log; one line.
    pub reason: Option<String>,
}

/// What a client gets that is refused.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Block {
    /// A reset.
    #[default]
    Reset,
    /// In TLS an alert, else a reset.
    Alert,
    /// In HTTP in clear text 403 (Forbidden), else a reset.
    Forbidden,
}

impl Decision<'_> {
    /// Whether the rule's rate has room for this flow, which counts from now on; `true` where it has no rate. `now` is
    /// the time since any moment, the same one for all decisions of one set of rules.
    pub fn admits(&self, now: Duration) -> bool {
        self.outcome.rate.as_ref().is_none_or(|bucket| bucket.take(now))
    }
}

impl fmt::Display for Decision<'_> {
    /// What decides: `rule "ads" (line 7)`, `rule 3 (line 20)` or `default`. Rules are counted from 1 here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(Rule { id: Some(id), line, .. }) => write!(f, "rule {id:?} (line {line})"),
            Some(Rule { index, line, .. }) => write!(f, "rule {} (line {line})", index + 1),
            None => f.write_str("default"),
        }
    }
}

impl Block {
    /// What can be said in the client's protocol.
    #[must_use]
    pub fn in_protocol(self, protocol: Option<Protocol>) -> Self {
        match (self, protocol) {
            (Self::Alert, Some(Protocol::Tls)) | (Self::Forbidden, Some(Protocol::Http1 | Protocol::Http2)) => self,
            _ => Self::Reset,
        }
    }
}
