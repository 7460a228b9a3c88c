//! A daemon without a kernel: what is registered is in a table.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use carnet_control::{
    Applied, Backend, Begun, Caller, Decision, Ended, Event, EventKind, Flow, FlowLine, Listener, Mistake, OnDead,
    PolicySummary, Problem, ProblemKind, Protocol, Provider, ProviderState, Records, Registered, Removed, SessionId,
    SessionRequest, Status,
};
use tokio::sync::{Notify, broadcast};

/// Lines that a stream keeps for a slow reader.
pub const KEPT: usize = 64;

pub struct Memory {
    pub state: Mutex<State>,
    pub flows: broadcast::Sender<Arc<FlowLine>>,
    pub events: broadcast::Sender<Arc<Event>>,
    /// Notified when a session ends.
    pub ended: Notify,
    /// Notified by `down`.
    pub down: Notify,
    /// `begin_session` waits for this where it is set.
    pub gate: Mutex<Option<Arc<Notify>>>,
}

#[derive(Default)]
pub struct State {
    pub policy: String,
    pub generation: u64,
    pub applied: Vec<(Caller, bool)>,
    pub providers: Vec<Provider>,
    pub open: Vec<Flow>,
    pub sessions: BTreeMap<SessionId, Registration>,
    pub begun: u64,
    /// In the order in which they ended.
    pub ended: Vec<SessionId>,
    pub held: BTreeMap<String, Vec<Listener>>,
    /// The next call fails with this.
    pub fail: Option<Problem>,
    /// The next call panics.
    pub panic: bool,
}

pub struct Registration {
    pub listeners: Vec<Listener>,
    pub events: broadcast::Sender<Arc<Event>>,
}

impl Memory {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            flows: broadcast::Sender::new(KEPT),
            events: broadcast::Sender::new(KEPT),
            ended: Notify::new(),
            down: Notify::new(),
            gate: Mutex::default(),
        })
    }

    pub fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    fn call<T>(&self, carry_out: impl FnOnce(&mut State) -> Result<T, Problem>) -> Result<T, Problem> {
        let (panic, fail) = self.state(|state| (std::mem::take(&mut state.panic), state.fail.take()));
        assert!(!panic, "a bug, as the test wants it");
        match fail {
            Some(problem) => Err(problem),
            None => self.state(carry_out),
        }
    }
}

impl Backend for Memory {
    async fn status(&self) -> Result<Status, Problem> {
        self.call(|state| {
            Ok(Status {
                version: "0.1.0".into(),
                instance: "00000000000000aa".into(),
                pid: std::process::id(),
                since: "2026-01-01T00:00:00Z".into(),
                adopted: false,
                cgroups: vec!["/".into()],
                policy: PolicySummary { generation: state.generation, ..PolicySummary::default() },
                providers: state.providers.len() as u32,
                sessions: state.sessions.len() as u32,
                flows: state.open.len() as u64,
                lost: 0,
            })
        })
    }

    async fn policy(&self) -> Result<Arc<str>, Problem> {
        self.call(|state| Ok(state.policy.as_str().into()))
    }

    async fn apply(&self, caller: Caller, policy: String, dry_run: bool) -> Result<Applied, Problem> {
        self.call(|state| {
            if policy.contains("rnak") {
                let suggestion = Some("did you mean `rank`?".into());
                let mistake = Mistake { line: 1, column: 1, message: "unknown field `rnak`".into(), suggestion };
                return Err(Problem::new(ProblemKind::Mistakes, "no policy").with_mistakes(vec![mistake]));
            }
            state.applied.push((caller, dry_run));
            if !dry_run {
                state.generation += 1;
                state.policy = policy;
            }
            let policy = PolicySummary { generation: state.generation, ..PolicySummary::default() };
            Ok(Applied { applied: !dry_run, policy, warnings: Vec::new() })
        })
    }

    async fn providers(&self) -> Result<Vec<Provider>, Problem> {
        self.call(|state| Ok(state.providers.clone()))
    }

    async fn flows(&self) -> Result<Vec<Flow>, Problem> {
        self.call(|state| Ok(state.open.clone()))
    }

    fn follow_flows(&self) -> broadcast::Receiver<Arc<FlowLine>> {
        self.flows.subscribe()
    }

    fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    async fn down(&self, _: Caller) -> Result<Removed, Problem> {
        let removed = self.call(|_| Ok(Removed { removed: vec!["9 programs".into()] }));
        self.down.notify_one();
        removed
    }

    async fn begin_session(
        &self,
        _: Caller,
        request: SessionRequest,
        listeners: Vec<Listener>,
    ) -> Result<Begun, Problem> {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        self.call(|state| {
            state.begun += 1;
            let session = SessionId(state.begun);
            let registered = Registered {
                session,
                provider: request.provider.as_ref().map(|provider| provider.name.clone()),
                handle: request.provider.as_ref().map(|_| state.begun as u32 + 100),
                filters: request.filters.len() as u32,
            };
            if let Some(provider) = &request.provider {
                let listen = listeners.iter().map(Listener::address).chain(provider.listen.iter().copied());
                state.providers.push(Provider {
                    name: provider.name.clone(),
                    rank: provider.rank,
                    handle: state.begun as u32 + 100,
                    listen: listen.collect(),
                    records: Records::Aware,
                    on_dead: OnDead::Closed,
                    direct: false,
                    owner: provider.owner.to_vec(),
                    filters: request.filters.len() as u32,
                    state: ProviderState::Alive,
                    session: Some(session),
                    flows: 0,
                });
            }
            let events = broadcast::Sender::new(KEPT);
            let begun = Begun { registered, events: events.subscribe() };
            state.sessions.insert(session, Registration { listeners, events });
            Ok(begun)
        })
    }

    fn end_session(&self, session: SessionId) {
        self.state(|state| {
            state.ended.push(session);
            state.sessions.remove(&session);
            state.providers.retain(|provider| provider.session != Some(session));
        });
        self.ended.notify_waiters();
    }

    async fn hold(&self, _: Caller, provider: String, listeners: Vec<Listener>) -> Result<(), Problem> {
        self.call(|state| {
            state.held.insert(provider, listeners);
            Ok(())
        })
    }

    async fn release(&self, _: Caller, provider: String) -> Result<Vec<Listener>, Problem> {
        self.call(|state| {
            let nothing = || Problem::new(ProblemKind::NotFound, format!("nothing is held for {provider:?}"));
            state.held.remove(&provider).ok_or_else(nothing)
        })
    }
}

pub fn flow(number: u32) -> Flow {
    Flow {
        flow: format!("{number:032x}"),
        protocol: Protocol::Tcp,
        time: "2026-01-01T00:00:00Z".into(),
        pid: number,
        uid: 1000,
        program: "curl".into(),
        source: Some("127.0.0.1:40000".into()),
        destination: "192.0.2.7:443".into(),
        name: None,
        name_from: None,
        sent: Some(1),
        received: Some(2),
        duration_ms: None,
        decision: Decision::Redirected,
        left_alone: None,
        chain: Vec::new(),
        ambiguous: false,
        ended: Some(Ended::Open),
        at: None,
        error: None,
        reason: None,
    }
}

pub fn event(message: &str) -> Event {
    Event {
        time: "2026-01-01T00:00:00Z".into(),
        event: EventKind::Warning,
        provider: None,
        state: None,
        session: None,
        message: message.into(),
    }
}
