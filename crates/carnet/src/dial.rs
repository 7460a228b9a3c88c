use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    Error, Flow, Redirect,
    sys::{self, AsSocket},
};

/// Connects to where the accepted connection was going, with its record set.
///
/// The new socket is a plain TCP one of the destination's family (IPv4 for an IPv4-mapped destination), bound to
/// no address: the service's own is its source. It belongs to this flow; never serve another one with it (see the crate's
/// documentation).
///
/// # Errors
///
/// Those of [`Redirect::flow`] and [`Records::apply_to`](crate::Records::apply_to). Where the destination cannot be
/// reached, [`Io`](crate::ErrorKind::Io); [`Error::os_error`] is the number to pass on to the client.
pub fn dial(accepted: &impl AsSocket) -> Result<TcpStream, Error> {
    let (socket, flow) = prepare(&Redirect::of(accepted))?;
    connect(&socket, flow.destination(), None)?;
    Ok(socket.into())
}

/// As [`dial`], but gives up after `timeout`: [`Error::os_error`] is `ETIMEDOUT` then.
///
/// # Errors
///
/// As [`dial`].
pub fn dial_timeout(accepted: &impl AsSocket, timeout: Duration) -> Result<TcpStream, Error> {
    let (socket, flow) = prepare(&Redirect::of(accepted))?;
    connect(&socket, flow.destination(), Some(timeout))?;
    Ok(socket.into())
}

/// A socket that has the record and is ready to connect.
pub(crate) fn prepare(redirect: &Redirect<'_>) -> Result<(Socket, Flow), Error> {
    let flow = redirect.flow()?;
    let domain = Domain::for_address(flow.destination());
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(Error::socket)?;
    // Read as late as can be: the time for which the engine accepts it begins now.
    redirect.records()?.apply_to(&socket)?;
    Ok((socket, flow))
}

fn connect(socket: &Socket, destination: SocketAddr, timeout: Option<Duration>) -> Result<(), Error> {
    let address = SockAddr::from(destination);
    let result = match timeout {
        Some(timeout) => socket.connect_timeout(&address, timeout).map_err(numbered),
        None => connect_without_limit(socket, &address),
    };
    result.map_err(|source| Error::connect(destination, source))
}

/// A signal may interrupt a blocking `connect()`; Linux then goes on in the background, and a second call waits for it.
fn connect_without_limit(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    loop {
        match socket.connect(address) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => return result,
        }
    }
}

/// The timeout is told by a poll that ended, not by an error of the system's: give it the number a proxy passes on.
fn numbered(error: io::Error) -> io::Error {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::TimedOut, None) => io::Error::from_raw_os_error(sys::TIMED_OUT),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener, thread};

    use super::*;
    use crate::ErrorKind;

    const LIMITS: [Option<Duration>; 2] = [None, Some(Duration::from_secs(10))];

    #[test]
    fn a_refusal_keeps_its_number() {
        // Bound and not listening: the port refuses, and nobody else can take it meanwhile.
        let refusing = tcp();
        refusing.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let destination = refusing.local_addr().unwrap().as_socket().unwrap();

        for limit in LIMITS {
            let error = connect(&tcp(), destination, limit).unwrap_err();
            assert_eq!((error.kind(), error.io_error().kind()), (ErrorKind::Io, io::ErrorKind::ConnectionRefused));
            assert!(error.os_error().is_some());
        }
    }

    #[test]
    fn a_connected_socket_blocks() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for limit in LIMITS {
            let socket = tcp();
            connect(&socket, listener.local_addr().unwrap(), limit).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();

            let reader = thread::spawn(|| TcpStream::from(socket).peek(&mut [0]));
            // Time to read before there is anything: one that does not block fails then.
            thread::sleep(Duration::from_millis(50));
            accepted.write_all(b"x").unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 1);
        }
    }

    #[test]
    fn a_timeout_has_a_number() {
        assert_eq!(numbered(io::ErrorKind::TimedOut.into()).raw_os_error(), Some(sys::TIMED_OUT));
        assert_eq!(numbered(io::ErrorKind::WouldBlock.into()).raw_os_error(), None);
    }

    /// Linux: elsewhere a full backlog refuses.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_destination_that_does_not_answer_is_a_timeout() {
        let listener = tcp();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let destination = listener.local_addr().unwrap().as_socket().unwrap();

        let waiting: Vec<_> = (0..8).map(|_| tcp()).collect();
        let error = waiting
            .iter()
            .find_map(|socket| connect(socket, destination, Some(Duration::from_millis(100))).err())
            .expect("a backlog of 0 is full after 8 connections");
        assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(sys::TIMED_OUT)));
    }

    fn tcp() -> Socket {
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap()
    }
}
