//! Services that know SO_ORIGINAL_DST and nothing else, alone and among aware ones. What they do not carry the engine
//! infers from the flows they hold, or says that it cannot; their rank alone sees to it that nothing comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use carnet::{Flow, Redirect};
use carnet_abi::{COUNT_NOT_INFERRED, EVENT_CONNECT, Event, ORIGIN_INFERRED, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen, stream, until};
use carnet_e2e::{Relay, Sandbox, raw};
use carnet_policy::Service;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const RELAY: &str = env!("CARGO_BIN_EXE_carnet-e2e-relay");

/// Every choice of kinds for three services is at the same time every order in which those kinds can stand.
#[test]
fn among_aware_services_in_every_order() {
    for kinds in 0..8 {
        let kinds = [0, 1, 2].map(|place| if kinds & 1 << place == 0 { Service::Aware } else { Service::Unaware });
        println!("{kinds:?}");
        let mut sandbox = Sandbox::new();
        let _relays = kinds.map(|kind| match kind {
            Service::Aware => sandbox.relay(RELAY, kind, &["aware"]),
            Service::Unaware => sandbox.relay(RELAY, kind, &["unaware"]),
        });
        let server = Relay::start(0, Command::new(RELAY).arg("server"));
        let mut ranks = [0, 1, 2];
        // Three rotations of the ranks, so that the order in which the services were started is not theirs.
        for destination in [server.addresses, server.addresses, server.addresses].concat() {
            ranks.rotate_left(1);
            for (provider, rank) in sandbox.policy.providers.iter_mut().zip(ranks) {
                provider.rank = rank;
            }
            sandbox.apply();
            sandbox.events();
            let mut client = sandbox.in_app(|| connect(destination)).expect("connect");
            assert_answered(&mut client);
            assert_one_flow(&sandbox.events(), ranks, kinds, destination);
            drop(client);
            until_no_flight(&sandbox);
        }
    }
}

/// Each service had the flow once, by rank, and it was one flow to the engine. `ranks` and `kinds` are by service.
fn assert_one_flow(events: &[Event], ranks: [u16; 3], kinds: [Service; 3], destination: SocketAddr) {
    let decided: Vec<&Event> = events.iter().filter(|event| event.kind == EVENT_CONNECT).collect();
    let mut order = [0, 1, 2];
    order.sort_by_key(|&service| ranks[service]);
    assert_eq!(decided.len(), 4, "{decided:#?}");
    for (hop, event) in decided.iter().enumerate() {
        assert_eq!(event.verdict, if hop < 3 { VERDICT_REDIRECT } else { VERDICT_PASS });
        assert_eq!(event.handle, order.get(hop).map_or(0, |&service| service as u32 + 1));
        assert_eq!(event.remote.to_socket_addr(), destination);
        assert_eq!(event.record.flow, decided[0].record.flow);
        assert_eq!(event.record.origin.pid, std::process::id());
        assert_eq!(event.base as usize, hop);
        let inferred = order[..hop].iter().any(|&service| kinds[service] == Service::Unaware);
        assert_eq!(event.record.origin.flags, if inferred { ORIGIN_INFERRED } else { 0 }, "hop {hop}");
    }
}

/// An unaware service, then an aware one, by hand.
struct Scene {
    sandbox: Sandbox,
    unaware: carnet_e2e::Service,
    aware: carnet_e2e::Service,
    server: TcpListener,
    destination: SocketAddr,
}

impl Scene {
    fn new() -> Self {
        let mut sandbox = Sandbox::new();
        let unaware = sandbox.service(Service::Unaware);
        let aware = sandbox.service(Service::Aware);
        let server = listen("0.0.0.0:0");
        let destination = ([127, 0, 0, 1], server.local_addr().expect("bound").port()).into();
        Self { sandbox, unaware, aware, server, destination }
    }

    /// The unaware service connects; the aware one accepts, and is told this.
    fn go_on(&self, to: SocketAddr) -> (Flow, [TcpStream; 2]) {
        let onward = self.sandbox.in_service(self.unaware.index, || connect(to)).expect("connect");
        let accepted = accept(&self.aware.listeners[0]);
        let flow = Redirect::of(&accepted).flow().expect("flow");
        assert_eq!(flow.destination(), to);
        (flow, [onward, accepted])
    }

    fn is_idle(&self) -> bool {
        is_idle(&self.server)
            && [&self.unaware, &self.aware].iter().all(|service| service.listeners.iter().all(is_idle))
    }
}

fn flow_of(accepted: &TcpStream) -> Flow {
    Redirect::of(accepted).flow().expect("flow")
}

fn handles(flow: &Flow) -> Vec<u32> {
    flow.chain().iter().map(|hop| hop.handle).collect()
}

/// Both are the first service's, as far as it is known; of one of them it is not known for whom.
#[test]
fn an_ambiguous_flow_and_one_of_the_service_itself_are_not_of_one_identity() {
    let mut sandbox = Sandbox::new();
    let [first, second] = [(); 2].map(|()| sandbox.service(Service::Unaware));
    let aware = sandbox.service(Service::Aware);
    let to = ([127, 0, 0, 1], 9).into();
    let dial = |service: &carnet_e2e::Service, next: &carnet_e2e::Service| {
        let onward = sandbox.in_service(service.index, || connect(to)).expect("connect");
        let accepted = accept(&next.listeners[0]);
        (flow_of(&accepted), [onward, accepted])
    };
    let clients = [sandbox.in_app(|| raw::as_nobody(|| connect(to))), sandbox.in_app(|| connect(to))];
    let held = clients.map(|client| (client.expect("connect"), accept(&first.listeners[0])));
    let (flow, _ambiguous) = dial(&first, &second);
    assert!(flow.origin().ambiguous);
    drop(held);
    until("the first service's flow to be over", || (sandbox.engine.open_flights().unwrap() == 1).then_some(()));
    let (flow, _own) = dial(&first, &second);
    assert!(!flow.origin().ambiguous && !flow.origin().inferred, "it is the service's own");
    let (flow, _) = dial(&second, &aware);
    assert!(flow.origin().ambiguous && !flow.origin().inferred, "it may be either");
    assert_eq!(flow.origin().cgroup_id, sandbox.service_cgroup(second.index).id());
}

#[test]
fn two_users_to_one_destination() {
    let scene = Scene::new();
    let (root_client, root) = scene.sandbox.arrive(&scene.unaware, scene.destination);
    let (flow, root_onward) = scene.go_on(scene.destination);
    assert!(flow.origin().inferred && !flow.origin().ambiguous);
    assert_eq!((flow.id(), flow.origin().uid, handles(&flow)), (flow_of(&root).id(), 0, vec![1, 2]));

    let nobody_client = scene.sandbox.in_app(|| raw::as_nobody(|| connect(scene.destination))).expect("connect");
    let nobody = accept(&scene.unaware.listeners[0]);
    assert_eq!(flow_of(&nobody).origin().uid, raw::NOBODY);
    let (flow, both_onward) = scene.go_on(scene.destination);
    assert!(flow.origin().ambiguous && !flow.origin().inferred, "whose it is cannot be known");
    assert!(![flow_of(&root).id(), flow_of(&nobody).id()].contains(&flow.id()), "so it is nobody's");
    assert_eq!(flow.origin().cgroup_id, scene.sandbox.service_cgroup(0).id(), "but the service's own");
    assert_eq!(handles(&flow), [2], "and does not come back to it");
    let last = scene.sandbox.in_service(scene.aware.index, || Redirect::of(&both_onward[1]).dial()).expect("dial");
    let at_server = accept(&scene.server);
    assert!(scene.is_idle());

    // It stays ambiguous until all of them are over: which of the two is left is not known either.
    drop((root_client, root));
    let (flow, again) = scene.go_on(scene.destination);
    assert!(flow.origin().ambiguous);
    drop((nobody_client, nobody, root_onward, both_onward, last, at_server, again));
    until_no_flight(&scene.sandbox);
    let held = scene.sandbox.in_app(|| raw::as_nobody(|| connect(scene.destination))).expect("connect");
    let accepted = accept(&scene.unaware.listeners[0]);
    let (flow, _onward) = scene.go_on(scene.destination);
    assert!(flow.origin().inferred && !flow.origin().ambiguous);
    assert_eq!((flow.id(), flow.origin().uid), (flow_of(&accepted).id(), raw::NOBODY));
    drop(held);
}

/// Two flows of one application to one destination: which of them a connection carries on is not known, but whose it is.
#[test]
fn one_user_twice_to_one_destination() {
    let scene = Scene::new();
    let (_first_client, first) = scene.sandbox.arrive(&scene.unaware, scene.destination);
    let (_second_client, second) = scene.sandbox.arrive(&scene.unaware, scene.destination);
    let flows = [flow_of(&first).id(), flow_of(&second).id()];
    assert_ne!(flows[0], flows[1]);
    for _ in 0..2 {
        let (flow, _onward) = scene.go_on(scene.destination);
        assert!(flow.origin().inferred && !flow.origin().ambiguous);
        assert!(flows.contains(&flow.id()));
        assert_eq!(flow.origin().pid, std::process::id());
        assert_eq!(handles(&flow), [1, 2]);
    }
}

#[test]
fn its_own_connections() {
    let mut scene = Scene::new();
    let (_client, accepted) = scene.sandbox.arrive(&scene.unaware, scene.destination);
    // Elsewhere, as to a name server: not what it holds, so its own; services above it have it, itself does not.
    let elsewhere = listen("127.0.0.1:0");
    let to = elsewhere.local_addr().unwrap();
    let (flow, own) = scene.go_on(to);
    assert_ne!(flow.id(), flow_of(&accepted).id());
    assert!(!flow.origin().inferred && !flow.origin().ambiguous);
    assert_eq!(flow.origin().cgroup_id, scene.sandbox.service_cgroup(0).id());
    assert_eq!(handles(&flow), [2]);
    let mut last = scene.sandbox.in_service(scene.aware.index, || Redirect::of(&own[1]).dial()).expect("dial");
    assert_joined(&mut last, &mut accept(&elsewhere));

    // And where nothing is above it, straight on.
    scene.sandbox.policy.providers.truncate(1);
    scene.sandbox.apply();
    let mut straight = scene.sandbox.in_service(scene.unaware.index, || connect(to)).expect("connect");
    assert_joined(&mut straight, &mut accept(&elsewhere));
    assert!(scene.is_idle());
    let decided = scene.sandbox.events().into_iter().filter(|event| event.kind == EVENT_CONNECT);
    assert_eq!(decided.count(), 1 + 2 + 1);
}

/// Neither what the service holds no more, nor what was inferred for a socket's connection before this one.
#[test]
fn nothing_inferred_outlives_its_connection() {
    let mut scene = Scene::new();
    let (client, accepted) = scene.sandbox.arrive(&scene.unaware, scene.destination);
    let (flow, onward) = scene.go_on(scene.destination);
    assert!(flow.origin().inferred);
    drop((client, accepted, onward));
    until_no_flight(&scene.sandbox);
    let (flow, _onward) = scene.go_on(scene.destination);
    assert!(!flow.origin().inferred && !flow.origin().ambiguous, "no flow is held any more");
    assert_eq!(handles(&flow), [2]);

    // Nobody but the unaware service, so that it feels the refusal and may use its socket again.
    scene.sandbox.policy.providers.truncate(1);
    scene.sandbox.apply();
    scene.sandbox.events();
    let refusing = stream(scene.destination);
    refusing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    let refusing = refusing.local_addr().expect("bound");
    let (_client, accepted) = scene.sandbox.arrive(&scene.unaware, refusing.as_socket().expect("IPv4"));
    scene.sandbox.in_service(scene.unaware.index, || {
        let socket = stream(scene.destination);
        socket.connect(&refusing).expect_err("nobody listens");
        socket.connect(&scene.destination.into()).expect("connect");
    });
    let events = scene.sandbox.events();
    let decided: Vec<_> =
        events.iter().filter(|event| event.kind == EVENT_CONNECT).map(|event| &event.record).collect();
    assert_eq!([1, 2].map(|i| decided[i].origin.flags), [ORIGIN_INFERRED, 0]);
    assert_eq!(decided[0].flow, decided[1].flow);
    assert_ne!(decided[0].flow, decided[2].flow);
    assert_eq!(decided.len(), 3);
    drop(accepted);
}

#[test]
fn many_destinations_at_once() {
    const COUNT: usize = 400;
    let scene = Scene::new();
    let port = scene.destination.port();
    let destination = |i: usize| SocketAddr::from(([127, 0, 1 + (i / 200) as u8, (i % 200) as u8], port));
    let held: Vec<_> = (0..COUNT).map(|i| scene.sandbox.arrive(&scene.unaware, destination(i))).collect();
    assert_eq!(scene.sandbox.engine.open_flights().unwrap(), COUNT);
    for (i, (_client, accepted)) in held.iter().enumerate() {
        assert_eq!(Redirect::of(accepted).original_destination().unwrap(), destination(i));
        let (flow, _onward) = scene.go_on(destination(i));
        assert_eq!(flow.id(), flow_of(accepted).id(), "of {COUNT} flows the one to {}", destination(i));
    }
    drop(held);
    until_no_flight(&scene.sandbox);
    assert_eq!(scene.sandbox.engine.counters().unwrap()[COUNT_NOT_INFERRED], 0, "there was room for all of them");
}

/// More than the table has room for: such flows are not inferred, which is counted, and they end all the same.
#[test]
fn more_destinations_than_there_is_room_for() {
    const COUNT: usize = 4_200;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the limit can be raised");
    let mut sandbox = Sandbox::new();
    let unaware = sandbox.service(Service::Unaware);
    let server = listen("0.0.0.0:0");
    let port = server.local_addr().unwrap().port();
    let held: Vec<_> = (0..COUNT)
        .map(|i| sandbox.arrive(&unaware, ([127, 0, (i / 200) as u8, (i % 200) as u8 + 1], port).into()))
        .collect();
    let missed = sandbox.engine.counters().unwrap()[COUNT_NOT_INFERRED];
    assert!(missed >= COUNT as u64 - 4096, "{COUNT} do not fit into 4096 places; {missed} were counted");
    for (_client, accepted) in held.iter().step_by(100) {
        let to = Redirect::of(accepted).original_destination().unwrap();
        let mut onward = sandbox.in_service(unaware.index, || connect(to)).expect("connect");
        assert_joined(&mut onward, &mut accept(&server));
    }
    assert!(unaware.listeners.iter().all(is_idle), "nothing comes back");
    drop(held);
    until_no_flight(&sandbox);
}

fn until_no_flight(sandbox: &Sandbox) {
    until("all flows to be over", || (sandbox.engine.open_flights().expect("readable") == 0).then_some(()));
}

fn assert_answered(client: &mut TcpStream) {
    let mut answer = [0; 2];
    client.write_all(b"ho").expect("write");
    client.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"ho");
}
