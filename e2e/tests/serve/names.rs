//! What a policy names changes, comes and goes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use carnet_control::{EventKind, ProviderState};
use carnet_e2e::actor::{Actor, Call, Family};
use carnet_e2e::daemon::Table;
use carnet_e2e::sockets::{accept, connect, listen, until};
use carnet_e2e::{Daemon, enter, netns};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::host::Host;

const ACTOR: &str = env!("CARGO_BIN_EXE_carnet-e2e-actor");

#[test]
fn a_replaced_program_is_the_old_one_and_the_new_one_for_as_long_as_somebody_runs_it() {
    let host = Host::new(1);
    let mut daemon = Daemon::prepare(&host.ground.name_of(&host.ground.governed), "");
    let program = daemon.file("program");
    fs::copy(ACTOR, &program).unwrap();
    let conditions = format!("{}, exe = \"{}\"", host.conditions(), program.display());
    daemon.write_policy(&host.table(0, 10).redirecting("program", &conditions));
    daemon.restart();
    let mut events = daemon.events();
    let start = |program: &Path| Actor::start(&mut enter(&host.ground.app, program.to_str().unwrap()));
    let old = start(&program);
    assert!(reaches(&old, &host) && host.is_refused(), "the filter is about the program");

    // As package tools do.
    let next = daemon.file("next");
    fs::copy(ACTOR, &next).unwrap();
    let previous = daemon.file("previous");
    fs::hard_link(&program, &previous).unwrap();
    fs::rename(&next, &program).unwrap();
    events.wait_for(EventKind::Replaced, "program");
    let new = start(&program);
    assert!(reaches(&old, &host) && reaches(&new, &host));

    // Nobody runs it any more, so whoever starts it by another name is nobody.
    drop(old);
    until("the old file to be forgotten", || (!reaches(&start(&previous), &host)).then_some(()));
    assert!(reaches(&new, &host));
}

/// Whether this process's connection comes to the service.
fn reaches(actor: &Actor, host: &Host) -> bool {
    let (made, socket) = actor.call(&Call::Socket(Family::V4), None);
    assert_eq!(made.error, 0);
    let socket = socket.unwrap();
    let (reply, _) = actor.call(&Call::Connect(host.destinations[0]), Some(std::os::fd::AsFd::as_fd(&socket)));
    match reply.error {
        0 => {
            drop(accept(&host.listeners[0]));
            true
        }
        error => {
            assert_eq!(error, Errno::ECONNREFUSED as i32);
            false
        }
    }
}

#[test]
fn a_service_whose_cgroup_is_made_again_is_the_provider_again() {
    let mut host = Host::new(1);
    let daemon = host.daemon(&host.redirecting(0, "zero"));
    let mut events = daemon.events();
    host.assert_goes_to(0, "zero");
    let (address, before) = (host.address(0), host.cgroup(0).id());

    host.listeners.clear();
    fs::remove_dir(host.cgroup(0).path()).unwrap();
    events.wait_until("that it is dead", |event| event.state == Some(ProviderState::Dead));
    host.assert_refused();

    let again = host.cgroup(0);
    assert_ne!(again.id(), before);
    host.listeners = vec![host.ground.within(&again, || listen(&address.to_string()))];
    events.wait_until("that it is alive", |event| event.state == Some(ProviderState::Alive));
    host.assert_goes_to(0, "zero");
    assert_eq!(daemon.provider("s0").state, ProviderState::Alive);
}

#[test]
fn a_policy_may_be_there_before_its_services() {
    let mut host = Host::new(0);
    let address: SocketAddr = listen("127.0.0.1:0").local_addr().unwrap();
    let cgroup = format!("{}/0", host.ground.name_of(&host.ground.services));
    let table = Table::owned_by("s0", 10, &cgroup, &[address]);
    let daemon = host.daemon(&table.redirecting("all", &host.conditions()));
    assert_eq!(daemon.provider("s0").state, ProviderState::Dead);
    host.assert_refused();

    let service = host.cgroup(0);
    host.listeners = vec![host.ground.within(&service, || listen(&address.to_string()))];
    daemon.wait_for_state("s0", ProviderState::Alive);
    host.assert_goes_to(0, "");
}

#[test]
fn a_governed_cgroup_that_is_made_again_is_governed_again() {
    let host = Host::new(1);
    let app = host.ground.app.child("again").unwrap();
    let daemon = Daemon::start_on(&host.ground.name_of(&app), &host.redirecting(0, "zero"));
    let arrives = |app: &carnet_engine::cgroup::Cgroup| {
        let client = host.ground.within(app, || connect(host.destinations[0]));
        client.is_ok().then(|| drop(accept(&host.listeners[0])))
    };
    assert!(arrives(&app).is_some());
    fs::remove_dir(app.path()).unwrap();
    daemon.wait_for_log("is gone");
    let again = host.ground.app.child("again").unwrap();
    assert_ne!(again.id(), app.id());
    until("it to be governed", || arrives(&again));
    daemon.wait_for_log("was made again");
}

#[test]
fn a_network_namespace_may_be_made_later() {
    let host = Host::new(0);
    let mut daemon = Daemon::prepare(&host.ground.name_of(&host.ground.governed), "");
    let name = daemon.file("netns");
    fs::write(&name, "").unwrap();
    daemon.write_policy(&format!(
        "[[filter]]\nname = \"none of these\"\nmatch = {{ netns = \"{}\" }}\naction = \"block\"\n",
        name.display()
    ));
    daemon.restart();
    host.assert_refused();
    netns::alone(|| {
        let inside = listen("127.0.0.1:0").local_addr().unwrap();
        let connect = || host.ground.within(&host.ground.app, || connect(inside)).err();
        assert_eq!(connect(), Some(Errno::ECONNREFUSED as i32), "nobody listens any more");
        mount(Some("/proc/thread-self/ns/net"), &name, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let mounted = Mounted(&name);
        let blocked =
            until("the namespace to be known", || connect().filter(|error| *error != Errno::ECONNREFUSED as i32));
        drop(mounted);
        assert_eq!(blocked, Errno::EACCES as i32);
    });
    host.assert_refused();
}

/// A file on which something is mounted cannot be removed.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.0, MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount: {error}");
        }
    }
}
