//! `Redirect` and `Records` on connections that nobody has redirected.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::windows::io::AsSocket,
    time::Duration,
};

use carnet::{Error, ErrorKind, RECORDS_MAX, Records, Redirect, State};
use socket2::{Domain, Socket, Type};

use crate::wine;

#[test]
fn accepted_tcp_sockets_have_no_record() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (_client, accepted) = pair(address);
        assert_queries(&accepted, if wine() { ErrorKind::NoEngine } else { ErrorKind::NotRedirected });
    }
}

#[test]
fn new_and_listening_tcp_sockets_have_no_record() {
    for domain in [Domain::IPV4, Domain::IPV6] {
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        let expected = if wine() { ErrorKind::NoEngine } else { ErrorKind::NotRedirected };
        assert_queries(&socket, expected);
        let any = if domain == Domain::IPV4 { "127.0.0.1:0" } else { "[::1]:0" };
        socket.bind(&any.parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(1).unwrap();
        assert_queries(&socket, expected);
    }
}

#[test]
fn datagram_sockets_are_not_tcp() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let socket = UdpSocket::bind(address).unwrap();
        let expected = if wine() { ErrorKind::NotTcp } else { ErrorKind::NotRedirected };
        assert_queries(&socket, expected);
    }
}

/// The system has to look at them, so there is its number in the error; Windows itself wants an administrator first.
#[test]
fn records_that_nobody_gave_are_not_set() {
    for length in [1, 16, 1024, RECORDS_MAX] {
        let records = Records::from_bytes(&vec![7; length]).unwrap();
        let error = records.apply_to(&Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).unwrap_err();
        assert!(error.os_error().is_some(), "{error:#}");
        match wine() {
            true => assert_eq!(error.kind(), ErrorKind::NoEngine, "{error:#}"),
            false => assert!(matches!(error.kind(), ErrorKind::Malformed | ErrorKind::NotOwner), "{error:#}"),
        }
    }
}

#[test]
fn the_message_says_what_to_do() {
    if !wine() {
        return;
    }
    let (_client, accepted) = pair("127.0.0.1:0");
    let error = Redirect::of(&accepted).flow().unwrap_err();
    assert_eq!(
        error.to_string(),
        "WSAIoctl SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT: nothing answers on this socket; \
         use Windows 8, Server 2012 or newer, and Microsoft's own provider of sockets"
    );
    assert_eq!(error.os_error(), Some(10045));
    let error = Redirect::of(&accepted).records().unwrap_err();
    assert!(error.to_string().starts_with("WSAIoctl SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS: "), "{error}");
}

/// Only where a policy of the host network service redirects there is one.
#[test]
fn nothing_has_an_original_destination() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (_client, accepted) = pair(address);
        let error = Redirect::of(&accepted).original_destination().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoEngine | ErrorKind::NotRedirected), "{error:#}");
        assert!(
            error.os_error().is_some() && error.to_string().starts_with("getsockopt SO_ORIGINAL_DST: "),
            "{error:#}"
        );
    }
}

/// A question does no harm: the connection carries bytes in both directions as before.
#[test]
fn a_socket_that_was_asked_is_as_it_was() {
    let (client, accepted) = pair("127.0.0.1:0");
    for _ in 0..100 {
        assert!(Redirect::of(&accepted).records().is_err());
        assert!(Redirect::of(&client).flow().is_err());
    }
    for (mut from, mut to) in [(&client, &accepted), (&accepted, &client)] {
        let sent = vec![9; 4096];
        let mut received = vec![0; sent.len()];
        io::Write::write_all(&mut from, &sent).unwrap();
        io::Read::read_exact(&mut to, &mut received).unwrap();
        assert!(received == sent);
    }
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use ::tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[::tokio::test(flavor = "current_thread")]
    async fn its_sockets_are_taken_as_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = ::tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (accepted, _)) = (client.unwrap(), accepted.unwrap());

        let expected = if wine() { ErrorKind::NoEngine } else { ErrorKind::NotRedirected };
        assert_queries(&accepted, expected);
        assert_eq!(sendable(carnet::tokio::dial(&accepted)).await.unwrap_err().kind(), expected);
    }

    /// So that it can be spawned on a runtime of many threads.
    fn sendable<F: Future + Send>(future: F) -> F {
        future
    }
}

/// Every question fails with this kind and the system's number; only that there is no state is none.
fn assert_queries(socket: &impl AsSocket, expected: ErrorKind) {
    let redirect = Redirect::of(socket);
    let errors: [(&str, Option<Error>); 5] = [
        ("flow", redirect.flow().err()),
        ("records", redirect.records().err()),
        ("context", redirect.context().err()),
        ("dial", redirect.dial().err()),
        ("dial_timeout", redirect.dial_timeout(Duration::from_secs(1)).err()),
    ];
    for (call, error) in errors {
        let error = error.unwrap_or_else(|| panic!("{call} succeeds without a redirect"));
        assert_eq!(error.kind(), expected, "{call}: {error:#}");
        assert!(error.os_error().is_some(), "{call}: {error:#}");
    }
    match redirect.state() {
        Ok(state) => assert_eq!((state, expected), (State::NotRedirected, ErrorKind::NotRedirected)),
        Err(error) => assert_eq!(error.kind(), expected, "state: {error:#}"),
    }
}

fn pair(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}
