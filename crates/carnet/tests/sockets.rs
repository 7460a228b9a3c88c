//! Real sockets where no engine is: every question and every SET says so, and sockets that are not TCP are told apart.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    net::{TcpListener, TcpStream, UdpSocket},
    os::{fd::AsFd, unix::net::UnixStream},
    time::Duration,
};

use carnet::{Error, ErrorKind, Records, Redirect};
use socket2::{Domain, Protocol, Socket, Type};

#[test]
fn accepted_tcp_sockets_have_no_engine() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (_client, accepted) = pair(address);
        assert_kinds(&accepted, ErrorKind::NoEngine);
    }
}

#[test]
fn new_and_listening_tcp_sockets_have_no_engine() {
    for domain in [Domain::IPV4, Domain::IPV6] {
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        assert_kinds(&socket, ErrorKind::NoEngine);
        socket.listen(1).unwrap();
        assert_kinds(&socket, ErrorKind::NoEngine);
    }
}

#[test]
fn mptcp_is_tcp() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("a kernel with MPTCP");
    assert_kinds(&socket, ErrorKind::NoEngine);
}

#[test]
fn datagram_and_local_sockets_are_not_tcp() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        assert_kinds(&UdpSocket::bind(address).unwrap(), ErrorKind::NotTcp);
    }
    let (local, _other) = UnixStream::pair().unwrap();
    assert_kinds(&local, ErrorKind::NotTcp);
}

#[test]
fn a_pipe_is_the_systems_error() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let error = Redirect::of(&reader).flow().unwrap_err();
    assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(libc::ENOTSOCK)));
}

/// Netfilter may be there; then it answers with the socket's own address, as documented.
#[test]
fn nothing_has_an_original_destination() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (_client, accepted) = pair(address);
        match Redirect::of(&accepted).original_destination() {
            Ok(destination) => assert_eq!(destination, accepted.local_addr().unwrap()),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::NoEngine | ErrorKind::NotRedirected) && error.os_error().is_some(),
                "{error:#}"
            ),
        }
    }
}

#[test]
fn the_message_says_what_to_do() {
    let (_client, accepted) = pair("127.0.0.1:0");
    let error = Redirect::of(&accepted).flow().unwrap_err();
    assert_eq!(
        error.to_string(),
        "getsockopt CARNET_FLOW: no engine answers on this socket; \
         start the service in a cgroup which the engine covers"
    );
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use ::tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[::tokio::test(flavor = "current_thread")]
    async fn its_sockets_have_no_engine() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = ::tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (accepted, _)) = (client.unwrap(), accepted.unwrap());

        assert_kinds(&accepted, ErrorKind::NoEngine);
        let dialled = sendable(carnet::tokio::dial(&accepted)).await;
        assert_eq!(dialled.unwrap_err().kind(), ErrorKind::NoEngine);
    }

    /// So that it can be spawned on a runtime of many threads.
    fn sendable<F: Future + Send>(future: F) -> F {
        future
    }
}

/// Every call that reaches the socket fails, with this kind and with the system's number.
fn assert_kinds(socket: &impl AsFd, expected: ErrorKind) {
    let redirect = Redirect::of(socket);
    let size = 8_u16;
    let records = [&1_u16.to_ne_bytes()[..], &size.to_ne_bytes(), &[0; 4]].concat();
    let records = Records::from_bytes(&records).unwrap();

    let errors: [(&str, Option<Error>); 7] = [
        ("flow", redirect.flow().err()),
        ("records", redirect.records().err()),
        ("context", redirect.context().err()),
        ("state", redirect.state().err()),
        ("dial", redirect.dial().err()),
        ("dial_timeout", redirect.dial_timeout(Duration::from_secs(1)).err()),
        ("apply_to", records.apply_to(socket).err()),
    ];
    for (call, error) in errors {
        let error = error.unwrap_or_else(|| panic!("{call} succeeds without an engine"));
        assert_eq!(error.kind(), expected, "{call}: {error:#}");
        assert!(error.os_error().is_some(), "{call}: {error:#}");
    }
}

fn pair(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}
