//! A server in a folder of its own, which is gone with the scene.

use std::{
    fs::Permissions,
    future::Future,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::Duration,
};

use carnet_control::{
    Access, AccessLists, Action, Client, ControlSocket, FilterRegistration, Identities, Limits, Match, OnDead,
    OneOrMore, ProviderRegistration, Reach, Records, Server, SessionEnd, SessionRequest, SockName,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use crate::memory::Memory;

pub struct Scene {
    pub folder: TempDir,
    pub backend: Arc<Memory>,
    pub access: AccessLists,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Scene {
    /// The caller of these tests is an administrator, whoever that is.
    pub fn new() -> Self {
        Self::with(Limits::default(), own_access())
    }

    pub fn with_limits(limits: Limits) -> Self {
        Self::with(limits, own_access())
    }

    pub fn with(limits: Limits, access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Other users have to get to the socket.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let backend = Memory::new();
        let socket = ControlSocket::bind(folder.path().join("control.sock")).unwrap();
        let server = Server::new(socket, Arc::clone(&backend), access).with_limits(limits);
        let access = server.access();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server.run(async { drop(stopped.await) }));
        Self { folder, backend, access, stop: Some(stop), server }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.socket()).await.unwrap()
    }

    /// Returns when the server has ended.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        soon("the end of the server", &mut self.server).await.unwrap();
    }

    /// Waits until sessions have ended, and returns which.
    pub async fn ended(&self, count: usize) -> Vec<u64> {
        let all_ended = async {
            loop {
                let ended = self.backend.ended.notified();
                if self.backend.state(|state| state.ended.len()) >= count {
                    return;
                }
                ended.await;
            }
        };
        soon("the end of the sessions", all_ended).await;
        self.backend.state(|state| state.ended.iter().map(|(session, _)| session.0).collect())
    }

    /// Why the session that ended last did.
    pub fn last_end(&self) -> Option<SessionEnd> {
        self.backend.state(|state| state.ended.last().map(|(_, end)| *end))
    }

    /// Waits until something is so, which nothing tells.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Memory) -> bool) {
        let waiting = async {
            while !is_so(&self.backend) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(what, waiting).await;
    }
}

pub fn own_access() -> Access {
    let own = rustix::process::geteuid().as_raw();
    Access { administer: Identities { uids: [own].into(), ..Identities::default() }, ..Access::default() }
}

/// Somebody else than root: "nobody" where the tests run as root, otherwise whoever runs them.
pub fn stranger() -> u32 {
    match rustix::process::geteuid().as_raw() {
        0 => 65534,
        own => own,
    }
}

/// A program that runs as [`stranger`].
pub fn as_stranger(program: &str) -> Command {
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        command.uid(stranger()).gid(stranger());
    }
    command
}

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(Duration::from_secs(30), future).await {
        Ok(output) => output,
        Err(_) => panic!("waited 30 s for {what}"),
    }
}

pub fn registration(name: &str, rank: u16) -> SessionRequest {
    SessionRequest { providers: vec![provider(name, Some(rank))], ..SessionRequest::default() }
}

pub fn provider(name: &str, rank: Option<u16>) -> ProviderRegistration {
    ProviderRegistration {
        name: name.into(),
        rank,
        listen: vec!["127.0.0.1:15001".parse().unwrap()].into(),
        listeners: Vec::new(),
        records: Records::Aware,
        on_dead: OnDead::Open,
        direct: false,
        reach: Reach::Routes,
        sockname: SockName::Own,
        in_flight_limit: None,
        owner: OneOrMore::default(),
        filters: vec![FilterRegistration {
            name: "web".into(),
            weight: 1,
            matches: Match::default(),
            action: Action::Redirect,
            context: None,
            context_base64: None,
        }],
    }
}
