//! Socket activation: a supervisor makes the listener in a cgroup of its own and hands it to the service as descriptor 3.
//! A connection then is that cgroup's, so the supervisor's cgroup must be an owner of the provider.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use carnet::Redirect;
use carnet_abi::{REASON_STRANGER, VERDICT_REFUSE};
use carnet_e2e::programs::Started;
use carnet_e2e::sockets::{PATIENCE, accept, assert_joined, canonical, listen};
use carnet_engine::cgroup::Cgroup;
use carnet_policy::Owner;
use libc::ECONNREFUSED;

use super::mptcp::listen_for_mptcp_at;
use super::passed::HEIR;
use super::{Arrived, Course, Way};

#[test]
fn the_supervisor_and_the_service_are_both_owners() {
    let mptcp = |at: &str| listen_for_mptcp_at(at.parse::<SocketAddr>().unwrap());
    for make in [listen, mptcp] {
        let mut course = Course::new();
        let supervisor = course.sandbox.ground().services.child("supervisor").unwrap();
        let listeners = course.listen_in(&supervisor, make);
        course.add_owner(&supervisor);
        for way in Way::ALL {
            course.through_an_activated_service(&listeners[way.family()], way);
        }
    }
}

#[test]
fn a_supervisor_that_is_no_owner_is_a_stranger() {
    let mut course = Course::new();
    let supervisor = course.sandbox.ground().services.child("supervisor").unwrap();
    let _listeners = course.listen_in(&supervisor, listen);
    let destination = course.destination(Way::V4);
    let (refused, decision) = course.sandbox.decided(|| carnet_e2e::sockets::connect(destination));
    assert_eq!(refused.unwrap_err(), ECONNREFUSED);
    assert_eq!((decision.verdict, decision.reason), (VERDICT_REFUSE, REASON_STRANGER));
    course.assert_nothing_left();
}

/// A service manager is not where services are. Its cgroup has to have the socket options as well.
#[test]
fn a_supervisor_outside_of_the_services_cgroups() {
    let mut course = Course::new();
    let supervisor = course.sandbox.ground().governed.child("supervisor").unwrap();
    let listeners = course.listen_in(&supervisor, listen);
    course.add_owner(&supervisor);
    course.sandbox.engine.attach_services(&supervisor).unwrap();
    for way in Way::ALL {
        course.through_an_activated_service(&listeners[way.family()], way);
    }
}

impl Course {
    /// Has the first service's listeners made in another cgroup.
    fn listen_in(&mut self, supervisor: &Cgroup, make: fn(&str) -> TcpListener) -> [TcpListener; 2] {
        let listeners = self.sandbox.ground().within(supervisor, || ["127.0.0.1:0", "[::1]:0"].map(make));
        self.services[0].listeners.clear();
        self.sandbox.policy.providers[0].listeners =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        self.sandbox.apply();
        listeners
    }

    fn add_owner(&mut self, supervisor: &Cgroup) {
        let owner = Owner::Cgroup { id: supervisor.id(), level: supervisor.level() };
        self.sandbox.policy.providers[0].owners.push(owner);
        self.sandbox.apply();
    }

    fn through_an_activated_service(&mut self, listener: &TcpListener, way: Way) {
        let service = self.activate(listener);
        let client = self.sandbox.in_app(|| super::connected(way.socket(), self.destination(way)));
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = client;
        let at_second = accept(&self.services[1].listeners[way.family()]);
        let flow = Redirect::of(&at_second).flow().expect("flow");
        assert_eq!((flow.depth(), flow.destination()), (2, canonical(self.destination(way))));
        assert_eq!((flow.origin().pid, flow.origin().inferred), (std::process::id(), false));
        let mut last = self.sandbox.in_service(1, || carnet::dial(&at_second)).expect("dial");
        assert_joined(&mut last, &mut accept(&self.servers[way.family()]));

        // The first service relays one exchange.
        let mut socket = at_second;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        pass(&mut client, &mut socket, b"there");
        pass(&mut socket, &mut client, b"back.");
        service.ends_well();
        drop((client, last));
        self.over(Arrived { socket, flow: flow.id() });
    }

    /// The service, a process in the first service's cgroup.
    fn activate(&self, listener: &TcpListener) -> Started {
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
        let mut command = self.sandbox.service_command(0, "/bin/sh");
        command.args(["-c", script, "sh", HEIR, "service"]);
        Started::by(command.stdin(OwnedFd::from(listener.try_clone().unwrap())))
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    let mut came = vec![0; bytes.len()];
    from.write_all(bytes).expect("write");
    to.read_exact(&mut came).expect("read");
    assert_eq!(came, bytes);
}
