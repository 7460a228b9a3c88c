//! `carnet::datagram` on sockets of each family.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use carnet::{
    ErrorKind, Records,
    datagram::{self, Listener, Redirected},
};
use socket2::{Domain, Socket, Type};

use crate::wine;

/// Where the system has the options, a datagram that nobody redirected says nothing; Wine has none, and a service hears
/// that.
#[test]
fn a_listener_asks_for_records_and_contexts() {
    for (socket, name) in sockets() {
        match Listener::of(&socket) {
            Ok(listener) => assert_plain(&socket, listener),
            Err(error) => {
                assert!(wine(), "{name}: {error:#}");
                assert_eq!((error.kind(), error.os_error()), (ErrorKind::NoEngine, Some(10042)), "{name}: {error:#}");
                assert!(
                    error.to_string().starts_with("setsockopt IP_WFP_REDIRECT_RECORDS and IP_WFP_REDIRECT_CONTEXT: ")
                );
            }
        }
    }
}

/// Wine passes over control data that it does not know. Windows refuses records that nobody gave, and sends nothing.
#[test]
fn a_first_datagram_takes_its_record_along_or_stays() {
    for (service, name) in sockets() {
        service.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let destination = service.local_addr().unwrap();
        let client = UdpSocket::bind((destination.ip(), 0)).unwrap();
        let records = Records::from_bytes(&[7; 440]).unwrap();

        let mut buffer = [0; 16];
        match datagram::send(&client, b"first", destination, &records) {
            Ok(sent) => {
                assert_eq!(sent, 5, "{name}");
                assert_eq!(service.recv_from(&mut buffer).unwrap(), (5, client.local_addr().unwrap()), "{name}");
            }
            Err(error) => {
                assert!(!wine() && error.os_error().is_some(), "{name}: {error:#}");
                service.set_nonblocking(true).unwrap();
                assert!(service.recv_from(&mut buffer).is_err());
            }
        }
    }
}

#[test]
fn a_tcp_socket_has_no_datagrams() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let error = Listener::of(&socket).unwrap_err();
    assert!(error.os_error().is_some(), "{error:#}");
}

fn assert_plain(socket: &UdpSocket, mut listener: Listener<'_>) {
    let client = UdpSocket::bind((socket.local_addr().unwrap().ip(), 0)).unwrap();
    client.send_to(b"plain", socket.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    let received = listener.receive(&mut buffer).unwrap();
    assert_eq!(&buffer[..received.length], b"plain");
    assert_eq!((received.source, &received.redirected), (client.local_addr().unwrap(), &Redirected::default()));
    assert!(!received.is_cut && !received.is_control_cut);
}

/// IPv4, IPv6 alone, and one socket for both.
fn sockets() -> [(UdpSocket, &'static str); 3] {
    let dual = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
    dual.set_only_v6(false).unwrap();
    dual.bind(&"[::1]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    [
        (UdpSocket::bind("127.0.0.1:0").unwrap(), "IPv4"),
        (UdpSocket::bind("[::1]:0").unwrap(), "IPv6"),
        (dual.into(), "both"),
    ]
}
