//! Socket options where two engines answer: the inner one governs a cgroup inside a service of the outer one, so the
//! socket-option programs of both run at the inner one's services, the inner one's first.

use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::{ErrorKind, Redirect, State};
use carnet_abi::{CARNET_CONTEXT, CARNET_FLOW, CARNET_RECORDS, CARNET_STATE, EVENT_SET, Event, Records, SOL_CARNET};
use carnet_e2e::sockets::{accept, connect, connect_on, listen, stream};
use carnet_e2e::{Ground, raw, set_records};
use libc::{EACCES, EBADMSG, EINVAL, EISCONN, EMSGSIZE, ENODATA, ENOENT, EOPNOTSUPP, ESTALE, SO_ORIGINAL_DST, SOL_IP};
use socket2::{Domain, Socket, Type};
use zerocopy::FromBytes;

use crate::nested::on_both;
use crate::walk::Party;

/// Two engines, and a connection that has come to the first service of each.
struct Answers {
    outer: Party,
    inner: Party,
    destination: SocketAddr,
    at_outer: TcpStream,
    at_inner: TcpStream,
    _clients: [TcpStream; 2],
    _server: TcpListener,
}

impl Answers {
    /// `within` says whether the outer engine's first service listens inside the inner one's services.
    fn new(within: bool) -> Self {
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap();
        let ground = Ground::new();
        let inside = Ground::inside(&ground.service(0));
        let (mut outer, inner) = on_both(ground, inside, true);
        if within {
            outer.services[0].listeners = inner.sandbox.in_service(0, || vec![listen("127.0.0.1:0")]);
            let at = outer.services[0].listeners[0].local_addr().unwrap();
            outer.sandbox.policy.providers[0].listeners = vec![at];
            outer.sandbox.apply();
        }
        let (to_outer, at_outer) = outer.sandbox.arrive(&outer.services[0], destination);
        let (to_inner, at_inner) = inner.sandbox.arrive(&inner.services[0], destination);
        let _clients = [to_outer, to_inner];
        Self { outer, inner, destination, at_outer, at_inner, _clients, _server: server }
    }
}

/// An engine answers for its own sockets, whichever of the two is asked first.
#[test]
fn each_engine_answers_for_its_own_sockets() {
    for within in [false, true] {
        let answers = Answers::new(within);
        for (party, accepted, of) in [
            (&answers.outer, &answers.at_outer, answers.outer.sandbox.app_cgroup().id()),
            (&answers.inner, &answers.at_inner, answers.inner.sandbox.app_cgroup().id()),
        ] {
            let redirect = Redirect::of(accepted);
            let records = redirect.records().expect("records");
            let records = Records::read_from_bytes(records.as_bytes()).unwrap();
            assert_eq!(records.engine, party.sandbox.engine.id(), "{within}");
            let flow = redirect.flow().expect("flow");
            assert_eq!((flow.destination(), flow.origin().cgroup_id, flow.depth()), (answers.destination, of, 1));
            assert_eq!(redirect.original_destination().unwrap(), answers.destination);
            assert_eq!(redirect.context().unwrap(), None);
            let state = party.sandbox.in_service(0, || redirect.state());
            assert_eq!(state.unwrap(), State::RedirectedBySelf, "{within}");
        }
    }
}

/// What is wrong with a question is said by the engine whose socket it is.
#[test]
fn each_engine_refuses_for_its_own_sockets() {
    for within in [false, true] {
        let answers = Answers::new(within);
        for accepted in [&answers.at_outer, &answers.at_inner] {
            for name in [CARNET_RECORDS, CARNET_FLOW, CARNET_STATE] {
                assert_eq!(raw::get(accepted, SOL_CARNET, name, &mut [0; 3]), Err(EMSGSIZE), "{within} {name}");
            }
            assert_eq!(raw::get(accepted, SOL_CARNET, CARNET_CONTEXT, &mut [0; 8]), Err(ENOENT), "{within}");
            assert_eq!(raw::get(accepted, SOL_IP, SO_ORIGINAL_DST, &mut [0; 15]), Err(EINVAL), "{within}");
        }
    }
}

/// Where neither has an answer, they say together what one says.
#[test]
fn sockets_of_neither_engine() {
    let answers = Answers::new(false);
    let (listener, udp) = answers
        .inner
        .sandbox
        .in_service(0, || (listen("127.0.0.1:0"), Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap()));
    for name in [CARNET_RECORDS, CARNET_FLOW, CARNET_CONTEXT] {
        assert_eq!(raw::get(&listener, SOL_CARNET, name, &mut [0; 1024]), Err(ENODATA));
        assert_eq!(raw::get(&udp, SOL_CARNET, name, &mut [0; 1024]), Err(EOPNOTSUPP));
    }
    let mut state = [0xff; 4];
    assert_eq!(raw::get(&listener, SOL_CARNET, CARNET_STATE, &mut state), Ok(4));
    assert_eq!(u32::from_ne_bytes(state), State::NotRedirected as u32);
    let alone = raw::get(&listen("127.0.0.1:0"), SOL_IP, SO_ORIGINAL_DST, &mut [0; 16]);
    assert_eq!(raw::get(&listener, SOL_IP, SO_ORIGINAL_DST, &mut [0; 16]), alone, "the kernel's own answer");
}

/// A record that another engine has made is no use to the first one that is asked, and it says so; the engine whose
/// record it is takes it all the same.
#[test]
fn a_record_is_taken_by_the_engine_whose_it_is() {
    let mut answers = Answers::new(false);
    let blobs =
        [&answers.at_outer, &answers.at_inner].map(|of| Redirect::of(of).records().unwrap().as_bytes().to_vec());
    let [of_outer, of_inner] = blobs;
    let sockets = answers.inner.sandbox.in_service(0, || [(); 5].map(|()| stream(answers.destination)));
    let [one, other, both, forged, foreign] = sockets;
    answers.outer.sandbox.events();
    answers.inner.sandbox.events();
    answers.inner.sandbox.in_service(0, || {
        assert_eq!(set_records(&one, &of_outer), Ok(()));
        assert_eq!(set_records(&other, &of_inner), Ok(()));
        assert_eq!(set_records(&both, &of_outer), Ok(()));
        assert_eq!(set_records(&both, &of_inner), Ok(()));
    });
    // Who took it and who did not, by the events of both: the outer one is not asked what the inner one took.
    assert_eq!(sets(&mut answers.inner), [ESTALE, 0, ESTALE, 0]);
    assert_eq!(sets(&mut answers.outer), [0, 0]);

    // What either one refuses for a reason of its own stays refused, and so says the errno.
    let mut wrong = of_inner.clone();
    wrong[100] ^= 1;
    let mut strange = of_inner.clone();
    strange[8] ^= 1; // the engine's id
    let mut wrong_outer = of_outer.clone();
    wrong_outer[100] ^= 1;
    answers.inner.sandbox.in_service(0, || {
        assert_eq!(set_records(&forged, &wrong), Err(EBADMSG));
        assert_eq!(set_records(&forged, &wrong_outer), Err(EBADMSG));
        assert_eq!(set_records(&foreign, &strange), Err(ESTALE), "of neither");
        assert_eq!(set_records(&foreign, &of_inner[1..]), Err(EINVAL));
    });
    answers.inner.sandbox.in_service(1, || {
        assert_eq!(set_records(&foreign, &of_inner), Err(EACCES), "its second service has not had that flow");
    });

    // The inner engine's record works: its second service has the flow, not the first.
    let onward =
        answers.inner.sandbox.in_service(0, || connect_on(other, &answers.destination.into())).expect("connect");
    let accepted = accept(&answers.inner.services[1].listeners[0]);
    let flow = Redirect::of(&accepted).flow().expect("flow");
    assert_eq!(flow.id(), Redirect::of(&answers.at_inner).flow().unwrap().id());
    let connected: Socket = onward.into();
    answers.inner.sandbox.in_service(0, || assert_eq!(set_records(&connected, &of_inner), Err(EISCONN)));
}

/// The outer engine's record on a socket that only the outer engine governs: its flow goes on, untouched by the other.
#[test]
fn an_outer_flow_goes_on_where_the_inner_engine_governs_nothing() {
    let answers = Answers::new(false);
    let onward = answers.outer.sandbox.in_service(0, || Redirect::of(&answers.at_outer).dial()).expect("dial");
    let accepted = accept(&answers.outer.services[1].listeners[0]);
    let before = Redirect::of(&answers.at_outer).flow().unwrap();
    let after = Redirect::of(&accepted).flow().unwrap();
    assert_eq!((after.id(), after.depth()), (before.id(), 2));
    assert_eq!(onward.peer_addr().unwrap(), answers.destination);
    answers.inner.assert_idle();
}

/// Outside of all services there is no engine, also where there are two.
#[test]
fn an_application_is_not_answered() {
    let answers = Answers::new(false);
    let client = answers.inner.sandbox.in_app(|| connect(answers.destination)).expect("connect");
    // The inner application is in the outer engine's service, which has no record of this socket.
    assert_eq!(Redirect::of(&client).flow().unwrap_err().kind(), ErrorKind::NotRedirected);
    let client = answers.outer.sandbox.in_app(|| connect(answers.destination)).expect("connect");
    assert_eq!(Redirect::of(&client).flow().unwrap_err().kind(), ErrorKind::NoEngine);
}

/// The errno of each SET since the last time, 0: it was taken.
fn sets(party: &mut Party) -> Vec<i32> {
    let events = party.sandbox.events();
    events.iter().filter(|event: &&Event| event.kind == EVENT_SET).map(|event| event.error).collect()
}
