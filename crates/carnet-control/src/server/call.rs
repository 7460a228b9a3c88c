//! A request, carried out.

use std::{future::Future, sync::Arc, time::Duration};

use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
};
use tokio::sync::mpsc;

use super::{
    Operation, Route, Shared,
    answer::{Answer, json, lines, whole},
    request,
    session::{self, Lifetime},
    stream::{self, AHEAD, Ends},
};
use crate::{
    Backend, Caller, Event, EventLine, FlowLine, Held, HoldRequest, JSON, Mistake, PolicyRequest, Problem, ProblemKind,
    Providers, Released, Role, SessionRequest, TOML,
    wire::{Channel, MOST_DESCRIPTORS},
};

/// A request to a path that there is.
pub(super) struct Call<'a, B> {
    pub(super) caller: Caller,
    /// The name in the path.
    pub(super) name: String,
    pub(super) channel: &'a Arc<Channel>,
    pub(super) shared: &'a Arc<Shared<B>>,
}

impl<B: Backend> Call<'_, B> {
    pub(super) async fn answer(
        &mut self,
        route: &Route,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Problem> {
        self.demand_any(route.role)?;
        let flags = request::flags(route, request.uri().query())?;
        let expected = request::expected(route, request.headers())?;
        let body = request::body(request, route.takes, &self.shared.limits).await?;
        self.shared.is_open()?;
        // Bodies take their time, and the lists may have been replaced meanwhile.
        self.caller.role = self.caller.role_by(&self.shared.access.0.borrow());
        self.demand_any(route.role)?;
        match route.operation {
            Operation::Status => json(&self.ask(|backend, _| async move { backend.status().await }).await?),
            Operation::Policy => {
                let policy = self.ask(|backend, _| async move { backend.policy().await }).await?;
                Ok(whole(StatusCode::OK, TOML, Bytes::from_owner(Text(policy))))
            }
            Operation::Apply => self.apply(body, flags.contains(&"dry-run"), expected).await,
            Operation::Reload => json(&self.ask(|backend, caller| async move { backend.reload(caller).await }).await?),
            Operation::Providers => {
                let providers = self.ask(|backend, _| async move { backend.providers().await }).await?;
                json(&Providers { providers })
            }
            Operation::Flows if flags.contains(&"follow") => self.follow_flows().await,
            Operation::Flows => self.flows().await,
            Operation::Events => Ok(self.events()),
            Operation::Down => json(&self.ask(|backend, caller| async move { backend.down(caller).await }).await?),
            Operation::Session => self.session(&body).await,
            Operation::Hold => self.hold(&body).await,
            Operation::Release => self.release().await,
            Operation::OpenApi => Ok(whole(StatusCode::OK, JSON, Bytes::from_static(OPENAPI))),
        }
    }

    fn demand_any(&self, role: Option<Role>) -> Result<(), Problem> {
        role.map_or(Ok(()), |role| self.demand(role))
    }

    fn demand(&self, role: Role) -> Result<(), Problem> {
        if self.caller.role < Some(role) {
            return Err(Problem::forbidden(&self.caller, role));
        }
        Ok(())
    }

    /// Has the backend do something, to its end even where the caller goes away meanwhile.
    async fn ask<T, F>(&self, call: impl FnOnce(Arc<B>, Caller) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let shared = Arc::clone(self.shared);
        let called = call(Arc::clone(&shared.backend), self.caller.clone());
        let task = tokio::spawn(async move {
            let answer = called.await;
            drop(shared);
            answer
        });
        task.await.unwrap_or_else(|_| {
            let detail = "the daemon failed at this request, which is a bug: its log has more";
            Err(Problem::new(ProblemKind::Failed, detail))
        })
    }

    async fn apply(&self, body: Bytes, dry_run: bool, expected: Option<u64>) -> Result<Response<Answer>, Problem> {
        let text = String::from_utf8(body.into())
            .map_err(|error| not_text(&error.as_bytes()[..error.utf8_error().valid_up_to()]))?;
        let policy = PolicyRequest { text, dry_run, expected };
        let apply = |backend: Arc<B>, caller| async move { backend.apply(caller, policy).await };
        json(&self.ask(apply).await?)
    }

    async fn flows(&self) -> Result<Response<Answer>, Problem> {
        let open = self.ask(|backend, _| async move { backend.flows().await }).await?;
        Ok(self.stream(Role::Reader, |out, _| async move {
            let _ = stream::tell(&out, open.into_iter().map(|flow| FlowLine::Flow(flow.into()))).await;
        }))
    }

    async fn follow_flows(&self) -> Result<Response<Answer>, Problem> {
        let ended = self.shared.backend.follow_flows();
        let open = self.ask(|backend, _| async move { backend.flows().await }).await?;
        self.channel.be_patient();
        Ok(self.stream(Role::Reader, |out, ends| async move {
            let telling = async {
                match stream::tell(&out, open.into_iter().map(|flow| FlowLine::Flow(flow.into()))).await {
                    Ok(()) => stream::follow::<_, FlowLine>(&out, ended, stream::line).await,
                    Err(over) => over,
                }
            };
            stream::until(&out, ends, telling).await.say::<FlowLine>(&out).await;
        }))
    }

    fn events(&self) -> Response<Answer> {
        let events = self.shared.backend.events();
        self.channel.be_patient();
        self.stream(Role::Reader, |out, ends| async move {
            let as_line = |event: &Event| stream::line(&EventLine::Event(event.clone()));
            let telling = stream::follow::<_, EventLine>(&out, events, as_line);
            stream::until(&out, ends, telling).await.say::<EventLine>(&out).await;
        })
    }

    async fn session(&self, body: &[u8]) -> Result<Response<Answer>, Problem> {
        let request: SessionRequest = request::json(body, "a registration of providers or of filters")?;
        let role = match (request.providers.len(), request.filters.len()) {
            (0, 0) => {
                let detail = "the session registers nothing: name providers, filters of the host, or both";
                return Err(Problem::new(ProblemKind::Malformed, detail));
            }
            (_, 0) => Role::Registrar,
            // The host's filters decide before all providers do.
            _ => Role::Administrator,
        };
        self.demand(role)?;
        let named = request.providers.iter().map(|provider| &provider.listeners[..]);
        let listeners = request::listeners(self.channel, named).await?;
        // The guard is made where the session begins: where nobody is there any more to be told, it ends at once.
        let shared = Arc::clone(self.shared);
        let begin = |backend: Arc<B>, caller| async move {
            let told_of_flows = request.flows;
            let mut begun = backend.begin_session(caller, request, listeners).await?;
            begun.flows.take_if(|_| !told_of_flows);
            Ok((Lifetime::of(&begun, shared), begun))
        };
        let (lifetime, begun) = self.ask(begin).await?;
        self.channel.be_patient();
        Ok(self.stream(role, |out, ends| session::run(lifetime, begun, out, ends)))
    }

    async fn hold(&self, body: &[u8]) -> Result<Response<Answer>, Problem> {
        let request: HoldRequest = request::json(body, "a list of listeners")?;
        if !(1..=HoldRequest::MOST_SECONDS).contains(&request.seconds) {
            let detail = format!(
                "`for` is {}: write how many seconds the listeners are held at most, from 1 to {}",
                request.seconds,
                HoldRequest::MOST_SECONDS
            );
            return Err(Problem::new(ProblemKind::Malformed, detail));
        }
        let listeners = request::listeners(self.channel, [&request.listeners[..]]).await?.remove(0);
        if listeners.is_empty() {
            let detail =
                "there is nothing to hold: pass listening sockets with SCM_RIGHTS, and name them in `listeners`";
            return Err(Problem::new(ProblemKind::Malformed, detail));
        }
        let provider = self.name.clone();
        let addresses = listeners.iter().map(|it| it.address()).collect();
        let held = Held { provider: provider.clone(), listeners: addresses, seconds: request.seconds };
        let at_most = Duration::from_secs(request.seconds.into());
        self.ask(|backend, caller| async move { backend.hold(caller, provider, listeners, at_most).await }).await?;
        json(&held)
    }

    async fn release(&self) -> Result<Response<Answer>, Problem> {
        let provider = self.name.clone();
        let release = |backend: Arc<B>, caller| async move { backend.release(caller, provider).await };
        let listeners = self.ask(release).await?;
        if listeners.len() > MOST_DESCRIPTORS {
            let detail = format!("more than {MOST_DESCRIPTORS} listeners are held, which is a bug");
            return Err(Problem::new(ProblemKind::Failed, detail));
        }
        let addresses = listeners.iter().map(|listener| listener.address()).collect();
        let response = json(&Released { provider: self.name.clone(), listeners: addresses })?;
        self.channel.send_along(listeners.into_iter().map(Into::into).collect());
        Ok(response)
    }

    /// An answer whose lines `telling` sends. That goes on beside the connection, and ends when nobody reads, or when the
    /// caller has not the `role` any more.
    fn stream<F>(&self, role: Role, telling: impl FnOnce(mpsc::Sender<Bytes>, Ends) -> F) -> Response<Answer>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let shared = Arc::clone(self.shared);
        let ends = Ends {
            channel: Arc::clone(self.channel),
            access: shared.access.0.subscribe(),
            closing: shared.closing.subscribe(),
            caller: self.caller.clone(),
            role,
        };
        let telling = telling(sender, ends);
        tokio::spawn(async move {
            telling.await;
            drop(shared);
        });
        lines(receiver)
    }
}

/// A policy, as bytes.
struct Text(Arc<str>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn not_text(before: &[u8]) -> Problem {
    let line = before.split(|&byte| byte == b'\n').count();
    let column = before.rsplit(|&byte| byte == b'\n').next().unwrap_or_default().len() + 1;
    let mistake = Mistake {
        line: line.try_into().unwrap_or(u32::MAX),
        column: column.try_into().unwrap_or(u32::MAX),
        message: "this is not UTF-8".into(),
        suggestion: Some("save the file as UTF-8".into()),
        ..Mistake::default()
    };
    Problem::new(ProblemKind::Mistakes, "the policy is no text").with_mistakes(vec![mistake])
}

const OPENAPI: &[u8] = include_bytes!("../../../../docs/openapi.json");
