//! Other calls that send.

use carnet_e2e::Sandbox;
use carnet_e2e::raw::{Ring, of_no_family, send_to_each};
use carnet_e2e::sockets::mapped;
use socket2::SockAddr;

use super::{destinations, received, receiver, told, udp};

#[test]
fn many_datagrams_in_one_call() {
    let mut sandbox = Sandbox::new();
    let receivers = [(); 3].map(|()| receiver("127.0.0.1:0"));
    for form in [|address| address, mapped] {
        let addresses = receivers.each_ref().map(|(_, to)| form(*to));
        let twice: Vec<SockAddr> = [addresses, addresses].concat().into_iter().map(SockAddr::from).collect();
        let (sent, events) = told(&mut sandbox, || send_to_each(&udp(addresses[0]), b"1", &twice));
        assert_eq!(sent, Ok(6));
        assert_eq!(destinations(&events), receivers.each_ref().map(|(_, to)| *to));
        for (receiver, _) in receivers.iter().chain(&receivers) {
            assert_eq!(received(receiver), b"1");
        }
    }
}

#[test]
fn by_io_uring() {
    let mut sandbox = Sandbox::new();
    let [one, other] = ["127.0.0.1:0", "127.0.0.1:0"].map(receiver);
    for make in [Ring::inline, Ring::workers, Ring::poller] {
        let (_socket, events) = told(&mut sandbox, || {
            let mut ring = make();
            let socket = ring.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
            for (_, to) in [&one, &other, &one] {
                assert_eq!(ring.send_to(&socket, b"12", &(*to).into()), Ok(2));
            }
            let connected = ring.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
            ring.connect(&connected, &other.1.into()).unwrap();
            assert_eq!(ring.send_to(&connected, b"12", &other.1.into()), Ok(2));
            [socket, connected]
        });
        assert_eq!(destinations(&events), [one.1, other.1, other.1]);
        for event in &events {
            let origin = &event.record.origin;
            assert_eq!((origin.pid, origin.cgroup_id), (std::process::id(), sandbox.app_cgroup().id()));
        }
        for receiver in [&one.0, &one.0, &other.0, &other.0] {
            assert_eq!(received(receiver), b"12");
        }
    }
}

/// For sendto() on an IPv4 socket AF_UNSPEC is AF_INET, while connect() with it takes a connection back.
#[test]
fn an_address_of_no_family() {
    let mut sandbox = Sandbox::new();
    let (at, to) = receiver("127.0.0.1:0");
    let nameless = of_no_family(to);
    let (sent, events) = told(&mut sandbox, || udp(to).send_to(b"1", &nameless));
    assert_eq!(sent.unwrap(), 1);
    assert_eq!(destinations(&events), [to]);
    assert_eq!(received(&at), b"1");

    sandbox.policy.block_quic = true;
    sandbox.apply();
    let quic = ([127, 0, 0, 1], 443).into();
    let (sent, events) = told(&mut sandbox, || udp(to).send_to(b"1", &of_no_family(quic)));
    assert_eq!(sent.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    assert_eq!(destinations(&events), [quic]);
}
