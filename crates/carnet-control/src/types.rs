//! What requests and answers are made of.
//!
//! Words are those of the policy file where something is registered (`on-dead`), and those of the flow log where a flow
//! is told (`duration_ms`). A field that a request has and these types have not is an error that names the field.

mod event;
mod filter;
mod flow;
mod one_or_more;
mod policy;
mod provider;
mod session;
mod status;

pub use self::{
    event::{Event, EventKind, EventLine, Stranger},
    filter::{Action, FilterRegistration, Id, Match, Ports},
    flow::{At, Decision, Ended, Flow, FlowLine, Link, Protocol, Socket},
    one_or_more::OneOrMore,
    policy::{Applied, PolicyRequest, PolicySummary},
    provider::{
        OnDead, Owner, PassedListener, Provider, ProviderRegistration, ProviderState, Providers, Reach, Records,
        SockName,
    },
    session::{Held, HoldRequest, Registered, RegisteredProvider, Released, SessionId, SessionLine, SessionRequest},
    status::{Removed, Status},
};

/// A line of a stream, beside what the stream is about.
pub(crate) trait Line: serde::Serialize {
    /// The reader was too slow for this many lines.
    fn lost(lost: u64) -> Self;
    /// This line is the last.
    fn closing(reason: &str) -> Self;
}
