//! Sockets that one process makes or connects and another uses: inherited over fork and exec, passed by a Unix socket,
//! duplicated. The hooks follow the cgroup in which a socket was made, and the origin is who connects it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use carnet::Redirect;
use carnet_abi::{EVENT_END, flow_id};
use carnet_e2e::passing::{give, take};
use carnet_e2e::programs::Started;
use carnet_e2e::sockets::{PATIENCE, accept, assert_joined};
use carnet_engine::cgroup::Cgroup;

use super::{Arrived, Course, Way};

pub const HEIR: &str = env!("CARGO_BIN_EXE_carnet-e2e-heir");

#[test]
fn connected_in_the_parent_and_used_in_the_child() {
    let mut course = Course::new();
    for way in Way::ALL {
        let destination = course.destination(way);
        let client = course.sandbox.in_app(|| super::connected(way.socket(), destination));
        let arrived = course.arrive(way, Some(&client), b"");
        let heir = heir(course.sandbox.app_command(HEIR).arg("use"), client.into());
        course.serve(arrived, way, heir);
    }
}

#[test]
fn made_in_the_parent_and_connected_in_the_child() {
    let mut course = Course::new();
    for way in Way::ALL {
        let to = course.destination(way).to_string();
        let socket = course.sandbox.in_app(|| way.socket());
        let heir = heir(course.sandbox.app_command(HEIR).args(["connect", &to]), socket.into());
        let arrived = course.arrive(way, None, b"");
        course.assert_origin(&arrived, &heir, course.sandbox.app_cgroup().id());
        course.serve(arrived, way, heir);
    }
}

/// The socket was the application's, so its connections are, whoever makes them: the cgroup in the record is the caller's.
#[test]
fn made_inside_and_connected_by_a_child_outside() {
    let mut course = Course::new();
    let (way, here) = (Way::V4, course.cgroup_of_this_process());
    let to = course.destination(way).to_string();
    let socket = course.sandbox.in_app(|| way.socket());
    let heir = heir(Command::new(HEIR).args(["connect", &to]), socket.into());
    let arrived = course.arrive(way, None, b"");
    course.assert_origin(&arrived, &heir, here);
    course.serve(arrived, way, heir);
}

/// No hook sees it: the socket belongs to the cgroup in which it was made.
#[test]
fn made_outside_and_connected_inside_is_not_seen() {
    let mut course = Course::new();
    let to = course.destination(Way::V4);
    let heir = heir(course.sandbox.app_command(HEIR).args(["connect", &to.to_string()]), Way::V4.socket().into());
    assert_served(&mut accept(&course.servers[0]));
    heir.ends_well();
    course.assert_nothing_left();
    assert!(course.sandbox.events().iter().all(|event| event.record.origin.remote.port != to.port()));
}

#[test]
fn passed_before_connect() {
    let mut course = Course::new();
    for way in Way::ALL {
        let to = course.destination(way).to_string();
        let socket = course.sandbox.in_app(|| way.socket());
        let (own, its) = UnixStream::pair().unwrap();
        let heir = heir(course.sandbox.app_command(HEIR).args(["take", "connect", &to]), its.into());
        give(&own, &socket).unwrap();
        drop(socket);
        let arrived = course.arrive(way, None, b"");
        course.assert_origin(&arrived, &heir, course.sandbox.app_cgroup().id());
        course.serve(arrived, way, heir);
    }
}

/// To a process outside. It is the record of who connected.
#[test]
fn passed_after_connect() {
    let mut course = Course::new();
    for way in Way::ALL {
        let destination = course.destination(way);
        let client = course.sandbox.in_app(|| super::connected(way.socket(), destination));
        let arrived = course.arrive(way, Some(&client), b"");
        let (own, its) = UnixStream::pair().unwrap();
        let heir = heir(Command::new(HEIR).args(["take", "use"]), its.into());
        give(&own, &client).unwrap();
        drop(client);
        course.serve(arrived, way, heir);
    }
}

/// Into the process that asked for it, from one that has ended since.
#[test]
fn passed_in_from_a_process_that_is_gone() {
    let mut course = Course::new();
    let way = Way::V4;
    for connects in [false, true] {
        let to = course.destination(way);
        let (own, its) = UnixStream::pair().unwrap();
        let mut command = course.sandbox.app_command(HEIR);
        command.arg("give").args(connects.then(|| to.to_string()));
        let mut giver = command.stdin(Stdio::null()).stdout(OwnedFd::from(its)).spawn().unwrap();
        let pid = giver.id();
        let socket = take(&own).unwrap();
        assert!(giver.wait().unwrap().success());
        let mut client = match connects {
            true => TcpStream::from(socket),
            false => course.sandbox.in_app(|| super::connected(socket.into(), to)),
        };
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut arrived = course.arrive(way, (!connects).then_some(&client), b"");
        let origin = Redirect::of(&arrived.socket).flow().unwrap().origin().pid;
        assert_eq!(origin, if connects { pid } else { std::process::id() });
        assert_eq!(client.peer_addr().unwrap(), to);
        assert_joined(&mut client, &mut arrived.socket);
        course.go_on(&arrived, way);
        drop(client);
        course.over(arrived);
    }
}

/// A connection ends with its last descriptor.
#[test]
fn duplicated() {
    let mut course = Course::new();
    let way = Way::V4;
    let socket = course.sandbox.in_app(|| way.socket());
    let copy = socket.try_clone().unwrap();
    drop(course.sandbox.in_app(|| super::connected(socket, course.destination(way))));
    let mut client = TcpStream::from(copy);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut arrived = course.arrive(way, Some(&client), b"");
    assert_eq!(client.peer_addr().unwrap(), course.destination(way));
    assert_joined(&mut client, &mut arrived.socket);
    let events = course.sandbox.events();
    assert!(events.iter().all(|event| event.kind != EVENT_END), "{events:#?}");
    drop(client);
    let events = course.sandbox.events_until(|event| event.kind == EVENT_END);
    assert!(events.iter().any(|event| flow_id(event.record.flow) == arrived.flow));
    drop(arrived);
    course.assert_nothing_left();
}

/// A service may hand an accepted connection on, as one that accepts and one that works do.
#[test]
fn an_accepted_socket_keeps_its_record_on_the_way() {
    let mut course = Course::new();
    let way = Way::V4;
    let mut client = course.sandbox.in_app(|| super::connected(way.socket(), course.destination(way)));
    let arrived = course.arrive(way, Some(&client), b"");
    let before = Redirect::of(&arrived.socket).flow().unwrap();
    let (own, its) = UnixStream::pair().unwrap();
    give(&own, &arrived.socket).unwrap();
    let Arrived { socket, flow } = arrived;
    drop(socket);
    // Nobody has it but the message: it is still a connection.
    let socket = TcpStream::from(take(&its).unwrap());
    assert_eq!(Redirect::of(&socket).flow().unwrap(), before);
    let mut arrived = Arrived { socket, flow };
    assert_joined(&mut client, &mut arrived.socket);
    course.go_on(&arrived, way);
    drop(client);
    course.over(arrived);
}

/// By an heir at the other end.
fn assert_served(connection: &mut TcpStream) {
    let mut answer = [0; 5];
    connection.write_all(b"there").expect("write");
    connection.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"back.");
}

/// A process that has the socket as its standard input.
fn heir(command: &mut Command, socket: OwnedFd) -> Started {
    Started::by(command.stdin(socket))
}

impl Course {
    /// The heir has the client's end.
    fn serve(&mut self, mut arrived: Arrived, way: Way, heir: Started) {
        assert_served(&mut arrived.socket);
        heir.ends_well();
        self.go_on(&arrived, way);
        self.over(arrived);
    }

    fn cgroup_of_this_process(&self) -> u64 {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let hierarchy = self.sandbox.hierarchy();
        Cgroup::open(hierarchy, &hierarchy.mount().join(path)).unwrap().id()
    }

    fn assert_origin(&self, arrived: &Arrived, heir: &Started, cgroup: u64) {
        let flow = Redirect::of(&arrived.socket).flow().unwrap();
        assert_eq!((flow.origin().pid, flow.origin().cgroup_id), (heir.id(), cgroup));
        assert_eq!(flow.origin().comm, "carnet-e2e-heir");
    }
}
