//! Connections in, calls of the backend out.

mod answer;
mod call;
pub(crate) mod limits;
mod request;
pub(crate) mod routes;
mod session;
mod stream;

use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;
use tokio::{
    net::UnixStream,
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

pub use self::limits::Limits;
use self::{
    answer::answer,
    limits::{Seat, Seats},
    routes::{Operation, Route},
};
use crate::{
    Access, AccessLists, Backend, Caller, ControlSocket, Problem, ProblemKind, Role,
    wire::{Channel, Takes, raw_answer},
};

/// The API, listening. Connections wait for [`run`](Self::run).
#[derive(Debug)]
pub struct Server<B> {
    socket: ControlSocket,
    backend: Arc<B>,
    access: AccessLists,
    limits: Limits,
}

/// What all connections share.
struct Shared<B> {
    backend: Arc<B>,
    access: AccessLists,
    limits: Limits,
    seats: Seats,
    refusals: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    /// Closed when nobody has this any more.
    _alive: mpsc::Sender<Infallible>,
}

impl<B: Backend> Server<B> {
    /// Serves `backend` at `socket` to those who are in `access`.
    pub fn new(socket: ControlSocket, backend: Arc<B>, access: Access) -> Self {
        Self { socket, backend, access: AccessLists(watch::Sender::new(access)), limits: Limits::default() }
    }

    /// Other limits than the usual ones.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Replaces who may do what while the server runs.
    pub fn access(&self) -> AccessLists {
        self.access.clone()
    }

    /// Serves until `shutdown` is ready. Then it listens no more, ends streams and sessions, and waits for answers that
    /// are being worked at, for as long as [`Limits::drain`]. Every session has been ended when it returns, unless the
    /// backend takes longer than that for a call.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { socket, backend, access, limits } = self;
        let limits = limits.within_descriptors();
        let drain = limits.drain;
        let (alive, mut gone) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            backend,
            access,
            seats: Seats::new(&limits),
            refusals: Arc::new(Semaphore::new(limits.refusals())),
            limits,
            closing: watch::Sender::new(false),
            _alive: alive,
        });
        let mut connections = JoinSet::new();
        // Dropped before the connections are, where this future is: their sessions end by that, and not by their callers.
        let closing = Closing(shared.closing.clone());
        let mut shutdown = pin!(shutdown);
        let mut pause = pin!(sleep(Duration::ZERO));
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = socket.listener.accept(), if pause.is_elapsed() => match accepted {
                    Ok((stream, _)) => admit(stream, &shared, &mut connections),
                    // The connection stays in the queue: do not spin on it. Out of descriptors, most likely.
                    Err(error) if error.kind() != io::ErrorKind::ConnectionAborted => {
                        pause.as_mut().reset(Instant::now() + ACCEPT_PAUSE);
                    }
                    Err(_) => {}
                },
                () = &mut pause, if !pause.is_elapsed() => {}
            }
        }

        drop(socket);
        drop((closing, shared));
        let ended = async {
            while connections.join_next().await.is_some() {}
            gone.recv().await
        };
        if timeout(drain, ended).await.is_err() {
            connections.shutdown().await;
        }
    }
}

/// Dropped, the server is ending.
struct Closing(watch::Sender<bool>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

fn admit<B: Backend>(stream: UnixStream, shared: &Arc<Shared<B>>, connections: &mut JoinSet<()>) {
    // Fails for no connected socket.
    let Ok(caller) = Caller::of(&stream) else { return };
    match shared.seats.take(caller.uid) {
        Some(seat) => {
            connections.spawn(serve(stream, seat, caller, Arc::clone(shared)));
        }
        None => {
            // Without room for even that, the connection is closed.
            let Ok(permit) = Arc::clone(&shared.refusals).try_acquire_owned() else { return };
            let channel = Channel::new(stream, Takes::Bytes, Some(Arc::new(permit)));
            let limits = shared.limits.clone();
            connections.spawn(async move {
                let refuse = async {
                    // An answer to no request confuses clients.
                    channel.is_spoken_to().await;
                    channel.send_now(&raw_answer(&limits.too_many()));
                    channel.linger(limits.linger_bytes).await;
                };
                let _ = timeout(limits.linger, refuse).await;
                channel.end();
            });
        }
    }
}

async fn serve<B: Backend>(stream: UnixStream, seat: Seat, caller: Caller, shared: Arc<Shared<B>>) {
    let caller = Arc::new(caller.looked_up(&stream));
    let takes = Takes::of(caller.role_by(&shared.access.0.borrow()));
    let channel = Channel::new(stream, takes, Some(Arc::new(seat)));
    let limits = &shared.limits;
    let service = service_fn(|request| {
        let (channel, shared, caller) = (Arc::clone(&channel), Arc::clone(&shared), Arc::clone(&caller));
        async move { Ok::<_, Infallible>(answer(request, &caller, &channel, &shared).await) }
    });
    {
        let mut closing = shared.closing.subscribe();
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
        // Who says no more than its request still gets the answer; streams look after their ends themselves.
        builder.max_headers(MOST_FIELDS).max_buf_size(HEAD).half_close(true);
        let mut connection = pin!(builder.serve_connection(channel.wire(limits.write_timeout), service));
        let over = tokio::select! {
            _ = &mut connection => true,
            () = async { drop(closing.wait_for(|closing| *closing).await) } => false,
        };
        if !over {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    if !*shared.closing.borrow() {
        let _ = timeout(limits.linger, channel.linger(limits.linger_bytes)).await;
    }
    channel.end();
}

impl Takes {
    /// Only those who may register have a use for descriptors here. Each takes up one of the daemon's.
    fn of(role: Option<Role>) -> Self {
        if role >= Some(Role::Registrar) { Self::Descriptors } else { Self::Bytes }
    }
}

impl<B> Shared<B> {
    fn is_open(&self) -> Result<(), Problem> {
        match *self.closing.borrow() {
            true => Err(Problem::new(ProblemKind::Unavailable, "the daemon is ending")),
            false => Ok(()),
        }
    }
}

/// Bytes of a request's head.
const HEAD: usize = 64 * 1024;
const MOST_FIELDS: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
