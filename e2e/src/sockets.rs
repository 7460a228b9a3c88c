//! Sockets as tests need them: every wait has a deadline, and every step can be taken by itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Longest wait for anything that should happen at once, on a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A non-blocking listener. IPv6 ones take IPv6 only, unless bound to the wildcard address.
pub fn listen(at: &str) -> TcpListener {
    let at: SocketAddr = at.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    if at.is_ipv6() {
        socket.set_only_v6(!at.ip().is_unspecified()).expect("IPV6_V6ONLY");
    }
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&at.into()).expect("bind");
    socket.listen(4096).expect("listen");
    socket.set_nonblocking(true).expect("non-blocking");
    socket.into()
}

/// Waits for a connection.
pub fn accept(listener: &TcpListener) -> TcpStream {
    let stream = until("a connection", || match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("accept: {error}"),
    });
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Whether nobody connects, judged at once: the handshake of a loopback connection is over when connect() returns.
pub fn is_idle(listener: &TcpListener) -> bool {
    matches!(listener.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A blocking stream socket of this address's family.
pub fn stream(to: SocketAddr) -> Socket {
    Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("a socket")
}

/// connect() within [`PATIENCE`]; the OS error where it fails.
pub fn connect(to: SocketAddr) -> Result<TcpStream, i32> {
    connect_on(stream(to), &to.into())
}

/// The same on a socket that was prepared.
pub fn connect_on(socket: Socket, to: &SockAddr) -> Result<TcpStream, i32> {
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    match socket.connect(to) {
        Ok(()) => Ok(socket.into()),
        Err(error) => Err(error.raw_os_error().unwrap_or(-1)),
    }
}

/// IPv4 where it is an IPv4-mapped address.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// IPv4 in its IPv6 form.
pub fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Sends a few bytes through, one way and back, so that both ends are known to be connected to each other.
pub fn assert_joined(a: &mut TcpStream, b: &mut TcpStream) {
    let mut buffer = [0; 5];
    a.write_all(b"there").expect("write");
    b.read_exact(&mut buffer).expect("read");
    assert_eq!(&buffer, b"there");
    b.write_all(b"back.").expect("write");
    a.read_exact(&mut buffer).expect("read");
    assert_eq!(&buffer, b"back.");
}

/// Tries again until there is something. Panics after [`PATIENCE`].
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
