//! The daemon behind the control API.

mod answers;
mod origins;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use carnet_control::{
    Access, AccessLists, Applied, Backend, Begun, Caller, Event, EventKind, Flow, FlowLine, Listener, PolicyRequest,
    Problem, ProblemKind, Provider, ProviderState, Registered, Removed, SessionEnd, SessionId, SessionRequest, Status,
};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};

use self::origins::Origins;
use super::core::Core;
use super::events::Flows;
use super::news::News;
use super::sessions::Registration;
use super::state::PolicyText;

/// What all connections share.
#[derive(Clone)]
pub struct Daemon(Arc<Shared>);

struct Shared {
    /// `None`: everything has been removed.
    core: Mutex<Option<Core>>,
    flows: Arc<Flows>,
    news: Arc<News>,
    /// Access lists that follow the policy, and as they are now.
    access: Mutex<Option<(AccessLists, Access)>>,
    down: watch::Sender<bool>,
    since: Timestamp,
    runtime: Handle,
}

impl Daemon {
    /// Begins to read the kernel's events.
    pub fn new(core: Core, news: Arc<News>, runtime: Handle) -> Result<Self> {
        let flows = Arc::new(Flows::new());
        flows.know(core.known());
        flows.read(core.events()?)?;
        Ok(Self(Arc::new(Shared {
            core: Mutex::new(Some(core)),
            flows,
            news,
            access: Mutex::new(None),
            down: watch::Sender::new(false),
            since: Timestamp::now(),
            runtime,
        })))
    }

    /// Access lists that are to follow the policy.
    pub fn follow_access(&self, lists: AccessLists, now: Access) {
        *self.0.access.lock().unwrap_or_else(PoisonError::into_inner) = Some((lists, now));
    }

    /// Ready once everything has been removed.
    pub async fn is_down(&self) {
        let _ = self.0.down.subscribe().wait_for(|down| *down).await;
    }

    /// To be called about once a second: see [`Core::look`].
    pub async fn look(&self) {
        // Once everything is removed, there is nothing to look at.
        let _ = self
            .with(|core| {
                core.look();
                Ok(())
            })
            .await;
    }

    /// Reads the policy file again.
    pub async fn read_again(&self) {
        let reloaded = self.with(|core| core.reload().map_err(|refused| refused.problem("")));
        if let Err(problem) = reloaded.await {
            self.0.news.tell(EventKind::Refused, problem.to_string());
        }
    }

    /// Works with what is in force, on a thread that may wait for the kernel.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let shared = Arc::clone(&self.0);
        let done = self.0.runtime.spawn_blocking(move || shared.with(work)).await;
        done.unwrap_or_else(|_| Err(Problem::new(ProblemKind::Failed, "the daemon has a bug: see its log")))
    }
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Core) -> Result<T, Problem>) -> Result<T, Problem> {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let core = core.as_mut().ok_or_else(gone)?;
        let before = core.generation().0;
        let done = work(core);
        if core.generation().0 != before {
            self.flows.know(core.known());
        }
        // Names of users may mean others without another policy.
        if let Some((lists, now)) = &mut *self.access.lock().unwrap_or_else(PoisonError::into_inner) {
            let access = core.access();
            if access != *now {
                lists.replace(access.clone());
                *now = access;
            }
        }
        done
    }
}

fn gone() -> Problem {
    Problem::new(ProblemKind::Unavailable, "everything has been removed, and the daemon is ending")
}

impl Backend for Daemon {
    async fn status(&self) -> Result<Status, Problem> {
        let (flows, since) = (Arc::clone(&self.0.flows), self.0.since);
        self.with(move |core| answers::status(core, &flows, since)).await
    }

    async fn policy(&self) -> Result<Arc<str>, Problem> {
        self.with(|core| Ok(core.candidate().given.text.as_str().into())).await
    }

    async fn apply(&self, caller: Caller, policy: PolicyRequest) -> Result<Applied, Problem> {
        let may_read = caller.uid == 0;
        if policy.text.trim().is_empty() {
            // A request without a body, most likely; it would let everything through.
            let what = "there is no policy in the request. Where nothing is to be decided, send `default = \"permit\"`";
            return Err(Problem::new(ProblemKind::Malformed, what));
        }
        let given = PolicyText { text: policy.text, source: answers::sender(&caller) };
        let sent = given.source.clone();
        let work = move |core: &mut Core| {
            let generation = core.generation().0;
            if policy.expected.is_some_and(|expected| expected != generation) {
                let what = format!("policy {generation} is in force, another than was expected");
                return Err(Problem::new(ProblemKind::Precondition, what));
            }
            let refused = |refused: super::policy::Refused| refused.problem(&sent);
            if policy.dry_run {
                let candidate = core.read(given, may_read).map_err(refused)?;
                core.try_out(&candidate).map_err(refused)?;
                return Ok(answers::applied(core, &candidate, false, &sent));
            }
            core.apply(given, may_read).map_err(refused)?;
            Ok(answers::applied(core, core.candidate(), true, &sent))
        };
        self.with(work).await
    }

    async fn reload(&self, _: Caller) -> Result<Applied, Problem> {
        let work = |core: &mut Core| {
            core.reload().map_err(|refused| refused.problem(""))?;
            Ok(answers::applied(core, core.candidate(), true, ""))
        };
        self.with(work).await
    }

    async fn providers(&self) -> Result<Vec<Provider>, Problem> {
        let flows = Arc::clone(&self.0.flows);
        self.with(move |core| Ok(answers::providers(core, &flows))).await
    }

    async fn flows(&self) -> Result<Vec<Flow>, Problem> {
        let flows = Arc::clone(&self.0.flows);
        let open = self.0.runtime.spawn_blocking(move || flows.open()).await;
        open.map_err(|_| Problem::new(ProblemKind::Failed, "the daemon has a bug: see its log"))
    }

    fn follow_flows(&self) -> broadcast::Receiver<Arc<FlowLine>> {
        self.0.flows.follow()
    }

    fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.news.follow()
    }

    async fn down(&self, _: Caller) -> Result<Removed, Problem> {
        let shared = Arc::clone(&self.0);
        let work = move || {
            let core = shared.core.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(gone)?;
            let pins = core.ground().pins.display().to_string();
            let removed = core.down();
            shared.down.send_replace(true);
            let removed = removed.map_err(|error| {
                let what = format!("{}. `carnet down` again removes what is left", crate::one_line(&error));
                shared.news.warn(what.clone());
                Problem::new(ProblemKind::Failed, what)
            })?;
            Ok(Removed { removed: vec![format!("{} links, and what was pinned at {pins}", removed.links)] })
        };
        let done = self.0.runtime.spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err(Problem::new(ProblemKind::Failed, "the daemon has a bug: see its log")))
    }

    async fn begin_session(
        &self,
        caller: Caller,
        mut request: SessionRequest,
        listeners: Vec<Vec<Listener>>,
    ) -> Result<Begun, Problem> {
        let wants_flows = request.flows;
        let cgroups = answers::cgroups_of(&request);
        let work = move |core: &mut Core| {
            for provider in &mut request.providers {
                provider.rank = provider.rank.or_else(|| core.former_rank(&provider.name, caller.uid));
            }
            let registration = Registration::new(&caller, request, listeners, core.next_rank())?;
            let name = core.sessions.next_name();
            core.register(&registration).map_err(|refused| refused.problem(&name))?;
            let (session, news) = core.sessions.begin(&registration);
            let (providers, filters) = answers::registered(core, &registration);
            let names: HashSet<String> = registration.providers().iter().cloned().collect();
            let who = registration.providers().join(", ");
            core.tell_session(
                EventKind::SessionBegan,
                session,
                format!("{who} registered by {}", answers::sender(&caller)),
            );
            let origins = Origins::below(cgroups, core.ground().hierarchy.clone());
            Ok((Registered { session, providers, filters }, news, names, origins))
        };
        let (registered, news, names, origins) = self.with(work).await?;
        let flows = wants_flows.then(|| self.flows_of(names, origins));
        Ok(Begun { registered, news, flows })
    }

    fn end_session(&self, session: SessionId, end: SessionEnd) {
        let shared = Arc::clone(&self.0);
        self.0.runtime.spawn_blocking(move || {
            let _ = shared.with(|core| {
                core.end_session(session, end);
                Ok(())
            });
        });
    }

    async fn hold(
        &self,
        caller: Caller,
        provider: String,
        listeners: Vec<Listener>,
        at_most: Duration,
    ) -> Result<(), Problem> {
        let work = move |core: &mut Core| {
            answers::check_speaker(core, &caller, &provider)?;
            answers::check_addresses(core, &provider, &listeners)?;
            core.own(&provider, &listeners)
                .map_err(|error| Problem::new(ProblemKind::Failed, crate::one_line(&error)))?;
            core.held.hold(provider.clone(), listeners, at_most);
            let what = format!("new connections wait for {provider} to come back, {} s at most", at_most.as_secs());
            core.tell_provider(EventKind::Held, &provider, ProviderState::Held, what);
            core.follow_up();
            Ok(())
        };
        self.with(work).await
    }

    async fn release(&self, caller: Caller, provider: String) -> Result<Vec<Listener>, Problem> {
        let work = move |core: &mut Core| {
            answers::check_speaker(core, &caller, &provider)?;
            let nothing = || Problem::new(ProblemKind::NotFound, format!("nothing is held for {provider:?}"));
            let released = core.held.release(&provider).ok_or_else(nothing)?;
            let failed = |error| Problem::new(ProblemKind::Failed, format!("cannot duplicate a listener: {error}"));
            let released = released.map_err(failed)?;
            let what = format!("{provider} has its listeners again");
            core.tell_provider(EventKind::Released, &provider, ProviderState::Alive, what);
            core.follow_up();
            Ok(released)
        };
        self.with(work).await
    }
}

impl Daemon {
    /// Flows that one of these providers has had, or that are of these origins, as they end.
    fn flows_of(&self, names: HashSet<String>, mut origins: Origins) -> broadcast::Receiver<Arc<FlowLine>> {
        let mut all = self.0.flows.follow_origins();
        let (theirs, told) = broadcast::channel(FOLLOWER_MAY_LAG);
        self.0.runtime.spawn(async move {
            loop {
                let line = tokio::select! {
                    line = all.recv() => line,
                    () = theirs.closed() => return,
                };
                let line = match line {
                    Ok((_, line)) if answers::is_of(&line, &names) => line,
                    Ok((cgroup, line)) if answers::has_origin(&line) && origins.has(cgroup) => line,
                    Ok(_) => continue,
                    Err(broadcast::error::RecvError::Lagged(lost)) => Arc::new(FlowLine::Lost { lost }),
                    Err(broadcast::error::RecvError::Closed) => return,
                };
                let _ = theirs.send(line);
            }
        });
        told
    }
}

/// Lines that a session may be behind before it loses some.
const FOLLOWER_MAY_LAG: usize = 1024;
