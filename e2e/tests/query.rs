//! What the options of level `SOL_CARNET` answer: on which sockets, to whom, into which buffers.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use carnet::{ErrorKind, Redirect, State};
use carnet_abi::{
    CARNET_CONTEXT, CARNET_FLOW, CARNET_RECORDS, CARNET_STATE, CONTEXT_MAX, Flow, Key, RECORDS_MAX, Records, SOL_CARNET,
};
use carnet_e2e::sockets::{accept, connect, connect_on, listen, stream};
use carnet_e2e::{Sandbox, raw};
use carnet_policy::{Action, Service};
use libbpf_rs::{MapCore, MapFlags};
use libc::{EFAULT, EIDRM, EINVAL, EMSGSIZE, ENOBUFS, ENODATA, ENOENT, ENOPROTOOPT, EOPNOTSUPP};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use zerocopy::{FromBytes, IntoBytes};

const OPTIONS: [i32; 4] = [CARNET_RECORDS, CARNET_CONTEXT, CARNET_FLOW, CARNET_STATE];
const LARGE: [usize; 3] = [4096, 8192, 1 << 20];

#[test]
fn records_are_whole_or_not_there() {
    let (sandbox, accepted, _client) = redirected();
    for size in (0..=RECORDS_MAX).chain(LARGE) {
        let answer = query(&accepted, CARNET_RECORDS, size);
        assert_eq!(answer.map(|bytes| bytes.len()), if size < 528 { Err(EMSGSIZE) } else { Ok(528) }, "{size} bytes");
    }
    drop(sandbox);
}

#[test]
fn a_flow_is_cut_after_the_last_field_that_fits() {
    let (_sandbox, accepted, _client) = redirected();
    let whole = query(&accepted, CARNET_FLOW, size_of::<Flow>()).expect("flow");
    assert_eq!(whole.len(), 432);
    for size in (0..=RECORDS_MAX).chain(LARGE) {
        // The ends of: depth, flow id, origin, remote, chain.
        let expected = [8, 24, 152, 176, 432].into_iter().rfind(|end| *end <= size);
        let answer = query(&accepted, CARNET_FLOW, size);
        assert_eq!(answer, expected.map(|end| whole[..end].to_vec()).ok_or(EMSGSIZE), "{size} bytes");
    }
}

#[test]
fn a_state_has_four_bytes() {
    let (sandbox, accepted, _client) = redirected();
    sandbox.in_service(0, || {
        for size in (0..=16).chain(LARGE) {
            let expected = if size < 4 { Err(EMSGSIZE) } else { Ok(1_u32.to_ne_bytes().to_vec()) };
            assert_eq!(query(&accepted, CARNET_STATE, size), expected, "{size} bytes");
        }
    });
}

#[test]
fn a_context_is_what_the_filter_gave() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let service = sandbox.service(Service::Aware);
    for given in [0, 1, 63, 64, 65, 127, 128, 2047, CONTEXT_MAX] {
        let context: Vec<u8> = (0..given).map(|at| (at % 251) as u8 + 1).collect();
        sandbox.policy.providers[0].filters[0].action = Action::Redirect { context: context.clone() };
        sandbox.apply();
        let (_client, accepted) = sandbox.arrive(&service, server.local_addr().unwrap());
        let around = [given.saturating_sub(65), given.saturating_sub(64), given.saturating_sub(1), given, given + 1];
        for size in around.into_iter().chain([0, 1, CONTEXT_MAX]).chain(LARGE) {
            let expected = match given {
                0 => Err(ENOENT),
                _ if size < given => Err(EMSGSIZE),
                _ => Ok(context.clone()),
            };
            assert_eq!(query(&accepted, CARNET_CONTEXT, size), expected, "{given} bytes into {size}");
        }
        let expected = (given > 0).then_some(context);
        assert_eq!(Redirect::of(&accepted).context().expect("context"), expected);
    }
}

/// A flow keeps the context it was redirected with when the filter changes. After one more policy it is gone, which is
/// not the same as none.
#[test]
fn a_context_outlives_its_filter() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let service = sandbox.service(Service::Aware);
    let with = |sandbox: &mut Sandbox, context: &[u8]| {
        sandbox.policy.providers[0].filters[0].action = Action::Redirect { context: context.to_vec() };
        sandbox.apply();
        sandbox.arrive(&service, server.local_addr().unwrap())
    };
    let (_client, before) = with(&mut sandbox, b"before");
    let (_client, after) = with(&mut sandbox, b"after");
    assert_eq!(query(&before, CARNET_CONTEXT, 64).unwrap(), b"before");
    assert_eq!(query(&after, CARNET_CONTEXT, 64).unwrap(), b"after");
    sandbox.apply();
    assert_eq!(query(&before, CARNET_CONTEXT, 64), Err(EIDRM));
    assert_eq!(query(&after, CARNET_CONTEXT, 64).unwrap(), b"after");
    assert_eq!(Redirect::of(&before).context().unwrap_err().kind(), ErrorKind::ContextLost);
    assert!(Redirect::of(&before).records().is_ok(), "the record is there all the same");
}

#[test]
fn without_a_buffer_it_is_the_question_for_the_size() {
    let (_sandbox, accepted, _client) = redirected();
    for (option, size) in [(CARNET_RECORDS, 528), (CARNET_CONTEXT, 7), (CARNET_FLOW, 432), (CARNET_STATE, 4)] {
        for claimed in [size, 640, 4096, 8192, 1 << 20, i32::MAX] {
            let answer = raw::get_at_null(&accepted, SOL_CARNET, option, claimed);
            assert_eq!(answer, Ok(size as usize), "option {option}, {claimed} bytes claimed");
        }
        let short = raw::get_at_null(&accepted, SOL_CARNET, option, 0);
        assert_eq!(short, Err(EMSGSIZE), "option {option}, nothing claimed");
        assert_eq!(raw::get_at_null(&accepted, SOL_CARNET, option, -1), Err(EINVAL));
        assert_eq!(raw::get_at_nowhere(&accepted, SOL_CARNET, option, 640), Err(EFAULT));
    }
}

/// A query takes nothing away.
#[test]
fn asked_again_it_is_the_same_but_for_stamp_and_tag() {
    let (_sandbox, accepted, _client) = redirected();
    let first = Records::read_from_bytes(&query(&accepted, CARNET_RECORDS, 528).unwrap()).unwrap();
    let mut again = Records::read_from_bytes(&query(&accepted, CARNET_RECORDS, 8192).unwrap()).unwrap();
    assert!(again.stamp > first.stamp, "each query has its own time");
    assert_ne!(again.tag, first.tag);
    (again.stamp, again.tag) = (first.stamp, first.tag);
    assert_eq!(again, first);
    for option in [CARNET_CONTEXT, CARNET_FLOW] {
        assert_eq!(query(&accepted, option, 640).unwrap(), query(&accepted, option, 640).unwrap());
    }
}

/// Only the accepted socket has an answer.
#[test]
fn tcp_sockets_without_a_record() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let first = sandbox.service(Service::Aware);
    let second = sandbox.service(Service::Aware);
    let (_client, accepted) = sandbox.arrive(&first, destination);
    let records = Redirect::of(&accepted).records().unwrap();

    let (unused, carrying, redirected, inside) = sandbox.in_service(first.index, || {
        let carrying = stream(destination);
        records.apply_to(&carrying).expect("SET");
        let inside = listen("127.0.0.1:0");
        (stream(destination), carrying, connect(destination).expect("connect"), inside)
    });
    accept(&second.listeners[0]);
    // A service's other listener, which no filter leads to: its connections are ordinary ones.
    let _stray = connect(inside.local_addr().unwrap()).expect("connect");
    let ordinary = accept(&inside);
    let none: [(&str, BorrowedFd<'_>, State); 6] = [
        ("new", unused.as_fd(), State::NotRedirected),
        ("outgoing, with a record", carrying.as_fd(), State::RedirectedBySelf),
        ("outgoing, redirected itself", redirected.as_fd(), State::NotRedirected),
        ("a provider's listener", first.listeners[0].as_fd(), State::NotRedirected),
        ("another listener", inside.as_fd(), State::NotRedirected),
        ("accepted, not redirected", ordinary.as_fd(), State::NotRedirected),
    ];
    for (what, socket, state) in &none {
        for option in [CARNET_RECORDS, CARNET_CONTEXT, CARNET_FLOW] {
            for size in [0, 4, 528, 8192] {
                assert_eq!(query(socket, option, size), Err(ENODATA), "{what}: option {option}, {size} bytes");
            }
        }
        assert_eq!(Redirect::of(socket).records().unwrap_err().kind(), ErrorKind::NotRedirected, "{what}");
        let told = sandbox.in_service(first.index, || Redirect::of(socket).state());
        assert_eq!(told.expect("a state is no error"), *state, "{what}");
    }
}

#[test]
fn sockets_that_are_not_tcp() {
    let sandbox = with_service();
    let sockets = sandbox.in_service(0, others);
    for (what, socket) in &sockets {
        for option in OPTIONS {
            for size in [0, 4, 640, 8192] {
                assert_eq!(query(socket, option, size), Err(EOPNOTSUPP), "{what}: option {option}, {size} bytes");
            }
        }
        assert_eq!(Redirect::of(socket).flow().unwrap_err().kind(), ErrorKind::NotTcp, "{what}");
    }
}

/// The hooks are where services are. An application's socket is not, and neither is one from outside.
#[test]
fn sockets_outside_the_services() {
    let sandbox = with_service();
    let make = || (stream(([127, 0, 0, 1], 1).into()), stream(SocketAddr::from(([0; 16], 1))));
    for (v4, v6) in [sandbox.in_app(make), make()] {
        for option in OPTIONS {
            assert_eq!(query(&v4, option, 640), Err(EOPNOTSUPP));
            assert_eq!(query(&v6, option, 640), Err(ENOPROTOOPT));
        }
        for socket in [&v4, &v6] {
            assert_eq!(Redirect::of(socket).flow().unwrap_err().kind(), ErrorKind::NoEngine);
            assert_eq!(Redirect::of(socket).state().unwrap_err().kind(), ErrorKind::NoEngine);
        }
    }
}

/// What is no option of Carnet's is the kernel's to answer, as if Carnet were not there.
#[test]
fn options_that_do_not_exist() {
    let (sandbox, accepted, _client) = redirected();
    let make = || (stream(([127, 0, 0, 1], 1).into()), stream(SocketAddr::from(([0; 16], 1))));
    let (inside, outside) = (sandbox.in_service(0, make), make());
    for option in [0, 5, 99, -1, i32::MAX, 0x4000_0001] {
        for size in [0, 4, 640] {
            assert_eq!(query(&accepted, option, size), Err(EOPNOTSUPP), "option {option}");
            assert_eq!(query(&inside.0, option, size), query(&outside.0, option, size), "option {option}");
            assert_eq!(query(&inside.1, option, size), query(&outside.1, option, size), "option {option}");
        }
    }
}

#[test]
fn a_lost_context_is_not_the_same_as_none() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    // Nobody redirected this one, but it comes to where only redirected ones should come.
    let _stray = connect(service.listeners[0].local_addr().unwrap()).expect("connect");
    let accepted = accept(&service.listeners[0]);
    for option in [CARNET_RECORDS, CARNET_CONTEXT, CARNET_FLOW] {
        for size in [0, 528, 8192] {
            assert_eq!(query(&accepted, option, size), Err(EIDRM), "option {option}, {size} bytes");
        }
    }
    assert_eq!(Redirect::of(&accepted).records().unwrap_err().kind(), ErrorKind::ContextLost);
    assert_eq!(Redirect::of(&accepted).state().expect("state"), State::NotRedirected);
}

/// The record is the accepted socket's from the handshake on: who hangs up before accept() changes nothing.
#[test]
fn the_client_is_gone_before_accept() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let service = sandbox.service(Service::Aware);
    for linger in [None, Some(Duration::ZERO)] {
        let client = sandbox.in_app(|| connect(destination)).expect("connect");
        let source = client.local_addr().unwrap();
        SockRef::from(&client).set_linger(linger).unwrap();
        drop(client);
        let accepted = accept(&service.listeners[0]);
        let flow = Redirect::of(&accepted).flow().expect("flow");
        assert_eq!((flow.destination(), flow.origin().source), (destination, Some(source)));
        assert!(query(&accepted, CARNET_RECORDS, 528).is_ok());
        let onward = sandbox.in_service(service.index, || Redirect::of(&accepted).dial()).expect("dial");
        assert_eq!(accept(&server).peer_addr().unwrap(), onward.local_addr().unwrap());
    }
}

/// Where one end is plain TCP the connection is, too.
#[test]
fn mptcp() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let destination = SocketAddr::from(([127, 0, 0, 1], 7000));
    let mptcp = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("a kernel with MPTCP");
    let _client = sandbox.in_app(|| connect_on(mptcp(), &destination.into())).expect("connect");
    let accepted = accept(&service.listeners[0]);
    assert_eq!(Redirect::of(&accepted).flow().expect("flow").destination(), destination);

    let listener = sandbox.in_service(0, || {
        let socket = mptcp();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(1).unwrap();
        socket.set_nonblocking(true).unwrap();
        TcpListener::from(socket)
    });
    sandbox.policy.providers[0].listeners = vec![listener.local_addr().unwrap()];
    sandbox.apply();
    let _client = sandbox.in_app(|| connect(destination)).expect("connect");
    let accepted = accept(&listener);
    assert_eq!(Redirect::of(&accepted).flow().expect("flow").destination(), destination);
    assert!(query(&accepted, CARNET_RECORDS, 528).is_ok());
}

#[test]
fn without_a_key() {
    let (sandbox, accepted, _client) = redirected();
    assert!(query(&accepted, CARNET_RECORDS, 528).is_ok());
    let keys = sandbox.engine.map_handle("carnet_keys").expect("the map of keys");
    keys.update(&0_u32.to_ne_bytes(), Key::default().as_bytes(), MapFlags::ANY).expect("writable");
    assert_eq!(query(&accepted, CARNET_RECORDS, 528), Err(ENOBUFS));
    assert!(query(&accepted, CARNET_FLOW, 432).is_ok(), "an answer that carries no tag");
}

/// No privilege is needed to ask.
#[test]
fn anybody_may_ask() {
    let (_sandbox, accepted, _client) = redirected();
    let flow = raw::as_nobody(|| Redirect::of(&accepted).flow()).expect("flow");
    assert_eq!(flow.origin().uid, 0, "the application's, not the asker's");
    raw::as_nobody(|| Redirect::of(&accepted).records()).expect("records");
    assert_eq!(raw::as_nobody(|| query(&accepted, CARNET_CONTEXT, 16)).expect("context"), b"context");
}

/// Windows' four states, for whoever asks.
#[test]
fn the_state_depends_on_who_asks() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let [first, second, third] = [(); 3].map(|()| sandbox.service(Service::Aware));
    let (_client, at_first) = sandbox.arrive(&first, server.local_addr().unwrap());
    let _onward = sandbox.in_service(first.index, || Redirect::of(&at_first).dial()).expect("dial");
    let at_second = accept(&second.listeners[0]);
    let ask = |socket: &TcpStream, service: usize| {
        sandbox.in_service(service, || Redirect::of(socket).state().expect("state"))
    };
    assert_eq!(ask(&at_first, first.index), State::RedirectedBySelf);
    assert_eq!(ask(&at_first, second.index), State::RedirectedByOther);
    assert_eq!(ask(&at_second, first.index), State::PreviouslyRedirectedBySelf);
    assert_eq!(ask(&at_second, second.index), State::RedirectedBySelf);
    assert_eq!(ask(&at_second, third.index), State::RedirectedByOther);
    // Who asks may be nobody's service at all.
    assert_eq!(Redirect::of(&at_second).state().expect("state"), State::RedirectedByOther);
}

/// What `getsockopt` gives for a buffer of this size. What the kernel did not say it wrote must be as it was.
fn query(socket: &impl AsFd, option: i32, size: usize) -> Result<Vec<u8>, i32> {
    const UNTOUCHED: u8 = 0xa5;
    let mut buffer = vec![UNTOUCHED; size];
    let answer = raw::get(socket, SOL_CARNET, option, &mut buffer);
    let rest = &buffer[answer.unwrap_or(0)..];
    assert!(rest.iter().all(|&byte| byte == UNTOUCHED), "option {option} wrote beyond its answer {answer:?}");
    answer.map(|length| buffer[..length].to_vec())
}

/// A connection with a context of seven bytes that has come to the one service there is.
fn redirected() -> (Sandbox, TcpStream, TcpStream) {
    let mut sandbox = Sandbox::new();
    let server: TcpListener = listen("127.0.0.1:0");
    let service = sandbox.service(Service::Aware);
    sandbox.policy.providers[0].filters[0].action = Action::Redirect { context: b"context".to_vec() };
    sandbox.apply();
    let (client, accepted) = sandbox.arrive(&service, server.local_addr().expect("an address"));
    (sandbox, accepted, client)
}

fn with_service() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.service(Service::Aware);
    sandbox
}

/// Sockets of every kind but TCP's.
fn others() -> Vec<(&'static str, Socket)> {
    let of = |domain, r#type, protocol| Socket::new(domain, r#type, protocol).expect("a socket");
    let (here, _there) = UnixStream::pair().expect("a pair");
    vec![
        ("UDP", of(Domain::IPV4, Type::DGRAM, None)),
        ("UDP over IPv6", of(Domain::IPV6, Type::DGRAM, None)),
        ("raw", of(Domain::IPV4, Type::RAW, Some(Protocol::UDP))),
        ("raw IPv6", of(Domain::IPV6, Type::RAW, Some(Protocol::UDP))),
        ("raw with TCP's number", of(Domain::IPV4, Type::RAW, Some(Protocol::TCP))),
        ("unix datagram", of(Domain::UNIX, Type::DGRAM, None)),
        ("unix stream", here.into()),
        ("netlink", of(Domain::from(libc::AF_NETLINK), Type::RAW, None)),
        ("packet", of(Domain::from(libc::AF_PACKET), Type::DGRAM, None)),
    ]
}
