//! A service that stands still.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet_control::{EventKind, ProviderState};
use carnet_e2e::daemon::Table;
use carnet_e2e::sockets::{accept, connect, listen};
use carnet_e2e::{Daemon, Ground, Running, enter};
use nix::errno::Errno;

const THROUGH: &str = env!("CARGO_BIN_EXE_carnet-e2e-through");

#[test]
fn a_stopped_service_is_passed_by_where_the_policy_says_so() {
    let stage = Stage::new("open");
    let mut events = stage.daemon.events();
    stage.assert_carried();
    stage.service.stop();
    // It waits in the queue, from which nobody takes it.
    let _waiting = stage.client();
    let event = events.wait_until("that it is stopped", |event| event.state == Some(ProviderState::Stopped));
    assert_eq!((event.event, event.provider.as_deref()), (EventKind::Provider, Some("s")));
    assert_eq!(stage.daemon.provider("s").state, ProviderState::Stopped);
    events.wait_for(EventKind::Policy, "is in force");
    assert!(!stage.is_waiting(), "it is passed by");

    stage.service.resume();
    events.wait_until("that it goes on", |event| event.state == Some(ProviderState::Alive));
    assert_eq!(came(&mut stage.accept()), *b"mw", "what waited is carried");
    events.wait_for(EventKind::Policy, "is in force");
    stage.assert_carried();
}

#[test]
fn what_a_service_blocks_stays_blocked_while_it_is_passed_by() {
    let stage = Stage::new("open");
    // Somebody listens there, so that it is seen whether one gets through.
    let forbidden = listen("127.0.0.1:0");
    let to = forbidden.local_addr().unwrap();
    let block = format!(
        "[[provider.filter]]\nname = \"no\"\nmatch = {{ remote = \"127.0.0.1\", remote-port = {} }}\naction = \"block\"\n",
        to.port()
    );
    stage.daemon.apply(&(stage.daemon.told(&["policy"]) + &block));
    let knock = || stage.ground.within(&stage.ground.app, || connect(to)).err();
    assert_eq!(knock(), Some(Errno::EACCES as i32));

    let mut events = stage.daemon.events();
    stage.service.stop();
    let _waiting = stage.client();
    events.wait_until("that it is stopped", |event| event.state == Some(ProviderState::Stopped));
    events.wait_for(EventKind::Policy, "is in force");
    assert!(!stage.is_waiting(), "it is passed by");
    assert_eq!(knock(), Some(Errno::EACCES as i32));
    assert_eq!(stage.daemon.provider("s").filters, 2);
    stage.service.resume();
    stage.daemon.wait_for_state("s", ProviderState::Alive);
    assert_eq!(knock(), Some(Errno::EACCES as i32));
}

#[test]
fn connections_wait_for_a_stopped_service_where_the_policy_says_so() {
    let stage = Stage::new("closed");
    let mut events = stage.daemon.events();
    stage.service.stop();
    let first = stage.client();
    events.wait_until("that it is stopped", |event| event.state == Some(ProviderState::Stopped));
    let second = stage.client();
    assert!(carnet_e2e::sockets::is_idle(&stage.origin), "nobody gets past it");
    stage.service.resume();
    for _ in [&first, &second] {
        assert_eq!(came(&mut stage.accept()), *b"mw");
    }
    events.wait_until("that it goes on", |event| event.state == Some(ProviderState::Alive));
    stage.assert_carried();
}

/// A service that is a process and marks what it carries, and the destination.
struct Stage {
    service: Running,
    origin: TcpListener,
    to: SocketAddr,
    daemon: Daemon,
    ground: Ground,
}

impl Stage {
    fn new(on_dead: &str) -> Self {
        let ground = Ground::new();
        let cgroup = ground.service(0);
        let port = listen("127.0.0.1:0").local_addr().unwrap().port();
        let service = Running::start(enter(&cgroup, THROUGH).arg(port.to_string()).arg("m"));
        let origin = listen("127.0.0.1:0");
        let to = origin.local_addr().unwrap();
        let table = Table::new("s", 10, &ground, &cgroup, &[([127, 0, 0, 1], port).into()]);
        let table = table.with("records = \"unaware\"").with(&format!("on-dead = \"{on_dead}\""));
        let conditions = format!("remote = \"127.0.0.1\", remote-port = {}", to.port());
        let daemon = Daemon::start(&ground, &table.redirecting("all", &conditions));
        daemon.wait_for_state("s", ProviderState::Alive);
        Self { service, origin, to, daemon, ground }
    }

    fn client(&self) -> TcpStream {
        let mut client = self.ground.within(&self.ground.app, || connect(self.to)).expect("connect");
        client.write_all(b"w").unwrap();
        client
    }

    fn accept(&self) -> TcpStream {
        accept(&self.origin)
    }

    /// Whether a new connection waits in the service's queue: it does not come to the destination.
    fn is_waiting(&self) -> bool {
        let _client = self.client();
        // Loopback: a connection that is not redirected is there when connect() returns.
        match self.origin.accept() {
            Ok((mut accepted, _)) => {
                accepted.set_nonblocking(false).unwrap();
                let mut word = [0];
                accepted.read_exact(&mut word).unwrap();
                assert_eq!(&word, b"w", "the service has not had it");
                false
            }
            Err(_) => true,
        }
    }

    fn assert_carried(&self) {
        assert_eq!(came_of(self), b"mw");
    }
}

/// What comes to the destination of a new connection.
fn came_of(stage: &Stage) -> Vec<u8> {
    let client = stage.client();
    let mut accepted = stage.accept();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    accepted.read_to_end(&mut all).unwrap();
    all
}

fn came(accepted: &mut TcpStream) -> [u8; 2] {
    let mut word = [0; 2];
    accepted.read_exact(&mut word).unwrap();
    word
}
