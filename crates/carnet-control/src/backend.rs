//! What the daemon does for the API.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::broadcast;

use crate::{
    Applied, Caller, Event, Flow, FlowLine, Listener, PolicyRequest, Problem, Provider, Registered, Removed, SessionId,
    SessionRequest, Status,
};

/// The daemon behind the API.
///
/// Roles have been checked, and what is well-formed is in types. A call that has begun is never given up: where the
/// caller goes away, the call is still awaited. A panic in one is an answer with status 500.
///
/// Streams are broadcast channels, which are bounded: a reader that is too slow is told how many lines it has lost.
/// Where the sender is dropped, the stream ends.
pub trait Backend: Send + Sync + 'static {
    /// `GET /v1/status`.
    fn status(&self) -> impl Future<Output = Result<Status, Problem>> + Send;

    /// `GET /v1/policy`: the text of the policy in force.
    fn policy(&self) -> impl Future<Output = Result<Arc<str>, Problem>> + Send;

    /// `PUT /v1/policy`: puts a policy in force as one, or with `dry_run` only says what it would be. Mistakes are a
    /// [`Problem`] of kind [`Mistakes`](crate::ProblemKind::Mistakes) with all of them. Where another generation than the
    /// `expected` one is in force, it is one of kind [`Precondition`](crate::ProblemKind::Precondition). Files that the
    /// policy names may be read for root alone: what is wrong in them is told to the caller.
    fn apply(&self, caller: Caller, policy: PolicyRequest) -> impl Future<Output = Result<Applied, Problem>> + Send;

    /// `POST /v1/reload`: reads the daemon's own policy file again, and puts it in force. Problems as with
    /// [`apply`](Self::apply).
    fn reload(&self, caller: Caller) -> impl Future<Output = Result<Applied, Problem>> + Send;

    /// `GET /v1/providers`, in the order of their ranks.
    fn providers(&self) -> impl Future<Output = Result<Vec<Provider>, Problem>> + Send;

    /// `GET /v1/flows`: those that are open.
    fn flows(&self) -> impl Future<Output = Result<Vec<Flow>, Problem>> + Send;

    /// `GET /v1/flows?follow=true`: flows that end from now on, and what else the flow log has. It is called before
    /// [`flows`](Self::flows), so that none is missed; one that ends in between is told twice.
    fn follow_flows(&self) -> broadcast::Receiver<Arc<FlowLine>>;

    /// `GET /v1/events`, from now on.
    fn events(&self) -> broadcast::Receiver<Arc<Event>>;

    /// `POST /v1/down`: removes everything from the kernel. The daemon ends afterwards: it makes the future that
    /// [`Server::run`](crate::Server::run) was given ready, and the answer is still sent.
    fn down(&self, caller: Caller) -> impl Future<Output = Result<Removed, Problem>> + Send;

    /// `POST /v1/session`: puts a registration in force as one. `listeners` has an entry for each provider, in their
    /// order: those that its `listeners` name, in that order. Whose an `owner` may be is for the backend to say.
    fn begin_session(
        &self,
        caller: Caller,
        request: SessionRequest,
        listeners: Vec<Vec<Listener>>,
    ) -> impl Future<Output = Result<Begun, Problem>> + Send;

    /// The connection that a session lives as long as is over, or the session is. Called exactly once for each session
    /// that began, also where the stream ended by the backend's doing, and also while the server is dropped. It must not
    /// block: leave the work to a task or a thread of your own.
    fn end_session(&self, session: SessionId, end: SessionEnd);

    /// `POST /v1/providers/{name}/hold`: keeps the listeners until they are asked back, so that connections wait; for no
    /// longer than `at_most`. Whether the caller may speak for the provider is for the backend to say.
    fn hold(
        &self,
        caller: Caller,
        provider: String,
        listeners: Vec<Listener>,
        at_most: Duration,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// `POST /v1/providers/{name}/release`: gives duplicates. The caller may be gone before it has them, so the backend
    /// keeps its own until the provider has been seen to accept, or the time of the hold is over.
    fn release(&self, caller: Caller, provider: String) -> impl Future<Output = Result<Vec<Listener>, Problem>> + Send;
}

/// A session that began.
#[derive(Debug)]
pub struct Begun {
    /// What the caller is told first.
    pub registered: Registered,
    /// What it is told from then on. Where the sender is dropped, the session ends.
    pub news: broadcast::Receiver<SessionNews>,
    /// Flows that its providers have had, as they end. For a request with `flows`; another one is not told any.
    pub flows: Option<broadcast::Receiver<Arc<FlowLine>>>,
}

/// What a session is told.
#[derive(Clone, Debug)]
pub enum SessionNews {
    /// Something happened that concerns it.
    Event(Arc<Event>),
    /// The session ends, and this is why, for people.
    End(Arc<str>),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SessionEnd {
    /// The caller has closed its connection, or is gone.
    ClientGone,
    /// The access lists do not give the caller the role any more.
    RoleTaken,
    /// The backend said so, or dropped the sender of the session's news.
    Backend,
    /// The server ends. The caller may still be there, and look for the next daemon.
    DaemonEnding,
}
