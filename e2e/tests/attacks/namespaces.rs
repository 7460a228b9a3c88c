//! Network, user and cgroup namespaces of the attacker's own.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use carnet::Redirect;
use carnet_abi::{CARNET_RECORDS, Event, REASON_DEAD, REASON_STRANGER, SOL_CARNET, VERDICT_PASS};
use carnet_e2e::actor::{Actor, Call, Family};
use carnet_e2e::programs::{Scratch, require};
use carnet_e2e::raw::NOBODY;
use carnet_e2e::sockets::{accept, connect, connect_on, is_idle, listen, stream};
use carnet_e2e::{Sandbox, netns};
use carnet_policy::{OnDead, Owner};
use libc::{EACCES, ECONNREFUSED};

use super::Stage;

/// Nobody else's listener counts there, though it has the service's very address.
#[test]
fn a_false_listener_in_a_users_own_network() {
    let mut stage = Stage::new();
    let attacker = Attacker::in_app_of(&stage.sandbox, &["--user", "--map-root-user", "--net"]);
    let event = attacker.refused(&mut stage.sandbox, stage.destination);
    assert_eq!(event.reason, REASON_DEAD, "nobody listens there");
    let at = stage.service.listeners[0].local_addr().unwrap();
    let false_one = TcpListener::from(attacker.make(&Call::Listen(at)));
    let event = attacker.refused(&mut stage.sandbox, stage.destination);
    assert_eq!((event.reason, event.uid), (REASON_STRANGER, NOBODY));
    assert!(is_idle(&false_one));
    stage.assert_nobody_came();
}

/// Its name in there may be the owner's uid. To Carnet it is who it is outside.
#[test]
fn a_user_who_calls_himself_the_owner_in_there() {
    const OWNER: u32 = 54_321;
    let mut stage = Stage::new();
    stage.sandbox.policy.providers[0].owners.push(Owner::Uid(OWNER));
    stage.sandbox.apply();
    let (_client, accepted) = stage.sandbox.arrive(&stage.service, stage.destination);
    let blob = Redirect::of(&accepted).records().unwrap().as_bytes().to_vec();
    let attacker =
        Attacker::in_app_of(&stage.sandbox, &["--user", &format!("--map-user={OWNER}"), "--net", "--keep-caps"]);
    let at = stage.service.listeners[0].local_addr().unwrap();
    let false_one = TcpListener::from(attacker.make(&Call::Listen(at)));
    assert_eq!(attacker.refused(&mut stage.sandbox, stage.destination).reason, REASON_STRANGER);
    assert!(is_idle(&false_one));
    let services = stage.sandbox.in_service(0, || stream(stage.destination));
    let (reply, _) = attacker.0.call(&Call::Set(SOL_CARNET, CARNET_RECORDS, blob), Some(services.as_fd()));
    assert_eq!(reply.error, EACCES);
}

/// A process sees another root, and is where it was.
#[test]
fn a_cgroup_namespace_changes_nothing() {
    let stage = Stage::new();
    let attacker = Attacker::in_app_of(&stage.sandbox, &["--user", "--map-root-user", "--cgroup"]);
    let socket = attacker.make(&Call::Socket(Family::V4));
    let (reply, _) = attacker.0.call(&Call::Connect(stage.destination), Some(socket.as_fd()));
    assert_eq!(reply.error, 0);
    let accepted = accept(&stage.service.listeners[0]);
    let flow = Redirect::of(&accepted).flow().unwrap();
    assert_eq!((flow.origin().uid, flow.origin().cgroup_id), (NOBODY, stage.sandbox.app_cgroup().id()));
    stage.assert_nobody_came();
}

/// `setns()` and `unshare()` take a process elsewhere, and not out of its cgroup. Where there is no listener of the
/// service's, `on_dead` decides.
#[test]
fn in_another_network_namespace_there_is_no_way_past_a_closed_service() {
    let mut stage = Stage::new();
    let connect_there = || {
        netns::alone(|| {
            let server = listen("127.0.0.1:0");
            let client = connect(server.local_addr().unwrap());
            assert_eq!(is_idle(&server), client.is_err());
            client.map(drop)
        })
    };
    let (refused, decision) = stage.sandbox.decided(connect_there);
    assert_eq!((refused, decision.reason), (Err(ECONNREFUSED), REASON_DEAD));
    stage.sandbox.policy.providers[0].on_dead = OnDead::Open;
    stage.sandbox.apply();
    let (passed, decision) = stage.sandbox.decided(connect_there);
    assert_eq!((passed, decision.verdict), (Ok(()), VERDICT_PASS), "open is open");
    stage.assert_nobody_came();
}

/// A socket is of the network in which it was made, wherever its process goes.
#[test]
fn a_socket_that_is_taken_to_another_network_namespace() {
    let stage = Stage::new();
    let to = stage.destination;
    let socket = stage.sandbox.in_app(|| stream(to));
    let connected = stage.sandbox.in_app(|| netns::alone(|| connect_on(socket, &to.into())));
    connected.expect("the listener is where the socket is");
    stage.assert_redirected();
}

/// An application's process without privileges in namespaces of its own.
struct Attacker(Actor);

impl Attacker {
    fn in_app_of(sandbox: &Sandbox, namespaces: &[&str]) -> Self {
        require(&["setpriv", "unshare", "ip"]);
        let scratch = Scratch::new();
        let program = scratch.file("actor");
        std::fs::copy(env!("CARGO_BIN_EXE_carnet-e2e-actor"), &program).expect("a program that everybody may start");
        let user = NOBODY.to_string();
        let mut command: Command = sandbox.app_command("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "unshare"]).args(namespaces);
        let own_network = namespaces.contains(&"--net");
        let script = if own_network { "ip link set lo up && exec \"$0\"" } else { "exec \"$0\"" };
        let actor = Actor::start(command.args(["sh", "-c", script]).arg(&program));
        // It answers, so it has started, and the file may go.
        let attacker = Self(actor);
        attacker.make(&Call::Socket(Family::V4));
        attacker
    }

    fn make(&self, call: &Call) -> OwnedFd {
        let (reply, made) = self.0.call(call, None);
        assert_eq!(reply.error, 0, "{call:?}");
        made.expect("a socket")
    }

    /// Its connection there is refused. The decision.
    fn refused(&self, sandbox: &mut Sandbox, to: SocketAddr) -> Event {
        let socket = self.make(&Call::Socket(Family::V4));
        sandbox.events();
        let (reply, _) = self.0.call(&Call::Connect(to), Some(socket.as_fd()));
        assert_eq!(reply.error, ECONNREFUSED);
        let events = sandbox.events();
        let [event] = events[..] else { panic!("{events:#?}") };
        event
    }
}
