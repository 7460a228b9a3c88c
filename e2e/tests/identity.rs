//! Conditions on who connects, in the hooks: they hold for the flow's application at every hop.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::net::SocketAddr;

use carnet::Redirect;
use carnet_abi::{Origin, REASON_BLOCKED, VERDICT_PASS, VERDICT_REFUSE};
use carnet_e2e::Sandbox;
use carnet_e2e::sockets::{accept, assert_joined, connect, connect_on, listen, stream};
use carnet_policy::{Condition, Executable, HostAction, Line, Match, Service as Kind};

/// What an application here is, as its record says; and conditions on each part of it that hold, and that do not.
struct Application {
    origin: Origin,
    line: Line,
}

impl Application {
    fn of(sandbox: &mut Sandbox) -> Self {
        let server = listen("127.0.0.1:0");
        let (client, decision) = sandbox.decided(|| connect(server.local_addr().unwrap()));
        client.expect("connect");
        Self { origin: decision.record.origin, line: Line(decision.record.line) }
    }

    /// By name; the first holds, the second does not.
    fn conditions(&self) -> [(&'static str, Match, Match); 5] {
        let Origin { uid, gid, exe_dev, exe_ino, netns_cookie, .. } = self.origin;
        let any = Match::default;
        let uids = |uid: u32| Match { uids: Condition::only([uid..=uid]), ..any() };
        let gids = |gid: u32| Match { gids: Condition::only([gid..=gid]), ..any() };
        let exes = |ino: u64| Match { exes: Condition::only([Executable { dev: exe_dev, ino }]), ..any() };
        let netns = |cookie: u64| Match { netns: Condition::only([cookie]), ..any() };
        let cgroups = |line: Line| Match { cgroups: Condition::only([line]), ..any() };
        let mut elsewhere = self.line;
        let deepest = elsewhere.0.iter().rposition(|&id| id != 0).expect("the application is in a cgroup");
        elsewhere.0[deepest] += 1_000_000;
        [
            ("uid", uids(uid), uids(uid + 1)),
            ("gid", gids(gid), gids(gid + 1)),
            ("executable", exes(exe_ino), exes(exe_ino + 1)),
            ("cgroup", cgroups(self.line), cgroups(elsewhere)),
            ("network namespace", netns(netns_cookie), netns(netns_cookie + 1)),
        ]
    }
}

#[test]
fn each_condition_holds_for_who_it_names_and_for_nobody_else() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let to = server.local_addr().unwrap();
    let application = Application::of(&mut sandbox);
    for (name, holds, fails) in application.conditions() {
        for (matches, verdict) in [(holds, VERDICT_REFUSE), (fails, VERDICT_PASS)] {
            sandbox.policy.filters.clear();
            sandbox.host_filter(matches, HostAction::Block);
            let (_, decision) = sandbox.decided(|| connect(to));
            assert_eq!(decision.verdict, verdict, "{name}");
        }
    }
}

/// A cgroup above the application's is the application's as well.
#[test]
fn a_cgroup_holds_for_all_below_it() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let application = Application::of(&mut sandbox);
    for level in 1..=application.line.0.iter().filter(|&&id| id != 0).count() {
        let mut above = Line::default();
        above.0[..level].copy_from_slice(&application.line.0[..level]);
        sandbox.policy.filters.clear();
        sandbox.host_filter(Match { cgroups: Condition::only([above]), ..Match::default() }, HostAction::Block);
        let (_, decision) = sandbox.decided(|| connect(server.local_addr().unwrap()));
        assert_eq!((decision.verdict, decision.reason), (VERDICT_REFUSE, REASON_BLOCKED), "level {level}");
    }
}

/// Which cgroup the service is in does not count: it goes on for the application.
#[test]
fn a_block_of_an_application_holds_for_its_connection_through_a_service() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Kind::Aware);
    let server = listen("127.0.0.1:0");
    let to = server.local_addr().unwrap();
    let application = Application::of(&mut sandbox);
    drop(accept(&service.listeners[0]));
    let (_client, accepted) = sandbox.arrive(&service, to);
    let by_cgroup = Match { cgroups: Condition::only([application.line]), ..Match::default() };
    sandbox.host_filter(by_cgroup, HostAction::Block);
    let refused = sandbox.in_service(service.index, || carnet::dial(&accepted)).expect_err("it is the application's");
    assert_eq!(refused.os_error(), Some(libc::EACCES));
    // What the service connects for itself is not the application's.
    let mut own = sandbox.in_service(service.index, || connect(to)).expect("its own");
    assert_joined(&mut own, &mut accept(&server));
}

/// A service cannot send something else out under an application's permission.
#[test]
fn a_permit_of_an_application_is_for_its_destination_alone() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Kind::Aware);
    let (server, other) = (listen("127.0.0.1:0"), listen("127.0.0.1:0"));
    let (to, elsewhere): (SocketAddr, SocketAddr) = (server.local_addr().unwrap(), other.local_addr().unwrap());
    let application = Application::of(&mut sandbox);
    drop(accept(&service.listeners[0]));
    let (_client, accepted) = sandbox.arrive(&service, to);
    let by_uid = Condition::only([application.origin.uid..=application.origin.uid]);
    let by_cgroup = Condition::only([application.line]);
    sandbox.host_filter(Match { uids: by_uid, cgroups: by_cgroup, ..Match::default() }, HostAction::Permit);
    sandbox.policy.default = HostAction::Block;
    sandbox.apply();
    let mut onward = sandbox.in_service(service.index, || carnet::dial(&accepted)).expect("where it asked to go");
    assert_joined(&mut onward, &mut accept(&server));
    let dial = || {
        let socket = stream(elsewhere);
        Redirect::of(&accepted).records().unwrap().apply_to(&socket).unwrap();
        connect_on(socket, &elsewhere.into())
    };
    let refused = sandbox.in_service(service.index, dial).expect_err("nobody asked to go there");
    assert_eq!(refused, libc::EACCES);
}
