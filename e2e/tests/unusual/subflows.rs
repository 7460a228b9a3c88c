//! Further subflows of MPTCP connections. The kernel makes them by itself, from a thread of its own; they go where their
//! connection has gone, and are no connections that anybody else is told of.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::Redirect;
use carnet_abi::{EVENT_CONNECT, EVENT_END, Event, REASON_KERNEL, VERDICT_PASS, flow_id};
use carnet_e2e::netns::{self, ip};
use carnet_e2e::sockets::{PATIENCE, assert_joined, listen, until};
use socket2::Protocol;

use super::mptcp::{further_subflows, is_mptcp, listen_for_mptcp_at};
use super::{Arrived, Course, Way};

/// Between an application and a service, both of them on loopback.
#[test]
fn of_a_redirected_connection() {
    for (way, further, device) in
        [(Way::V4, "127.0.0.2", "lo"), (Way::V6, "fd99::7", "lo"), (Way::Mapped, "127.0.0.2", "lo")]
    {
        netns::alone(|| {
            ip("addr add fd99::7/128 dev lo nodad");
            offer(further, device);
            let mut course = Course::new();
            course.listen_for_mptcp();
            let mut client = course.connect(Protocol::MPTCP, way);
            let mut arrived = course.arrive(way, Some(&client), b"");
            assert_joined(&mut client, &mut arrived.socket);
            wait_for_a_further_subflow(&client, &arrived.socket);

            // The connection is what it was to both sides.
            assert_eq!(client.peer_addr().unwrap(), course.destination(way));
            assert_eq!(Redirect::of(&arrived.socket).flow().unwrap().id(), arrived.flow);
            assert_that_much_passes(&mut client, &mut arrived.socket);
            course.go_on(&arrived, way);
            drop(client);
            course.over_with_subflows(arrived);
        });
    }
}

/// Between a service and the destination, which is on another host.
#[test]
fn of_the_last_hop() {
    with_two_paths(|mut course, mut hops| {
        assert_that_much_passes(&mut hops.last, &mut hops.at_server);
        assert_eq!(hops.last.peer_addr().unwrap(), SERVER.parse::<SocketAddr>().unwrap());
        course.over_with_subflows(hops.close());
    });
}

/// One that goes is no end of the connection's.
#[test]
fn that_end_before_the_first_one() {
    with_two_paths(|mut course, mut hops| {
        ip("mptcp endpoint flush");
        until("the second subflow's end", || (further_subflows(&hops.last) == 0).then_some(()));
        assert_that_much_passes(&mut hops.last, &mut hops.at_server);
        course.over_with_subflows(hops.close());
    });
}

/// The subflow with which a connection began may go before it. What is told as the connection's end is that one's.
#[test]
fn that_outlive_the_first_one() {
    with_two_paths(|mut course, mut hops| {
        ip("mptcp endpoint delete id 0 10.99.0.1");
        let flow = hops.arrived.flow;
        let is_end = |event: &Event| event.kind == EVENT_END && flow_id(event.record.flow) == flow;
        let mut events = course.sandbox.events_until(is_end);
        assert_eq!(further_subflows(&hops.last), 1);
        assert_that_much_passes(&mut hops.last, &mut hops.at_server);
        drop(hops);
        course.assert_nothing_left();
        events.append(&mut course.events_of(flow));
        assert_eq!(events.iter().filter(|event| is_end(event)).count(), 3, "one for each hop: {events:#?}");
    });
}

/// The flow is known as long as the connection is there.
#[test]
fn that_come_after_the_first_one_has_gone() {
    with_two_paths(|mut course, hops| {
        ip("addr add 10.99.0.8/24 dev carnet0");
        ip("mptcp endpoint delete id 0 10.99.0.1");
        let flow = hops.arrived.flow;
        course.sandbox.events_until(|event| event.kind == EVENT_END && flow_id(event.record.flow) == flow);
        ip("mptcp endpoint add 10.99.0.8 dev carnet0 subflow");
        let is_kernels = |event: &Event| event.kind == EVENT_CONNECT && event.reason == REASON_KERNEL;
        let events = course.sandbox.events_until(is_kernels);
        assert_eq!(events.iter().find(|event| is_kernels(event)).map(|event| flow_id(event.record.flow)), Some(flow));
        drop(hops);
        course.assert_nothing_left();
    });
}

const SERVER: &str = "10.99.0.2:7000";

/// A flow through both services to [`SERVER`], all of it by MPTCP but the application.
struct Hops {
    arrived: Arrived,
    last: TcpStream,
    at_server: TcpStream,
    _others: [TcpStream; 3],
}

impl Hops {
    /// All but the first service's end.
    fn close(self) -> Arrived {
        self.arrived
    }
}

/// The last hop has two subflows.
fn with_two_paths(act: impl FnOnce(Course, Hops) + Send) {
    let there = || {
        ip("mptcp limits set subflow 2 add_addr_accepted 2");
        [listen_for_mptcp_at(SERVER.parse().unwrap()), listen("[fd99::2]:0")]
    };
    netns::with_neighbour(there, |servers: [TcpListener; 2]| {
        ip("addr add 10.99.0.7/24 dev carnet0");
        offer("10.99.0.7", "carnet0");
        let course = Course::with_servers(servers);
        let mut client = course.connect(Protocol::TCP, Way::V4);
        let mut arrived = course.arrive(Way::V4, Some(&client), b"");
        assert_joined(&mut client, &mut arrived.socket);
        let (mut onward, mut at_second) = course.dial_by_mptcp(0, &arrived.socket, Way::V4);
        assert_joined(&mut onward, &mut at_second);
        let (mut last, mut at_server) = course.dial_by_mptcp(1, &at_second, Way::V4);
        assert_joined(&mut last, &mut at_server);
        wait_for_a_further_subflow(&last, &at_server);
        act(course, Hops { arrived, last, at_server, _others: [client, onward, at_second] });
    });
}

impl Course {
    /// As [`Course::over`], and the kernel's own connections were told of: each is its flow's, and has no end. Where both
    /// sides are in one namespace, both are offered the address and may try.
    fn over_with_subflows(&mut self, arrived: Arrived) {
        let flow = arrived.flow;
        let events = self.over(arrived);
        let is_kernels = |event: &&Event| event.kind == EVENT_CONNECT && event.reason == REASON_KERNEL;
        let subflows: Vec<_> = events.iter().filter(is_kernels).collect();
        assert!(!subflows.is_empty(), "{events:#?}");
        for subflow in subflows {
            assert_eq!((subflow.verdict, flow_id(subflow.record.flow)), (VERDICT_PASS, flow));
            assert_eq!((subflow.error, subflow.handle, subflow.filter), (0, 0, 0));
        }
    }
}

/// Connections from this namespace get a subflow from this address, too, if the other side lets them.
fn offer(address: &str, device: &str) {
    ip("mptcp limits set subflow 2 add_addr_accepted 2");
    ip(&format!("mptcp endpoint add {address} dev {device} subflow"));
}

fn wait_for_a_further_subflow(client: &TcpStream, server: &TcpStream) {
    assert!(is_mptcp(client) && is_mptcp(server));
    until("the second subflow", || (further_subflows(client) == 1 && further_subflows(server) == 1).then_some(()));
}

/// More than one subflow's window.
fn assert_that_much_passes(from: &mut TcpStream, to: &mut TcpStream) {
    let sent: Vec<u8> = (0..4_000_000_u32).map(|index| (index / 7) as u8).collect();
    let mut came = vec![0; sent.len()];
    from.set_write_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).expect("write"));
        to.read_exact(&mut came).expect("read");
    });
    assert!(came == sent, "bytes were changed");
}
