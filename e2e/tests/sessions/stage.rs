//! A daemon, a server to which an application goes, and a service that may get what goes there.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use carnet::Redirect;
use carnet_control::{Client, ClientError, Problem, Session, SessionRequest};
use carnet_e2e::sockets::{connect, listen, until};
use carnet_e2e::{Daemon, Ground, enter};
use carnet_engine::cgroup::Cgroup;
use serde_json::{Value, json};

pub struct Stage {
    pub daemon: Daemon,
    /// Where the application goes.
    pub server: TcpListener,
    pub ground: Ground,
}

/// Where a connection has come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    /// The service, with its record.
    Service,
    Server,
    /// Nobody: this is the errno.
    Refused(i32),
}

impl Stage {
    /// A daemon with no provider of its own.
    pub fn new() -> Self {
        Self::with("")
    }

    /// With this policy file.
    pub fn with(policy: &str) -> Self {
        let ground = Ground::new();
        Self::on(ground, policy)
    }

    pub fn on(ground: Ground, policy: &str) -> Self {
        Self { daemon: Daemon::start(&ground, policy), server: listen("127.0.0.1:0"), ground }
    }

    pub fn destination(&self) -> SocketAddr {
        self.server.local_addr().unwrap()
    }

    /// A listener of the first service's.
    pub fn listener(&self, at: &str) -> TcpListener {
        self.ground.within(&self.ground.service(0), || listen(at))
    }

    /// A command of the first service's.
    pub fn product(&self, name: &str, command: &[&str]) -> Command {
        let mut product = enter(&self.ground.service(0), crate::PRODUCT);
        product.arg(self.daemon.socket()).arg(name).args(command);
        product
    }

    /// What an application goes to the server with, again and again.
    pub fn load(&self) -> Command {
        let mut load = enter(&self.ground.app, crate::PINNED);
        load.args(["connects", &self.destination().to_string()]);
        load
    }

    /// A filter that redirects what goes to the server.
    pub fn filter(&self) -> Value {
        json!({"match": {"remote-port": self.destination().port()}, "action": "redirect"})
    }

    /// A provider that has what goes to the server, at the first listener that is passed.
    pub fn passed(&self, name: &str) -> Value {
        json!({"name": name, "listeners": [{"fd": 0}], "filters": [self.filter()]})
    }

    /// The same at an address where it listens by itself.
    pub fn listening(&self, name: &str, at: &TcpListener) -> Value {
        json!({"name": name, "listen": at.local_addr().unwrap(), "filters": [self.filter()]})
    }

    /// Registers these providers as a process of the first service's.
    pub fn register(&self, providers: Value, listeners: &[&TcpListener]) -> Result<Session, ClientError> {
        self.register_from(&self.ground.service(0), &json!({ "providers": providers }), listeners)
    }

    pub fn register_from(
        &self,
        cgroup: &Cgroup,
        request: &Value,
        all: &[&TcpListener],
    ) -> Result<Session, ClientError> {
        let request: SessionRequest = serde_json::from_value(request.clone()).unwrap();
        let listeners: Vec<BorrowedFd> = all.iter().map(|listener| listener.as_fd()).collect();
        let ask = async |client: Client| client.session(&request, &listeners).await;
        self.ground.within(cgroup, || self.daemon.asked(ask))
    }

    /// What the daemon has against it.
    pub fn refused(&self, providers: Value, listeners: &[&TcpListener]) -> Problem {
        problem(self.register(providers, listeners))
    }

    /// An application goes to the server.
    pub fn arrival(&self, service: &TcpListener) -> Arrival {
        let client = match self.ground.within(&self.ground.app, || connect(self.destination())) {
            Ok(client) => client,
            Err(errno) => return Arrival::Refused(errno),
        };
        // A connection over loopback is in a queue when connect() returns.
        let arrival = match (service.accept(), self.server.accept()) {
            (Ok((accepted, _)), Err(_)) => {
                let flow = Redirect::of(&accepted).flow().unwrap();
                assert_eq!(flow.destination(), self.destination());
                Arrival::Service
            }
            (Err(_), Ok(_)) => Arrival::Server,
            others => panic!("{others:?}"),
        };
        drop(client);
        arrival
    }

    /// Waits until connections come to there. How long that took.
    pub fn wait_for(&self, arrival: Arrival, service: &TcpListener) -> Duration {
        let begin = Instant::now();
        until(&format!("connections to come to: {arrival:?}"), || (self.arrival(service) == arrival).then_some(()));
        begin.elapsed()
    }

    /// What must not have changed where something was refused.
    pub fn in_force(&self) -> (u64, u32, Vec<String>) {
        let status = self.daemon.status();
        let names = self.daemon.providers().into_iter().map(|provider| provider.name).collect();
        (status.policy.generation, status.sessions, names)
    }
}

/// Why it was refused.
pub fn problem<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Problem {
    match answer {
        Err(ClientError::Refused(problem)) => *problem,
        other => panic!("not refused: {other:?}"),
    }
}
