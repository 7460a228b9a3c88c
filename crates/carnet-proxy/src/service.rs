mod admission;
mod flow;
mod inspected;
mod opened;
mod opening;
mod refusal;
mod route;
mod through;
mod whose;

use std::{
    future::{Future, poll_fn},
    io,
    net::{self, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{self, Instant},
};

use self::{
    admission::{Admission, Admitted},
    flow::serve,
    route::{Recorded, Routes},
};
use crate::{Error, Inspection, Limits, Report, Reporter, files::flows_possible, limits::Gate};

/// The service, listening. Connections wait for [`run`](Self::run).
#[derive(Debug)]
pub struct Service {
    listeners: Vec<net::TcpListener>,
    options: Options,
    inspection: Option<Arc<Inspection>>,
}

/// What can be chosen; the defaults suit `carnet run`.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a destination may take to accept. `None`: as long as the kernel tries, about two minutes.
    pub connect_timeout: Option<Duration>,
    /// After how long a silence a destination is asked whether it is still there; the application's own question ends
    /// at this service. `None`: never.
    pub keepalive: Option<Duration>,
    /// Most flows at a time; more wait unaccepted. `None`: as many as the limit of open files has room for when the
    /// service begins (see [`raise_file_limit`](crate::raise_file_limit)).
    pub max_flows: Option<usize>,
    /// What one user may take, and how fast connections may come.
    pub limits: Limits,
    /// How long flows may go on after shutdown.
    pub drain: Duration,
}

/// What a service did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Connections accepted.
    pub accepted: u64,
    /// Those of them that were reset because their user was over a limit ([`Limits`]).
    pub over_limits: u64,
    /// Flows reset because they had not ended in time after shutdown.
    pub cut_off: usize,
}

impl Service {
    /// Listens on each of the addresses: an IPv6 one takes IPv6 only, port 0 is any free one.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`], [`Error::NoListener`].
    pub fn bind(addresses: &[SocketAddr], options: Options) -> Result<Self, Error> {
        let listen = |&address| listen(address).map_err(|source| Error::Bind { address, source });
        Self::from_listeners(addresses.iter().map(listen).collect::<Result<_, _>>()?, options)
    }

    /// The same, beside listeners that are there already.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`], [`Error::Listener`], [`Error::NoListener`].
    pub fn bind_beside(
        mut listeners: Vec<net::TcpListener>,
        addresses: &[SocketAddr],
        options: Options,
    ) -> Result<Self, Error> {
        if !addresses.is_empty() {
            listeners.extend(Self::bind(addresses, options.clone())?.listeners);
        }
        Self::from_listeners(listeners, options)
    }

    /// Takes listeners which the caller has bound, and lengthens their queues.
    ///
    /// # Errors
    ///
    /// [`Error::Listener`], [`Error::NoListener`].
    pub fn from_listeners(listeners: Vec<net::TcpListener>, options: Options) -> Result<Self, Error> {
        if listeners.is_empty() {
            return Err(Error::NoListener);
        }
        for (index, listener) in listeners.iter().enumerate() {
            let prepared = SockRef::from(listener).listen(BACKLOG).and_then(|()| listener.set_nonblocking(true));
            prepared.map_err(|source| Error::Listener { index, source })?;
        }
        Ok(Self { listeners, options, inspection: None })
    }

    /// The same with rules. Each flow is told of once, by [`Report::Flow`] in the place of [`Report::Name`].
    #[must_use]
    pub fn inspecting(self, inspection: Arc<Inspection>) -> Self {
        Self { inspection: Some(inspection), ..self }
    }

    /// Where it listens, in the order given.
    ///
    /// # Errors
    ///
    /// Those of `getsockname`; none is usual.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(net::TcpListener::local_addr).collect()
    }

    /// Serves until `shutdown` is ready. Then it listens no more, and ends when all flows have, or after
    /// [`Options::drain`], when it resets those that are left. So does dropping the future.
    ///
    /// # Errors
    ///
    /// [`Error::Listener`], before anything is served.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn run(self, reporter: impl Reporter, shutdown: impl Future<Output = ()>) -> Result<Summary, Error> {
        self.run_with(Recorded, reporter, shutdown).await
    }

    /// Its listeners, in the order given, so that they can be passed on.
    pub fn listeners(&self) -> &[net::TcpListener] {
        &self.listeners
    }

    async fn run_with(
        self,
        routes: impl Routes,
        reporter: impl Reporter,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Summary, Error> {
        let mut listeners = Listeners::new(self.listeners)?;
        let desk = Arc::new(Desk { routes, reporter, options: self.options, inspection: self.inspection });
        let gate = Gate::new(desk.options.limits);
        let mut admission = Admission::new(Arc::clone(&gate));
        let max_flows = desk.options.max_flows.unwrap_or_else(flows_possible);
        let mut flows = JoinSet::new();
        let mut summary = Summary::default();
        let (mut said_full, mut said_failed) = (false, false);
        let mut shutdown = std::pin::pin!(shutdown);
        let mut pause = std::pin::pin!(time::sleep(Duration::ZERO));

        let spawn = |flows: &mut JoinSet<()>, (client, peer, permit): Admitted| {
            let flow = serve(client, peer, Arc::clone(&desk));
            flows.spawn(async move {
                flow.await;
                drop(permit);
            });
        };
        loop {
            if flows.len() >= max_flows && !said_full {
                said_full = true;
                desk.reporter.report(Report::Full { flows: flows.len() });
            }
            let may_accept = pause.is_elapsed() && admission.is_free() && flows.len() < max_flows;
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = flows.join_next() => {}
                accepted = listeners.accept(), if may_accept => match accepted {
                    Ok((client, peer)) => {
                        summary.accepted += 1;
                        if let Some(admitted) = admission.of(client, peer, &desk) {
                            spawn(&mut flows, admitted);
                        }
                    }
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(error) => {
                        // The connection stays in the queue, so the listener stays ready: do not spin on it.
                        pause.as_mut().reset(Instant::now() + ACCEPT_PAUSE);
                        if !said_failed {
                            said_failed = true;
                            desk.reporter.report(Report::AcceptFailed { flows: flows.len(), error });
                        }
                    }
                },
                admitted = admission.turn(), if !admission.is_free() => spawn(&mut flows, admitted),
                () = &mut pause, if !pause.is_elapsed() => {}
            }
        }

        drop(listeners);
        if let Some(admitted) = admission.last() {
            spawn(&mut flows, admitted);
        }
        summary.over_limits = gate.refused();
        let ended = async { while flows.join_next().await.is_some() {} };
        if time::timeout(desk.options.drain, ended).await.is_err() {
            summary.cut_off = flows.len();
            flows.shutdown().await;
        }
        Ok(summary)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: None,
            keepalive: Some(Duration::from_secs(60)),
            max_flows: None,
            limits: Limits::default(),
            drain: Duration::from_secs(5),
        }
    }
}

/// What all flows share.
struct Desk<T, R> {
    routes: T,
    reporter: R,
    options: Options,
    inspection: Option<Arc<Inspection>>,
}

/// One accepting task for all listeners, so that flows are counted, and ended, in one place.
struct Listeners {
    listeners: Vec<TcpListener>,
    next: usize,
}

impl Listeners {
    fn new(listeners: Vec<net::TcpListener>) -> Result<Self, Error> {
        let mut taken = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            taken.push(TcpListener::from_std(listener).map_err(|source| Error::Listener { index, source })?);
        }
        Ok(Self { listeners: taken, next: 0 })
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Begins after the listener that was served last, or a busy one would keep the others waiting.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.listeners.len();
        for index in (self.next..count).chain(0..self.next) {
            if let Poll::Ready(result) = self.listeners[index].poll_accept(cx) {
                self.next = (index + 1) % count;
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    }
}

fn listen(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Linux hands errors of the new connection to `accept()`; the next one is as good as ever.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
    )
}

/// The kernel's own limit, `net.core.somaxconn`, is the same by default.
const BACKLOG: i32 = 4096;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
