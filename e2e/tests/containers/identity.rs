//! Who it was and whose it is, seen from outside: records have the ids of the initial namespaces, and owners and what is
//! governed are cgroups as the host sees them.

use std::os::unix::fs::chown;

use carnet_abi::VERDICT_REFUSE;
use carnet_e2e::actor::{Call, Family};
use carnet_e2e::sockets::accept;
use carnet_engine::cgroup::Cgroup;
use carnet_policy::Service as Kind;

use crate::container::{AS_USER, Container, GID, UID};
use crate::{ANYWHERE, application, at, decided, flow_of, listen_in, sandbox};

/// Process 1 of a pid namespace, root of a user namespace, started by a clock that is a day ahead.
#[test]
fn process_user_and_start_are_those_of_the_initial_namespaces() {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    let container = application(&sandbox, "container", &everything());
    let inside = listen_in(&sandbox, &service, &container.namespace);
    let socket = container.socket(Family::V4);
    let reply = container.call(&Call::Connect(ANYWHERE), &socket);
    assert_eq!((reply.error, reply.pid), (0, 1), "to itself it is process 1");
    let flow = flow_of(&accept(&inside[0]));
    container.assert_is(flow.origin(), &socket);
    assert_eq!((flow.origin().uid, flow.origin().gid), (UID, GID));
    let event = decided(&mut sandbox, &container, ANYWHERE).1;
    assert_eq!((event.pid, event.uid), (container.pid, UID));
}

/// To the application its cgroup is the root, and it makes others in it, deeper than any owner's can be. It is governed in
/// each, and the record says in which it was.
#[test]
fn a_container_that_makes_cgroups_of_its_own_is_governed_in_all_of_them() {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    let cgroup = delegated(sandbox.app_cgroup().child("container").unwrap());
    let top = Container::with(cgroup, &everything(), &format!("{SEES_THE_ROOT} && {UP}"));
    let inside = listen_in(&sandbox, &service, &top.namespace);
    let nested = delegated(sandbox.app_cgroup().child("nested").unwrap());
    let deep = nests(&nested);
    let nested = Container::with(nested, &everything(), &format!("{SEES_THE_ROOT} && {deep} && {UP}"));
    let inside_nested = listen_in(&sandbox, &service, &nested.namespace);
    for (container, listeners) in [(&top, &inside), (&nested, &inside_nested)] {
        let client = container.dial(ANYWHERE).expect("connect");
        container.assert_is(flow_of(&accept(&listeners[0])).origin(), &client);
    }
    assert_eq!(nested.cgroup_now(sandbox.hierarchy()).level(), nested.cgroup.level() + NESTED);
}

/// A service in a container, in a cgroup that it has made there: what is below the owner's cgroup is the owner's.
#[test]
fn a_service_in_a_container_is_the_owner_in_each_of_its_cgroups() {
    let mut sandbox = sandbox();
    let service = sandbox.service(Kind::Aware);
    let cgroup = delegated(sandbox.service_cgroup(0).child("container").unwrap());
    let deep = nests(&cgroup);
    let sidecar = Container::with(cgroup, &everything(), &format!("{deep} && {UP}"));
    let application = Container::beside(&sidecar, sandbox.app_cgroup().child("application").unwrap(), &["env"]);
    let listener = sidecar.listen(at(&service.listeners[0]));
    let client = application.dial(ANYWHERE).expect("connect");
    let accepted = accept(&listener);
    application.assert_is(flow_of(&accepted).origin(), &client);
    // Where it goes on, it goes on with the flow: past itself, to where nobody is.
    assert_eq!(sidecar.dial_on(&accepted, ANYWHERE).unwrap_err(), libc::ECONNREFUSED);
    let events = sandbox.events();
    let last = events.iter().rfind(|event| event.dialer == 1).unwrap();
    assert_eq!((last.base, last.record.origin.pid), (1, application.pid));
    assert_ne!(last.verdict, VERDICT_REFUSE);
}

/// All kinds of namespaces at once, as a user who is not root makes them.
fn everything() -> Vec<&'static str> {
    AS_USER.iter().copied().chain(EVERYTHING.split_ascii_whitespace()).collect()
}

/// The cgroup is the user's, as a service manager delegates it.
fn delegated(cgroup: Cgroup) -> Cgroup {
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(cgroup.path().join(file), Some(UID), Some(GID)).unwrap();
    }
    cgroup
}

/// Shell commands that make cgroups in one another there, and go into the last one.
fn nests(cgroup: &Cgroup) -> String {
    let deep = cgroup.path().display().to_string() + &"/deeper".repeat(NESTED as usize);
    format!("mkdir -p {deep} && echo 0 > {deep}/cgroup.procs")
}

const EVERYTHING: &str = "unshare --user --map-root-user --net --pid --fork --kill-child --mount-proc --ipc --uts --cgroup \
                          --time --boottime 86400";
const SEES_THE_ROOT: &str = "grep -qx 0::/ /proc/self/cgroup";
const UP: &str = "ip link set lo up";
/// More than the kernel program looks at of an owner's.
const NESTED: u32 = 14;
