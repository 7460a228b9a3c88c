//! A request, carried out.

use std::{future::Future, sync::Arc};

use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
};
use tokio::sync::mpsc;

use super::{
    Operation, Route, Shared,
    answer::{Answer, json, lines, whole},
    request,
    stream::{self, AHEAD, Ends},
};
use crate::{
    Backend, Caller, Event, EventLine, FlowLine, Held, HoldRequest, JSON, Mistake, Problem, ProblemKind, Providers,
    Released, Role, SessionId, SessionLine, SessionRequest, TOML,
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
    pub(super) async fn answer(&self, route: &Route, request: Request<Incoming>) -> Result<Response<Answer>, Problem> {
        if let Some(role) = route.role {
            self.demand(role)?;
        }
        let flags = request::flags(route, request.uri().query())?;
        let body = request::body(request, route.takes, &self.shared.limits).await?;
        self.shared.is_open()?;
        match route.operation {
            Operation::Status => json(&self.ask(|backend, _| async move { backend.status().await }).await?),
            Operation::Policy => {
                let policy = self.ask(|backend, _| async move { backend.policy().await }).await?;
                Ok(whole(StatusCode::OK, TOML, Bytes::from_owner(Text(policy))))
            }
            Operation::Apply => self.apply(body, flags.contains(&"dry-run")).await,
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
        let called = call(Arc::clone(&shared.backend), self.caller);
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

    async fn apply(&self, body: Bytes, dry_run: bool) -> Result<Response<Answer>, Problem> {
        let policy = String::from_utf8(body.into())
            .map_err(|error| not_text(&error.as_bytes()[..error.utf8_error().valid_up_to()]))?;
        let apply = |backend: Arc<B>, caller| async move { backend.apply(caller, policy, dry_run).await };
        json(&self.ask(apply).await?)
    }

    async fn flows(&self) -> Result<Response<Answer>, Problem> {
        let open = self.ask(|backend, _| async move { backend.flows().await }).await?;
        Ok(self.stream(Role::Reader, |out, _| async move {
            stream::tell(&out, open.into_iter().map(|flow| FlowLine::Flow(flow.into()))).await;
        }))
    }

    async fn follow_flows(&self) -> Result<Response<Answer>, Problem> {
        let ended = self.shared.backend.follow_flows();
        let open = self.ask(|backend, _| async move { backend.flows().await }).await?;
        self.channel.be_patient();
        Ok(self.stream(Role::Reader, |out, ends| async move {
            let telling = async {
                stream::tell(&out, open.into_iter().map(|flow| FlowLine::Flow(flow.into()))).await?;
                stream::follow::<_, FlowLine>(&out, ended, stream::line).await
            };
            stream::until::<FlowLine>(&out, ends, telling).await;
        }))
    }

    fn events(&self) -> Response<Answer> {
        let events = self.shared.backend.events();
        self.channel.be_patient();
        self.stream(Role::Reader, |out, ends| async move {
            let as_line = |event: &Event| stream::line(&EventLine::Event(event.clone()));
            let telling = stream::follow::<_, EventLine>(&out, events, as_line);
            stream::until::<EventLine>(&out, ends, telling).await;
        })
    }

    async fn session(&self, body: &[u8]) -> Result<Response<Answer>, Problem> {
        let request: SessionRequest = request::json(body, "a registration of a provider or of filters")?;
        let role = match &request.provider {
            None if request.filters.is_empty() => {
                let detail = "the session registers nothing: name a provider, filters, or both";
                return Err(Problem::new(ProblemKind::Malformed, detail));
            }
            // They decide before all providers do.
            None => Role::Administrator,
            Some(_) => Role::Registrar,
        };
        self.demand(role)?;
        let named = request.provider.as_ref().map(|provider| &provider.listeners[..]).unwrap_or_default();
        let listeners = request::listeners(self.channel, named).await?;
        // The guard is made where the session begins: where nobody is there any more to be told, it ends at once.
        let begin = |backend: Arc<B>, caller| async move {
            let begun = backend.begin_session(caller, request, listeners).await?;
            Ok((Lifetime { session: begun.registered.session, backend }, begun))
        };
        let (lifetime, begun) = self.ask(begin).await?;
        self.channel.be_patient();
        Ok(self.stream(role, |out, ends| async move {
            let told = &out;
            // Ends the session when it is dropped: before anybody is told why, for that may take a while.
            let telling = async move {
                let _lifetime = lifetime;
                stream::tell(told, [SessionLine::Registered { registered: begun.registered }]).await?;
                let as_line = |event: &Event| stream::line(&SessionLine::Event(event.clone()));
                stream::follow::<_, SessionLine>(told, begun.events, as_line).await
            };
            stream::until::<SessionLine>(&out, ends, telling).await;
        }))
    }

    async fn hold(&self, body: &[u8]) -> Result<Response<Answer>, Problem> {
        let request: HoldRequest = request::json(body, "a list of listeners")?;
        let listeners = request::listeners(self.channel, &request.listeners).await?;
        if listeners.is_empty() {
            let detail =
                "there is nothing to hold: pass listening sockets with SCM_RIGHTS, and name them in `listeners`";
            return Err(Problem::new(ProblemKind::Malformed, detail));
        }
        let provider = self.name.clone();
        let held = Held { provider: provider.clone(), listeners: listeners.iter().map(|it| it.address()).collect() };
        self.ask(|backend, caller| async move { backend.hold(caller, provider, listeners).await }).await?;
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
            caller: self.caller,
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

/// Ends a session when it is dropped, by whatever way that comes about.
struct Lifetime<B: Backend> {
    session: SessionId,
    backend: Arc<B>,
}

impl<B: Backend> Drop for Lifetime<B> {
    fn drop(&mut self) {
        self.backend.end_session(self.session);
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
    };
    Problem::new(ProblemKind::Mistakes, "the policy is no text").with_mistakes(vec![mistake])
}

const OPENAPI: &[u8] = include_bytes!("../../../../docs/openapi.json");
