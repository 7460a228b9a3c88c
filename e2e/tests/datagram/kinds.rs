//! Kinds of sockets that no hook sees: told when they are made, and refused where the policy is strict.

use std::net::SocketAddr;
use std::process::Command;

use carnet_abi::{EVENT_SOCKET, Event, REASON_SOCKET, VERDICT_PASS, VERDICT_REFUSE};
use carnet_e2e::raw::{self, Ring};
use carnet_e2e::{Sandbox, netns};
use carnet_policy::Service;
use socket2::{Domain, Protocol, Socket, Type};

/// The arguments of `socket()`.
type Kind = (i32, i32, i32);

const UNSEEN: [Kind; 8] = [
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP),
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
    (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
    (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_TCP),
    (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
    (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
];

/// Kinds that not every kernel has.
const RARE: [Kind; 6] = [
    (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    (libc::AF_INET6, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP),
    (libc::AF_INET, SOCK_DCCP, libc::IPPROTO_DCCP),
    (libc::AF_INET, libc::SOCK_DGRAM, IPPROTO_L2TP),
    (libc::AF_INET6, libc::SOCK_DGRAM, IPPROTO_L2TP),
    (libc::AF_INET, libc::SOCK_STREAM, IPPROTO_SMC),
];

/// Those that nearly every distribution's kernel has, as a module.
const SCTP: [Kind; 4] = [
    (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    (libc::AF_INET, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP),
    (libc::AF_INET6, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP),
];

/// Kinds whose connections pass the hooks, and families that are not the internet's.
const OTHERS: [Kind; 10] = [
    (libc::AF_INET, libc::SOCK_STREAM, 0),
    (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
    (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
    (libc::AF_INET, libc::SOCK_DGRAM, 0),
    (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::AF_UNIX, libc::SOCK_STREAM, 0),
    (libc::AF_UNIX, libc::SOCK_DGRAM, 0),
    (libc::AF_NETLINK, libc::SOCK_RAW, 0),
    (libc::AF_PACKET, libc::SOCK_RAW, 0),
];

#[test]
fn told_where_they_are_made() {
    UNSEEN.into_iter().for_each(assert_told_where_it_is_made);
}

#[test]
fn refused_where_the_policy_is_strict() {
    UNSEEN.into_iter().for_each(assert_refused_where_the_policy_is_strict);
}

#[test]
#[ignore = "needs SCTP, which Debian's kernels have as a module"]
fn sctp_is_told_and_refused() {
    for kind in SCTP {
        assert!(socket(kind).is_ok(), "this kernel has no SCTP, or not its module");
        assert_told_where_it_is_made(kind);
        assert_refused_where_the_policy_is_strict(kind);
    }
}

#[test]
fn a_user_is_refused_udp_lite_too() {
    let mut sandbox = strict();
    sandbox.events();
    let made = || raw::as_nobody(|| socket((libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)));
    assert_eq!(sandbox.in_app(made).err(), Some(libc::EACCES));
    let events = sandbox.events();
    let [event] = events[..] else { panic!("{events:#?}") };
    assert_eq!((event.kind, event.uid, event.record.origin.uid), (EVENT_SOCKET, raw::NOBODY, raw::NOBODY));
}

#[test]
fn refused_by_io_uring_too() {
    let mut sandbox = strict();
    for make in [Ring::inline, Ring::workers, Ring::poller] {
        sandbox.events();
        let (family, r#type, protocol) = UNSEEN[0];
        let made = sandbox.in_app(|| make().socket(family, r#type, protocol));
        assert_eq!(made.err(), Some(libc::EACCES));
        let events = sandbox.events();
        let [event] = events[..] else { panic!("{events:#?}") };
        assert_told(&event, UNSEEN[0]);
    }
}

/// Where the kernel has not the kind, that is what socket() says, strict or not, and nobody is told.
#[test]
fn kinds_that_not_every_kernel_has() {
    for kind in RARE {
        let (made, told) = make(&mut Sandbox::new(), kind);
        let (refused, told_strictly) = make(&mut strict(), kind);
        assert_eq!(told.is_some(), made.is_ok(), "{kind:?}: {made:?}");
        assert_eq!(told_strictly.is_some(), made.is_ok(), "{kind:?}");
        assert_eq!(refused.err(), Some(made.err().unwrap_or(libc::EACCES)), "{kind:?}");
    }
}

#[test]
fn others_are_neither_told_nor_refused() {
    for mut sandbox in [Sandbox::new as fn() -> _, strict].into_iter().map(|make| make()) {
        for kind in OTHERS {
            let (made, event) = make(&mut sandbox, kind);
            assert!(made.is_ok(), "{kind:?}: {made:?}");
            assert!(event.is_none(), "{kind:?}: {event:#?}");
        }
    }
}

/// They pass no hook, so this is what keeps them away.
#[test]
fn packet_sockets_need_the_capability_by_io_uring_too() {
    const PACKET: [Kind; 3] =
        [(libc::AF_PACKET, libc::SOCK_RAW, 0), (libc::AF_PACKET, libc::SOCK_DGRAM, 0), (libc::AF_INET, SOCK_PACKET, 0)];
    let mut sandbox = strict();
    sandbox.events();
    for kind @ (family, r#type, protocol) in PACKET {
        for make in [Ring::inline, Ring::workers, Ring::poller] {
            let made = || make().socket(family, r#type, protocol).map(drop);
            assert_eq!(sandbox.in_app(made), Ok(()), "root may, {kind:?}");
            assert_eq!(sandbox.in_app(|| raw::as_nobody(made)), Err(libc::EPERM), "{kind:?}");
        }
        assert_eq!(sandbox.in_app(|| raw::as_nobody(|| socket(kind).map(drop))), Err(libc::EPERM), "{kind:?}");
    }
    assert!(sandbox.events().is_empty());
}

/// They need no privilege where the system lets them be, and what they send and get can be anything.
#[test]
fn ping_sockets_are_told_and_refused() {
    netns::alone(|| {
        let allow = "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range";
        assert!(Command::new("sh").args(["-c", allow]).status().unwrap().success());
        for kind in [
            (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
            (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
        ] {
            assert_told_where_it_is_made(kind);
            assert_refused_where_the_policy_is_strict(kind);
        }
    });
}

#[test]
fn services_may() {
    let mut sandbox = strict();
    let service = sandbox.service(Service::Aware);
    sandbox.events();
    for kind in UNSEEN {
        assert!(sandbox.in_service(service.index, || socket(kind)).is_ok(), "{kind:?}");
        let events = sandbox.events();
        let [event] = events[..] else { panic!("{kind:?}: {events:#?}") };
        assert_told(&event, kind);
        assert_eq!((event.verdict, event.error, event.dialer), (VERDICT_PASS, 0, 1));
    }
}

#[test]
fn who_is_not_governed_may() {
    let mut sandbox = strict();
    sandbox.events();
    for kind in UNSEEN {
        assert!(socket(kind).is_ok(), "{kind:?}");
    }
    assert!(sandbox.events().is_empty());
}

/// Its datagrams to a destination pass the hook of sendto(), but not those of a connected socket.
#[test]
fn udp_lite_is_no_udp() {
    let mut sandbox = Sandbox::new();
    let socket = sandbox.in_app(|| socket(UNSEEN[6])).unwrap();
    sandbox.events();
    let to = SocketAddr::from(([127, 0, 0, 1], 443));
    sandbox.policy.block_quic = true;
    sandbox.apply();
    sandbox.in_app(|| {
        socket.send_to(b"1", &to.into()).unwrap();
        socket.connect(&to.into()).unwrap();
    });
    assert!(sandbox.events().is_empty(), "it was told when it was made");
}

fn assert_told_where_it_is_made(kind: Kind) {
    let mut sandbox = Sandbox::new();
    let (made, event) = make(&mut sandbox, kind);
    assert!(made.is_ok(), "{kind:?}: {made:?}");
    let event = event.unwrap_or_else(|| panic!("{kind:?} was not told"));
    assert_told(&event, kind);
    assert_eq!((event.verdict, event.error), (VERDICT_PASS, 0), "{kind:?}");
    assert_eq!(event.record.origin.cgroup_id, sandbox.app_cgroup().id());
}

fn assert_refused_where_the_policy_is_strict(kind: Kind) {
    let (made, event) = make(&mut strict(), kind);
    assert_eq!(made.err(), Some(libc::EACCES), "{kind:?}");
    let event = event.unwrap_or_else(|| panic!("{kind:?} was not told"));
    assert_told(&event, kind);
    assert_eq!((event.verdict, event.error), (VERDICT_REFUSE, libc::EACCES), "{kind:?}");
}

fn strict() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.policy.strict = true;
    sandbox.apply();
    sandbox
}

/// What an application gets, and the only event of it, if there is one.
fn make(sandbox: &mut Sandbox, kind: Kind) -> (Result<Socket, i32>, Option<Event>) {
    sandbox.events();
    let made = sandbox.in_app(|| socket(kind));
    let events = sandbox.events();
    assert!(events.len() < 2, "{kind:?}: {events:#?}");
    (made, events.first().copied())
}

fn socket((family, r#type, protocol): Kind) -> Result<Socket, i32> {
    let protocol = Some(Protocol::from(protocol));
    Socket::new(Domain::from(family), Type::from(r#type), protocol).map_err(|error| error.raw_os_error().unwrap())
}

fn assert_told(event: &Event, (family, r#type, protocol): Kind) {
    assert_eq!((event.kind, event.reason), (EVENT_SOCKET, REASON_SOCKET));
    let told = (event.family.into(), event.sock_type.into(), event.protocol.cast_signed());
    assert_eq!(told, (family, r#type, protocol), "{event:#?}");
    let origin = &event.record.origin;
    assert_eq!((event.pid, event.uid), (std::process::id(), 0));
    assert_eq!((origin.pid, origin.uid), (std::process::id(), 0));
    assert!(origin.start_time > 0 && !origin.comm().is_empty(), "{origin:?}");
    assert_eq!((event.remote, event.record.depth, event.handle), (Default::default(), 0, 0));
}

/// The name from before there was `AF_PACKET`.
const SOCK_PACKET: i32 = 10;
/// Not in libc.
const SOCK_DCCP: i32 = 6;
const IPPROTO_L2TP: i32 = 115;
const IPPROTO_SMC: i32 = 256;
