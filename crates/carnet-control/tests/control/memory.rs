//! A daemon without a kernel: what is registered is in a table.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use carnet_control::{
    Applied, Backend, Begun, Caller, Decision, Ended, Event, EventKind, Flow, FlowLine, Listener, Mistake, OnDead,
    PolicyRequest, PolicySummary, Problem, ProblemKind, Protocol, Provider, ProviderState, Records, Registered,
    RegisteredProvider, Removed, SessionEnd, SessionId, SessionNews, SessionRequest, Status,
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
    pub reloaded: u64,
    pub providers: Vec<Provider>,
    pub open: Vec<Flow>,
    pub sessions: BTreeMap<SessionId, Registration>,
    pub begun: u64,
    /// In the order in which they ended.
    pub ended: Vec<(SessionId, SessionEnd)>,
    pub held: BTreeMap<String, (Vec<Listener>, Duration)>,
    /// Who began a session last.
    pub caller: Option<Caller>,
    /// The next call fails with this.
    pub fail: Option<Problem>,
    /// The next call panics.
    pub panic: bool,
}

pub struct Registration {
    pub listeners: Vec<Vec<Listener>>,
    pub news: broadcast::Sender<SessionNews>,
    pub flows: broadcast::Sender<Arc<FlowLine>>,
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

    async fn apply(&self, caller: Caller, policy: PolicyRequest) -> Result<Applied, Problem> {
        let PolicyRequest { text, dry_run, expected } = policy;
        self.call(|state| {
            if expected.is_some_and(|expected| expected != state.generation) {
                let detail = format!("generation {} is in force", state.generation);
                return Err(Problem::new(ProblemKind::Precondition, detail));
            }
            if text.contains("rnak") {
                let suggestion = Some("did you mean `rank`?".into());
                let message = "unknown field `rnak`".into();
                let mistake = Mistake { line: 1, column: 1, message, suggestion, ..Mistake::default() };
                return Err(Problem::new(ProblemKind::Mistakes, "no policy").with_mistakes(vec![mistake]));
            }
            state.applied.push((caller, dry_run));
            if !dry_run {
                state.generation += 1;
                state.policy = text;
            }
            let policy = PolicySummary { generation: state.generation, ..PolicySummary::default() };
            Ok(Applied { applied: !dry_run, policy, warnings: Vec::new() })
        })
    }

    async fn reload(&self, _: Caller) -> Result<Applied, Problem> {
        self.call(|state| {
            state.reloaded += 1;
            Ok(Applied { applied: true, ..Applied::default() })
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
        caller: Caller,
        request: SessionRequest,
        listeners: Vec<Vec<Listener>>,
    ) -> Result<Begun, Problem> {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        self.call(|state| {
            state.caller = Some(caller);
            state.begun += 1;
            let session = SessionId(state.begun);
            let mut registered = Registered { session, providers: Vec::new(), filters: request.filters.len() as u32 };
            for (place, provider) in request.providers.iter().enumerate() {
                let (handle, rank) = ((state.begun * 100) as u32 + place as u32, provider.rank.unwrap_or(1000));
                registered.providers.push(RegisteredProvider { name: provider.name.clone(), handle, rank });
                registered.filters += provider.filters.len() as u32;
                let listen = listeners[place].iter().map(Listener::address).chain(provider.listen.iter().copied());
                state.providers.push(Provider {
                    name: provider.name.clone(),
                    rank,
                    handle,
                    listen: listen.collect(),
                    records: Records::Aware,
                    on_dead: OnDead::Closed,
                    direct: false,
                    owner: provider.owner.to_vec(),
                    filters: provider.filters.len() as u32,
                    state: ProviderState::Alive,
                    session: Some(session),
                    flows: 0,
                });
            }
            let (news, flows) = (broadcast::Sender::new(KEPT), broadcast::Sender::new(KEPT));
            // Whether or not it was asked for: the server tells only who asked.
            let begun = Begun { registered, news: news.subscribe(), flows: Some(flows.subscribe()) };
            state.sessions.insert(session, Registration { listeners, news, flows });
            Ok(begun)
        })
    }

    fn end_session(&self, session: SessionId, end: SessionEnd) {
        self.state(|state| {
            state.ended.push((session, end));
            state.sessions.remove(&session);
            state.providers.retain(|provider| provider.session != Some(session));
        });
        self.ended.notify_waiters();
    }

    async fn hold(
        &self,
        _: Caller,
        provider: String,
        listeners: Vec<Listener>,
        at_most: Duration,
    ) -> Result<(), Problem> {
        self.call(|state| {
            state.held.insert(provider, (listeners, at_most));
            Ok(())
        })
    }

    async fn release(&self, _: Caller, provider: String) -> Result<Vec<Listener>, Problem> {
        self.call(|state| {
            let nothing = || Problem::new(ProblemKind::NotFound, format!("nothing is held for {provider:?}"));
            state.held.remove(&provider).map(|(listeners, _)| listeners).ok_or_else(nothing)
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
        stranger: None,
        message: message.into(),
    }
}
