//! Services that forget, forge, mix up, die or stand still. Whatever they do, every way ends: each test counts the
//! decisions, and there is never one more than the services' ranks allow.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::{ErrorKind as Carnet, Flow, Records, Redirect};
use carnet_abi::{
    EVENT_CONNECT, EVENT_END, EVENT_SET, Event, REASON_DEAD, REASON_NOT_DIRECT, REASON_OWN_LISTENER, REASON_RUNAWAY,
    VERDICT_DIRECT, VERDICT_PASS, VERDICT_REDIRECT, VERDICT_REFUSE,
};
use carnet_e2e::sockets::{accept, assert_joined, connect, connect_on, is_idle, listen, stream, until};
use carnet_e2e::{Relay, Running, Sandbox, Service};
use carnet_policy::Service as Kind;
use nix::errno::Errno;

const RELAY: &str = env!("CARGO_BIN_EXE_carnet-e2e-relay");
const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");

/// Two aware services, played by hand, and two servers.
struct Scene {
    sandbox: Sandbox,
    first: Service,
    second: Service,
    servers: [TcpListener; 2],
    destinations: [SocketAddr; 2],
}

impl Scene {
    fn new() -> Self {
        Self::with(Sandbox::new())
    }

    fn with(mut sandbox: Sandbox) -> Self {
        let [first, second] = [(); 2].map(|()| sandbox.service(Kind::Aware));
        let servers = [(); 2].map(|()| listen("127.0.0.1:0"));
        let destinations = [0, 1].map(|i: usize| servers[i].local_addr().expect("bound"));
        Self { sandbox, first, second, servers, destinations }
    }

    /// An application's connection to one of the servers, and what the first service accepts.
    fn arrive(&self, server: usize) -> (TcpStream, TcpStream) {
        self.sandbox.arrive(&self.first, self.destinations[server])
    }

    /// The first service connects to one of the servers, with these records.
    fn go_on(&self, records: &[&Records], server: usize) -> TcpStream {
        let to = self.destinations[server];
        let go = || {
            let socket = stream(to);
            records.iter().for_each(|records| records.apply_to(&socket).expect("set"));
            connect_on(socket, &to.into())
        };
        self.sandbox.in_service(0, go).expect("connect")
    }

    /// The second service accepts and goes on as it should; the server accepts. Returns what the service was told.
    fn finish(&self, server: usize) -> (Flow, [TcpStream; 3]) {
        let accepted = accept(&self.second.listeners[0]);
        let flow = flow_of(&accepted);
        assert_eq!(flow.destination(), self.destinations[server]);
        let onward = self.sandbox.in_service(1, || Redirect::of(&accepted).dial()).expect("dial");
        (flow, [accepted, onward, accept(&self.servers[server])])
    }

    /// Nobody has anything left to accept, and so many decisions were made in all.
    fn assert_over(&mut self, decided: usize) -> Vec<Event> {
        let listeners = [&self.first, &self.second].into_iter().flat_map(|service| &service.listeners);
        assert!(listeners.chain(&self.servers).all(is_idle), "nobody has a flow twice");
        let events = decisions(&mut self.sandbox);
        assert_eq!(events.len(), decided, "{events:#?}");
        events
    }
}

/// Until now.
fn decisions(sandbox: &mut Sandbox) -> Vec<Event> {
    sandbox.events().into_iter().filter(|event| event.kind == EVENT_CONNECT).collect()
}

/// Events until so many ends were told; no more may come.
fn events_with_ends(sandbox: &mut Sandbox, ends: usize) -> Vec<Event> {
    let mut events = Vec::new();
    until("the ends of all connections", || {
        events.extend(sandbox.events());
        let ended = events.iter().filter(|event| event.kind == EVENT_END).count();
        assert!(ended <= ends, "{events:#?}");
        (ended == ends).then_some(())
    });
    events
}

fn flow_of(accepted: &TcpStream) -> Flow {
    Redirect::of(accepted).flow().expect("flow")
}

fn records_of(accepted: &TcpStream) -> Records {
    Redirect::of(accepted).records().expect("records")
}

fn handles(flow: &Flow) -> Vec<u32> {
    flow.chain().iter().map(|hop| hop.handle).collect()
}

/// The other side has ended it; which way does not matter.
fn assert_ends(mut stream: &TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not ended: {other:?}"),
    }
}

#[test]
fn never_sets() {
    let mut scene = Scene::new();
    let (_client, accepted) = scene.arrive(0);
    let _onward = scene.go_on(&[], 0);
    let (flow, _held) = scene.finish(0);
    assert_ne!(flow.id(), flow_of(&accepted).id(), "what an aware service forgets is not guessed: a new flow");
    assert_eq!(flow.origin().cgroup_id, scene.sandbox.service_cgroup(0).id(), "of the service's own");
    assert!(!flow.origin().inferred);
    assert_eq!(handles(&flow), [2], "but never back to itself");
    scene.assert_over(3);
}

#[test]
fn sets_after_connect() {
    let mut scene = Scene::new();
    let (_client, accepted) = scene.arrive(0);
    let onward = scene.go_on(&[], 0);
    let late = scene.sandbox.in_service(0, || records_of(&accepted).apply_to(&onward)).unwrap_err();
    assert_eq!(late.kind(), Carnet::AlreadyConnected);
    let (flow, _held) = scene.finish(0);
    assert_ne!(flow.id(), flow_of(&accepted).id(), "it changes nothing any more");
    assert_eq!(handles(&flow), [2]);
    scene.assert_over(3);
}

#[test]
fn sets_twice_or_another_flows_record() {
    let mut scene = Scene::new();
    let (_client_a, a) = scene.arrive(0);
    let (_client_b, b) = scene.arrive(1);
    let (records_a, records_b) = (records_of(&a), records_of(&b));
    scene.assert_over(2);
    for (records, named) in
        [(vec![&records_a, &records_b], &b), (vec![&records_b, &records_a], &a), (vec![&records_b], &b)]
    {
        // Both flows are the service's to carry on, so it may mix them up. The last record that was set is the
        // flow's, origin and all; where the connection goes is where it goes.
        let _onward = scene.go_on(&records, 0);
        let (flow, _held) = scene.finish(0);
        assert_eq!(flow.id(), flow_of(named).id());
        assert_eq!(flow.origin(), flow_of(named).origin());
        assert_eq!(handles(&flow), [1, 2]);
        scene.assert_over(2);
    }
}

#[test]
fn sets_a_forged_or_truncated_record_and_goes_on_all_the_same() {
    let mut scene = Scene::new();
    let (_client, accepted) = scene.arrive(0);
    let whole = records_of(&accepted);
    scene.assert_over(1);
    let mut flipped = whole.as_bytes().to_vec();
    flipped[100] ^= 1;
    let mut short = whole.as_bytes()[..400].to_vec();
    short[2..4].copy_from_slice(&400_u16.to_ne_bytes());
    for (bytes, refusal) in [(flipped, Carnet::Forged), (short, Carnet::Malformed)] {
        let records = Records::from_bytes(&bytes).expect("a length that records may have");
        let to = scene.destinations[0];
        let onward = scene.sandbox.in_service(0, || {
            let socket = stream(to);
            assert_eq!(records.apply_to(&socket).unwrap_err().kind(), refusal);
            connect_on(socket, &to.into())
        });
        let _onward = onward.expect("connect");
        let (flow, _held) = scene.finish(0);
        assert_ne!(flow.id(), flow_of(&accepted).id());
        assert_eq!(handles(&flow), [2], "as if it had set none");
        scene.assert_over(2);
    }
}

#[test]
fn sets_a_record_of_an_earlier_engine() {
    let earlier = {
        let scene = Scene::new();
        let (_client, accepted) = scene.arrive(0);
        records_of(&accepted)
    };
    let mut scene = Scene::new();
    let (_client, _accepted) = scene.arrive(0);
    let to = scene.destinations[0];
    let onward = scene.sandbox.in_service(0, || {
        let socket = stream(to);
        assert_eq!(earlier.apply_to(&socket).unwrap_err().kind(), Carnet::Stale);
        connect_on(socket, &to.into())
    });
    let _onward = onward.expect("connect");
    let (flow, _held) = scene.finish(0);
    assert_eq!(handles(&flow), [2], "as if it had set none");
    scene.assert_over(3);
}

#[test]
fn goes_elsewhere() {
    let mut scene = Scene::new();
    let (mut client, mut accepted) = scene.arrive(0);
    let mut onward = scene.go_on(&[&records_of(&accepted)], 1);
    let (flow, [mut at_second, mut second_onward, mut server]) = scene.finish(1);
    assert_eq!(flow.id(), flow_of(&accepted).id());
    assert_eq!(flow.origin().destination, scene.destinations[0], "where the application wanted to go");
    assert_eq!(client.peer_addr().unwrap(), scene.destinations[0]);
    assert_eq!(handles(&flow), [1, 2]);
    let events = scene.assert_over(3);
    assert_eq!(events[2].remote.to_socket_addr(), scene.destinations[1], "where it went");
    assert_joined(&mut client, &mut accepted);
    assert_joined(&mut onward, &mut at_second);
    assert_joined(&mut second_onward, &mut server);
}

#[test]
fn tries_one_record_on_three_sockets() {
    let mut scene = Scene::new();
    let (_client, accepted) = scene.arrive(0);
    let records = records_of(&accepted);
    let _tries = [(); 3].map(|()| {
        let onward = scene.go_on(&[&records], 0);
        let (flow, held) = scene.finish(0);
        assert_eq!(flow.id(), flow_of(&accepted).id());
        assert_eq!(handles(&flow), [1, 2]);
        (onward, held)
    });
    scene.assert_over(1 + 3 + 3);
}

#[test]
fn dials_its_own_listener() {
    let mut scene = Scene::new();
    let wildcard = scene.sandbox.service_at(Kind::Aware, &["0.0.0.0:0"]);
    let (_client, accepted) = scene.arrive(0);
    let records = records_of(&accepted);
    scene.assert_over(1);
    let own = scene.first.listeners.iter().map(|listener| listener.local_addr().unwrap());
    for to in own {
        assert_eq!(scene.sandbox.in_service(0, || connect(to)).unwrap_err(), Errno::ELOOP as i32);
        let with_record = || {
            let socket = stream(to);
            records.apply_to(&socket).expect("set");
            connect_on(socket, &to.into())
        };
        assert_eq!(scene.sandbox.in_service(0, with_record).unwrap_err(), Errno::ELOOP as i32);
    }
    let port = wildcard.listeners[0].local_addr().unwrap().port();
    for at in ["127.0.0.1", "127.0.0.77", "0.0.0.0"] {
        let to = SocketAddr::new(at.parse().unwrap(), port);
        let refused = scene.sandbox.in_service(wildcard.index, || connect(to)).unwrap_err();
        assert_eq!(refused, Errno::ELOOP as i32, "{to} is its own wildcard listener");
    }
    let events = scene.assert_over(4 + 3);
    assert!(events.iter().all(|event| event.verdict == VERDICT_REFUSE && event.reason == REASON_OWN_LISTENER));
    assert!(events.iter().all(|event| event.error == Errno::ELOOP as i32));
    assert!(is_idle(&wildcard.listeners[0]));
}

#[test]
fn dials_another_services_listener() {
    let mut scene = Scene::new();
    let listener_of = |service: &Service| service.listeners[0].local_addr().unwrap();
    let (first, second) = (listener_of(&scene.first), listener_of(&scene.second));
    for (index, to) in [(0, second), (1, first)] {
        assert_eq!(scene.sandbox.in_service(index, || connect(to)).unwrap_err(), Errno::ECONNREFUSED as i32);
    }
    assert_eq!(scene.sandbox.in_app(|| connect(first)).unwrap_err(), Errno::ECONNREFUSED as i32);
    let events = scene.assert_over(3);
    assert!(events.iter().all(|event| event.verdict == VERDICT_REFUSE && event.reason == REASON_NOT_DIRECT));

    // Explicit proxies may be dialled, but upwards only.
    scene.sandbox.policy.providers.iter_mut().for_each(|provider| provider.direct = true);
    scene.sandbox.apply();
    let _upwards = scene.sandbox.in_service(0, || connect(second)).expect("upwards");
    let flow = flow_of(&accept(&scene.second.listeners[0]));
    assert_eq!((flow.destination(), handles(&flow)), (second, vec![2]));
    assert_eq!(scene.sandbox.in_service(1, || connect(first)).unwrap_err(), Errno::ELOOP as i32);
    let events = scene.assert_over(2);
    assert_eq!((events[0].verdict, events[1].verdict), (VERDICT_DIRECT, VERDICT_REFUSE));
    assert_eq!(events[1].reason, REASON_OWN_LISTENER);
}

/// To the engine a helper that is not in the service's cgroup is an application like any other, so its connections come
/// back to the service. That is what the guard is for.
#[test]
fn has_a_helper_outside_its_owner() {
    const LIMIT: u32 = 20;
    for kind in [Kind::Aware, Kind::Unaware] {
        let mut sandbox = Sandbox::new();
        let server = listen("127.0.0.1:0");
        let helper = Relay::start(0, sandbox.app_command(RELAY).arg("helper"));
        let _relay = sandbox.relay(RELAY, kind, &["via", &helper.addresses[0].to_string()]);
        sandbox.policy.providers[0].in_flight_limit = LIMIT;
        sandbox.apply();

        let client = sandbox.in_app(|| connect(server.local_addr().unwrap())).expect("connect");
        let runaway = |event: &Event| event.kind == EVENT_CONNECT && event.reason == REASON_RUNAWAY;
        let mut events = sandbox.events_until(runaway);
        assert_ends(&client);
        drop(client);
        until("all of it to be over", || (sandbox.engine.open_flights().unwrap() == 0).then_some(()));
        events.extend(sandbox.events());
        events.retain(|event| event.kind == EVENT_CONNECT);

        let of_verdict = |verdict| events.iter().filter(|event| event.verdict == verdict).collect::<Vec<_>>();
        assert_eq!(of_verdict(VERDICT_REDIRECT).len(), LIMIT as usize);
        assert_eq!(of_verdict(VERDICT_PASS).len(), LIMIT as usize, "the service's connections to its helper");
        let refused = of_verdict(VERDICT_REFUSE);
        assert_eq!(refused.len(), 1, "once, and nobody tries again");
        assert_eq!((refused[0].error, refused[0].handle), (Errno::ELOOP as i32, 1));
        assert!(is_idle(&server));
    }
}

#[test]
fn dies_while_it_has_flows() {
    let mut sandbox = Sandbox::new();
    let mut relays = [(); 2].map(|()| sandbox.relay(RELAY, Kind::Aware, &["aware"]));
    let server = Relay::start(0, std::process::Command::new(RELAY).arg("server"));
    let clients: Vec<TcpStream> = (0..10)
        .map(|turn| {
            let mut client = sandbox.in_app(|| connect(server.addresses[turn % 2])).expect("connect");
            assert_answered(&mut client);
            client
        })
        .collect();
    assert_eq!(decisions(&mut sandbox).len(), 10 * 3);

    relays[1].process.kill();
    clients.iter().for_each(assert_ends);
    let refused = sandbox.in_app(|| connect(server.addresses[0]).map(|client| assert_ends(&client)));
    refused.expect("the first service lives, and passes on that the second does not");
    relays[0].process.kill();
    assert_eq!(sandbox.in_app(|| connect(server.addresses[0])).unwrap_err(), Errno::ECONNREFUSED as i32);
    drop(clients);
    until("all of it to be over", || (sandbox.engine.open_flights().unwrap() == 0).then_some(()));
    assert_eq!(sandbox.engine.open_handovers().unwrap(), 0);
    let events = events_with_ends(&mut sandbox, 10 * 3 + 1); // also those of the dead
    let count = |kind| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!(count(EVENT_CONNECT), 3);
    let dead = |event: &&Event| event.kind == EVENT_CONNECT && event.reason == REASON_DEAD;
    assert_eq!(events.iter().filter(dead).map(|event| event.handle).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn accepts_and_never_dials() {
    let mut sandbox = Sandbox::new();
    let mut relay = sandbox.relay(RELAY, Kind::Aware, &["silent"]);
    let server = listen("127.0.0.1:0");
    let clients = [(); 5].map(|()| {
        let mut client = sandbox.in_app(|| connect(server.local_addr().unwrap())).expect("connect");
        client.write_all(b"is anybody there?").expect("write");
        client
    });
    drop(clients);
    relay.process.kill();
    until("all of it to be over", || (sandbox.engine.open_flights().unwrap() == 0).then_some(()));
    let events = events_with_ends(&mut sandbox, 5);
    let count = |kind| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((count(EVENT_CONNECT), count(EVENT_SET)), (5, 0));
    assert!(is_idle(&server));
}

#[test]
fn stands_still_while_connections_arrive() {
    const COUNT: usize = 50;
    let mut sandbox = Sandbox::new();
    let relays = [(); 2].map(|()| sandbox.relay(RELAY, Kind::Aware, &["aware"]));
    let server = Relay::start(0, std::process::Command::new(RELAY).arg("server"));
    for stopped in &relays {
        stopped.process.stop();
        let mut clients: Vec<TcpStream> = (0..COUNT)
            .map(|turn| sandbox.in_app(|| connect(server.addresses[turn % 2])).expect("the kernel accepts"))
            .collect();
        // Some give up meanwhile.
        clients.truncate(COUNT - 10);
        stopped.process.resume();
        clients.iter_mut().for_each(assert_answered);
        drop(clients);
        // Those who gave up closed in good order, so the services carry on even them, sooner or later.
        let mut decided = 0;
        until("each of them to go through each service", || {
            decided += decisions(&mut sandbox).len();
            (decided >= 3 * COUNT).then_some(())
        });
        until("all of it to be over", || (sandbox.engine.open_flights().unwrap() == 0).then_some(()));
        assert_eq!(sandbox.engine.open_handovers().unwrap(), 0);
        assert_eq!(decided + decisions(&mut sandbox).len(), 3 * COUNT, "once");
    }
}

/// A load of short flows while one of the two services is stopped and continued again and again.
#[test]
fn stops_and_goes() {
    const COUNT: usize = 2_000;
    let mut sandbox = Sandbox::new();
    let relays = [(); 2].map(|()| sandbox.relay(RELAY, Kind::Aware, &["aware"]));
    let server = Relay::start(0, std::process::Command::new(RELAY).arg("server"));
    let mut command = sandbox.app_command(LOAD);
    command.args(["finish", &COUNT.to_string()]).args(server.addresses.map(|to| to.to_string()));
    let mut load = Running::start(&mut command);
    let mut decided = Vec::new();
    for turn in 0.. {
        let relay = &relays[turn % 2].process;
        relay.stop();
        decided.extend(decisions(&mut sandbox));
        relay.resume();
        if let Some(status) = load.ended() {
            assert!(status.success() && turn > 10, "{status}, {turn} stops");
            break;
        }
        std::thread::yield_now();
    }
    until("all of it to be over", || (sandbox.engine.open_flights().unwrap() == 0).then_some(()));
    decided.extend(decisions(&mut sandbox));
    assert_eq!(decided.len(), 3 * COUNT);
}

fn assert_answered(client: &mut TcpStream) {
    let mut answer = [0; 2];
    client.write_all(b"ho").expect("write");
    client.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"ho");
}
