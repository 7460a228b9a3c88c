//! Listening where a service listens, or did.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use carnet::{ErrorKind, Redirect};
use carnet_abi::{EVENT_STRANGER, VERDICT_REDIRECT};
use carnet_e2e::raw::{self, NOBODY};
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen, stream, until};
use carnet_e2e::{Sandbox, set_records};
use carnet_policy::Service as Kind;
use libc::{EACCES, EADDRINUSE};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Stage, as_user};

/// By whatever address that leads there, and with whatever option, wherever the service itself listens.
#[test]
fn a_user_cannot_bind_the_port_while_the_service_listens() {
    let mut sandbox = Sandbox::new();
    const V4: [&str; 4] = ["127.0.0.1", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]"];
    const V6: [&str; 2] = ["[::1]", "[::]"];
    for (listens, addresses) in [
        ("127.0.0.1:0", &V4[..]),
        ("0.0.0.0:0", &V4),
        ("[::1]:0", &V6),
        ("[::]:0", &["127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[::1]", "[::]"]),
    ] {
        let service = sandbox.service_at(Kind::Aware, &[listens]);
        let port = service.listeners[0].local_addr().unwrap().port();
        for address in addresses {
            let at: SocketAddr = format!("{address}:{port}").parse().unwrap();
            for (reuse_address, reuse_port) in [(false, false), (true, false), (false, true), (true, true)] {
                let squat = || {
                    let socket = dual_stack(at);
                    socket.set_reuse_address(reuse_address)?;
                    socket.set_reuse_port(reuse_port)?;
                    socket.bind(&at.into())?;
                    socket.listen(1)
                };
                let refused = as_user(&sandbox, squat).expect_err(address).raw_os_error();
                assert_eq!(refused, Some(EADDRINUSE), "{at} {reuse_address} {reuse_port}, service {listens}");
            }
        }
    }
}

/// The port at another address of the host's is anybody's, and nothing of the service's.
#[test]
fn the_same_port_at_another_address_gets_nothing() {
    let mut stage = Stage::new();
    let port = stage.service.listeners[0].local_addr().unwrap().port();
    let squatter = as_user(&stage.sandbox, || listen(&format!("127.0.0.2:{port}")));
    let (client, decision) = stage.sandbox.decided(|| connect(stage.destination));
    assert_eq!(decision.verdict, VERDICT_REDIRECT);
    client.unwrap();
    stage.assert_redirected();
    assert!(is_idle(&squatter));
}

/// A process keeps a duplicate of the listener of a service that has been taken off the policy.
#[test]
fn a_listener_kept_after_the_service_has_gone_gets_nothing() {
    let mut stage = Stage::new();
    let kept: Vec<TcpListener> = stage.service.listeners.iter().map(|own| own.try_clone().unwrap()).collect();
    stage.service.listeners.clear();
    stage.sandbox.policy.providers.clear();
    stage.sandbox.apply();
    let mut client = stage.sandbox.in_app(|| connect(stage.destination)).unwrap();
    assert_joined(&mut client, &mut accept(&stage.server));
    assert!(kept.iter().all(is_idle));
    // Dialled it is a port like any other, and there is no record.
    let _client = stage.sandbox.in_app(|| connect(kept[0].local_addr().unwrap())).unwrap();
    let error = Redirect::of(&accept(&kept[0])).records().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRedirected);
}

/// It holds as long as the provider is in force, that a listener is the service's which made it. So who keeps one gets
/// connections and may read them; to carry one on as the flow it is takes a process of the owner's.
#[test]
fn a_listener_kept_by_a_process_that_has_left_the_service() {
    let stage = Stage::new();
    let kept = stage.service.listeners[0].try_clone().unwrap();
    let Stage { sandbox, service, destination, .. } = stage;
    drop(service);
    let _client = sandbox.in_app(|| connect(destination)).unwrap();
    let accepted = accept(&kept);
    let records = Redirect::of(&accepted).records().unwrap();
    let socket = sandbox.in_service(0, || stream(destination));
    assert_eq!(set_records(&socket, records.as_bytes()), Err(EACCES));
}

/// One uid may share a port, and one member of the group may be bound to the device `lo`, where the look at the listener
/// does not find it: the handshake does. Where that member's cgroup has Carnet's programs, it is cut off.
#[test]
fn one_who_shares_the_port_on_the_loopback_device_is_cut_off_where_it_is_governed() {
    let mut sandbox = Sandbox::new();
    drop(sandbox.service(Kind::Aware));
    let own = sandbox.in_service(0, || share(([127, 0, 0, 1], 0).into(), None));
    let at = own.local_addr().unwrap();
    let stranger = sandbox.in_app(|| share(at, Some(b"lo")));
    sandbox.policy.providers[0].listeners = vec![at];
    sandbox.apply();
    let client = sandbox.in_app(|| connect(([127, 0, 0, 1], 9).into())).expect("the look finds the service's own");
    sandbox.events_until(|event| event.kind == EVENT_STRANGER);
    let accepted = accept(&stranger);
    assert_eq!(Redirect::of(&accepted).records().unwrap_err().kind(), ErrorKind::NoEngine);
    until("its end", || (&client).write_all(b"1").err());
    assert!(is_idle(&own));
}

/// The same from a cgroup that has none of Carnet's programs. That takes a process of the service's user.
#[test]
fn one_who_shares_the_port_on_the_loopback_device_gets_connections_where_it_is_not_governed() {
    let mut sandbox = Sandbox::new();
    drop(sandbox.service(Kind::Aware));
    let own = sandbox.in_service(0, || share(([127, 0, 0, 1], 0).into(), None));
    let at = own.local_addr().unwrap();
    let refused = raw::as_nobody(|| try_share(at, Some(b"lo"))).expect_err("another user");
    assert_eq!(refused.raw_os_error(), Some(EADDRINUSE), "as the uid {NOBODY}");
    let stranger = share(at, Some(b"lo"));
    sandbox.policy.providers[0].listeners = vec![at];
    sandbox.apply();
    let mut client = sandbox.in_app(|| connect(([127, 0, 0, 1], 9).into())).unwrap();
    assert_joined(&mut client, &mut accept(&stranger));
    assert!(is_idle(&own));
}

fn dual_stack(at: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).unwrap();
    if at.is_ipv6() {
        socket.set_only_v6(false).unwrap();
    }
    socket
}

fn share(at: SocketAddr, device: Option<&[u8]>) -> TcpListener {
    try_share(at, device).expect("a member of the group")
}

fn try_share(at: SocketAddr, device: Option<&[u8]>) -> io::Result<TcpListener> {
    let socket = dual_stack(at);
    socket.set_reuse_port(true)?;
    socket.bind_device(device)?;
    socket.bind(&at.into())?;
    socket.listen(16)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
