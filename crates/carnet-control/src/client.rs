//! The other side: what commands of `carnet` and services in Rust ask the daemon with.

mod connection;
mod error;
mod lines;

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::{Method, body::Bytes};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};

use self::connection::{Connection, Question};
pub use self::{error::ClientError, lines::Lines};
use crate::{
    Applied, EventLine, FlowLine, Held, HoldRequest, JSON, Listener, PassedListener, PolicyRequest, Provider,
    Providers, Registered, Released, Removed, SessionLine, SessionRequest, Status, TOML,
};

/// Asks a daemon. Every question has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    patience: Duration,
}

/// A registration in force. Dropped, it is over.
#[derive(Debug)]
pub struct Session {
    registered: Registered,
    lines: Lines<SessionLine>,
}

impl Client {
    /// Sees whether a daemon listens at `path`.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoDaemon`], [`ClientError::Denied`], [`ClientError::Busy`], [`ClientError::Broken`].
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self, ClientError> {
        let client = Self { path: path.into(), patience: PATIENCE };
        Connection::open(&client.path).await?;
        Ok(client)
    }

    /// How long an answer may take to begin; a minute by default.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Where it asks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the daemon does.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Question::new(Method::GET, "/v1/status")).await
    }

    /// The text of the policy in force.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn policy(&self) -> Result<String, ClientError> {
        let (_, text) = self.answer(Question::new(Method::GET, "/v1/policy")).await?;
        String::from_utf8(text.into()).map_err(|_| ClientError::Strange { path: self.path.clone(), source: None })
    }

    /// Puts a policy in force, or with `dry_run` asks what it would be.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn apply(&self, policy: PolicyRequest) -> Result<Applied, ClientError> {
        let path = if policy.dry_run { "/v1/policy?dry-run=true" } else { "/v1/policy" };
        let question = Question::new(Method::PUT, path).with_body(TOML, policy.text.into());
        self.ask(question.expecting(policy.expected)).await
    }

    /// Has the daemon read its own policy file again, and put it in force.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn reload(&self) -> Result<Applied, ClientError> {
        self.ask(Question::new(Method::POST, "/v1/reload")).await
    }

    /// All providers, in the order of their ranks.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn providers(&self) -> Result<Vec<Provider>, ClientError> {
        Ok(self.ask::<Providers>(Question::new(Method::GET, "/v1/providers")).await?.providers)
    }

    /// The flows that are open; with `follow` also those that end from then on.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn flows(&self, follow: bool) -> Result<Lines<FlowLine>, ClientError> {
        let path = if follow { "/v1/flows?follow=true" } else { "/v1/flows" };
        self.lines(Question::new(Method::GET, path)).await
    }

    /// What happens from now on.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn events(&self) -> Result<Lines<EventLine>, ClientError> {
        self.lines(Question::new(Method::GET, "/v1/events")).await
    }

    /// Has the daemon remove everything, and end.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn down(&self) -> Result<Removed, ClientError> {
        self.ask(Question::new(Method::POST, "/v1/down")).await
    }

    /// Registers providers with their filters, and filters of the host. `listeners` are what the providers' `listeners`
    /// name; the caller keeps its own.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn session(
        &self,
        request: &SessionRequest,
        listeners: &[BorrowedFd<'_>],
    ) -> Result<Session, ClientError> {
        let question = Question::new(Method::POST, "/v1/session").with_body(JSON, self.json(request)?);
        let mut lines = self.lines(question.with_descriptors(listeners)).await?;
        match lines.next().await? {
            Some(SessionLine::Registered { registered }) => Ok(Session { registered, lines }),
            _ => Err(ClientError::Strange { path: self.path.clone(), source: None }),
        }
    }

    /// Has the daemon hold a provider's listeners, so that connections wait while the provider restarts; for no longer
    /// than `at_most`, in whole seconds.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn hold(
        &self,
        provider: &str,
        listeners: &[BorrowedFd<'_>],
        at_most: Duration,
    ) -> Result<Held, ClientError> {
        let named = (0..).map(|fd| PassedListener { fd }).take(listeners.len()).collect();
        let seconds = at_most.as_secs().try_into().unwrap_or(u32::MAX);
        let body = self.json(&HoldRequest { listeners: named, seconds })?;
        let question = Question::new(Method::POST, provider_path(provider, "hold")).with_body(JSON, body);
        self.ask(question.with_descriptors(listeners)).await
    }

    /// Takes back the listeners that the daemon holds.
    ///
    /// # Errors
    ///
    /// Each question has all of [`ClientError`].
    pub async fn release(&self, provider: &str) -> Result<Vec<Listener>, ClientError> {
        let (connection, body) = self.answer(Question::new(Method::POST, provider_path(provider, "release"))).await?;
        let released: Released = self.parse(&body)?;
        let strange = || ClientError::Strange { path: self.path.clone(), source: None };
        let received = connection.take_received();
        if received.len() != released.listeners.len() {
            return Err(strange());
        }
        received.into_iter().map(|descriptor| descriptor.try_into().map_err(|_| strange())).collect()
    }

    async fn ask<T: DeserializeOwned>(&self, question: Question<'_>) -> Result<T, ClientError> {
        let (_, body) = self.answer(question).await?;
        self.parse(&body)
    }

    async fn answer(&self, question: Question<'_>) -> Result<(Connection, Bytes), ClientError> {
        let mut connection = Connection::open(&self.path).await?;
        let body = connection.ask(question, self.patience).await?;
        let whole = connection.read_all(body).await?;
        Ok((connection, whole))
    }

    async fn lines<T: DeserializeOwned>(&self, question: Question<'_>) -> Result<Lines<T>, ClientError> {
        let mut connection = Connection::open(&self.path).await?;
        let body = connection.ask(question, self.patience).await?;
        Ok(Lines::new(connection, body))
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let json = serde_json::to_vec(body);
        Ok(json.map_err(|source| ClientError::Strange { path: self.path.clone(), source: Some(source) })?.into())
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        let strange = |source| ClientError::Strange { path: self.path.clone(), source: Some(source) };
        serde_json::from_slice(body).map_err(strange)
    }
}

impl Session {
    /// What the registration is known by.
    pub fn registered(&self) -> &Registered {
        &self.registered
    }

    /// What the daemon says next; `None`: the session is over, by the daemon's doing. May be cancelled.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`] where the daemon is gone, [`ClientError::Strange`].
    pub async fn next(&mut self) -> Result<Option<SessionLine>, ClientError> {
        self.lines.next().await
    }
}

impl AsFd for Session {
    /// The connection that the session lives as long as.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lines.as_fd()
    }
}

fn provider_path(provider: &str, verb: &str) -> String {
    format!("/v1/providers/{}/{verb}", utf8_percent_encode(provider, NON_ALPHANUMERIC))
}

const PATIENCE: Duration = Duration::from_secs(60);
