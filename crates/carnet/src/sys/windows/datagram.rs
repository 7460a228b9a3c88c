//! Datagrams with control data.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::windows::io::BorrowedSocket,
    ptr,
};

use socket2::{SockAddr, SockRef};
use windows_sys::Win32::{
    Networking::WinSock::{
        AF_INET6, IP_WFP_REDIRECT_CONTEXT, IP_WFP_REDIRECT_RECORDS, IPPROTO_IP, IPPROTO_IPV6, LPFN_WSARECVMSG,
        LPWSAOVERLAPPED_COMPLETION_ROUTINE, MSG_CTRUNC, MSG_TRUNC, SIO_GET_EXTENSION_FUNCTION_POINTER, SOCKET,
        SOCKET_ERROR, WSABUF, WSAEMSGSIZE, WSAID_WSARECVMSG, WSAIoctl, WSAMSG, WSASendMsg, setsockopt,
    },
    System::IO::OVERLAPPED,
};

use super::{number, protocol::protocol};

pub(crate) const OPT_IN: &str = "setsockopt IP_WFP_REDIRECT_RECORDS and IP_WFP_REDIRECT_CONTEXT";
pub(crate) const RECEIVE: &str = "WSARecvMsg";
pub(crate) const SEND: &str = "WSASendMsg";

/// Asks for records and contexts, of each family that comes to the socket.
pub(crate) fn opt_in(socket: BorrowedSocket<'_>) -> io::Result<()> {
    for &level in levels(socket)? {
        // The numbers are the same at both levels.
        set(socket, level, IP_WFP_REDIRECT_RECORDS)?;
        set(socket, level, IP_WFP_REDIRECT_CONTEXT)?;
    }
    Ok(())
}

/// The levels of the families whose datagrams come to the socket.
fn levels(socket: BorrowedSocket<'_>) -> io::Result<&'static [i32]> {
    let is_v6 = protocol(socket)?.iAddressFamily == i32::from(AF_INET6);
    Ok(match is_v6 {
        true if SockRef::from(&socket).only_v6()? => &[IPPROTO_IPV6],
        true => &[IPPROTO_IPV6, IPPROTO_IP],
        false => &[IPPROTO_IP],
    })
}

/// Level and type of the message which carries records to this destination.
pub(crate) fn records_message(destination: SocketAddr) -> (i32, i32) {
    let level = match destination.ip().to_canonical() {
        IpAddr::V4(_) => IPPROTO_IP,
        IpAddr::V6(_) => IPPROTO_IPV6,
    };
    (level, IP_WFP_REDIRECT_RECORDS)
}

/// The function that receives control data, which each provider of sockets has its own of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver(
    unsafe extern "system" fn(
        SOCKET,
        *mut WSAMSG,
        *mut u32,
        *mut OVERLAPPED,
        LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    ) -> i32,
);

/// What has come.
pub(crate) struct Arrived {
    pub(crate) length: usize,
    pub(crate) source: SocketAddr,
    /// How many bytes of control data.
    pub(crate) control: usize,
    pub(crate) is_cut: bool,
    pub(crate) is_control_cut: bool,
}

impl Receiver {
    pub(crate) fn of(socket: BorrowedSocket<'_>) -> io::Result<Self> {
        let id = WSAID_WSARECVMSG;
        let mut function: LPFN_WSARECVMSG = None;
        let mut returned = 0;
        // SAFETY: the socket is open, for it is borrowed. The input is a GUID and the output a pointer to a function,
        // each of the size that is said; they outlive the call, which without an OVERLAPPED ends with its operation.
        let result = unsafe {
            WSAIoctl(
                number(socket),
                SIO_GET_EXTENSION_FUNCTION_POINTER,
                (&raw const id).cast(),
                size_of_val(&id) as u32,
                (&raw mut function).cast(),
                size_of::<LPFN_WSARECVMSG>() as u32,
                &mut returned,
                ptr::null_mut(),
                None,
            )
        };
        match function {
            Some(function) if result != SOCKET_ERROR => Ok(Self(function)),
            None if result != SOCKET_ERROR => Err(io::ErrorKind::Unsupported.into()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn receive(
        self,
        socket: BorrowedSocket<'_>,
        buffer: &mut [u8],
        control: &mut [u8],
    ) -> io::Result<Arrived> {
        let mut data = wsabuf(buffer)?;
        let mut message =
            WSAMSG { lpBuffers: &mut data, dwBufferCount: 1, Control: wsabuf(control)?, ..WSAMSG::default() };
        // SAFETY: what `try_init` gives is writable for `length` bytes, and `call` writes an address there, or nothing.
        let ((received, was_cut), source) = unsafe {
            SockAddr::try_init(|storage, length| {
                message.name = storage.cast();
                message.namelen = *length;
                let result = self.call(socket, &mut message);
                *length = message.namelen;
                result
            })?
        };
        let control_length = at_most(message.Control.len, control.len());
        let is_control_cut = message.dwFlags & MSG_CTRUNC != 0;
        let is_cut = message.dwFlags & MSG_TRUNC != 0 || was_cut && !is_control_cut;
        let length = if is_cut { buffer.len() } else { at_most(received, buffer.len()) };
        let source =
            source.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an IP address"))?;
        // Of a datagram that has lost nothing but control data, not every system tells the length.
        Ok(Arrived {
            length,
            source,
            control: control_length,
            is_cut: is_cut || was_cut && length == 0,
            is_control_cut,
        })
    }

    /// Returns how many bytes came, and whether something was cut off: that is an error, although all the rest is
    /// there.
    ///
    /// # Safety
    ///
    /// What `message` points to is writable for the length that is said beside it.
    unsafe fn call(self, socket: BorrowedSocket<'_>, message: &mut WSAMSG) -> io::Result<(u32, bool)> {
        let mut received = 0;
        // SAFETY: the function is the socket's provider's, and the socket is open, for it is borrowed. What `message`
        // points to is writable, as the caller promises, and not used later: without an OVERLAPPED the call ends with
        // its operation.
        let result = unsafe { self.0(number(socket), message, &mut received, ptr::null_mut(), None) };
        if result != SOCKET_ERROR {
            return Ok((received, false));
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(WSAEMSGSIZE) => Ok((received, true)),
            error => Err(error),
        }
    }
}

/// Sends a datagram with control data.
pub(crate) fn send(
    socket: BorrowedSocket<'_>,
    datagram: &[u8],
    destination: SocketAddr,
    control: &[u8],
) -> io::Result<usize> {
    let destination = SockAddr::from(destination);
    let mut data = wsabuf_to_read(datagram)?;
    let message = WSAMSG {
        name: destination.as_ptr().cast_mut().cast(),
        namelen: destination.len(),
        lpBuffers: &mut data,
        dwBufferCount: 1,
        Control: wsabuf_to_read(control)?,
        dwFlags: 0,
    };
    let mut sent = 0;
    // SAFETY: the socket is open, for it is borrowed. All that `message` points to is readable for its length, and is
    // only read; it outlives the call, which without an OVERLAPPED ends with its operation.
    match unsafe { WSASendMsg(number(socket), &message, 0, &mut sent, ptr::null_mut(), None) } {
        0 => usize::try_from(sent).map_err(io::Error::other),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(socket: BorrowedSocket<'_>, level: i32, option: i32) -> io::Result<()> {
    let on = 1_u32.to_ne_bytes();
    // SAFETY: the socket is open, for it is borrowed; `on` is readable for its 4 bytes.
    match unsafe { setsockopt(number(socket), level, option, on.as_ptr(), 4) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn at_most(length: u32, room: usize) -> usize {
    usize::try_from(length).unwrap_or(room).min(room)
}

fn wsabuf(buffer: &mut [u8]) -> io::Result<WSABUF> {
    Ok(WSABUF { len: u32::try_from(buffer.len()).map_err(io::Error::other)?, buf: buffer.as_mut_ptr() })
}

/// For calls that only read, whatever the type says.
fn wsabuf_to_read(buffer: &[u8]) -> io::Result<WSABUF> {
    Ok(WSABUF { len: u32::try_from(buffer.len()).map_err(io::Error::other)?, buf: buffer.as_ptr().cast_mut() })
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::windows::io::AsSocket, time::Duration};

    use socket2::{Domain, Socket, Type};
    use windows_sys::Win32::Networking::WinSock::{IP_PKTINFO, IPV6_PKTINFO};

    use super::*;
    use crate::datagram::control::{self, Message};

    /// Through both functions, in both families, with and without bytes.
    #[test]
    fn a_datagram_comes_as_it_was_sent() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (client, service) = pair(address);
            for sent in [&b"hello"[..], b"", &[7; 1400]] {
                let destination = service.local_addr().unwrap();
                assert_eq!(send(client.as_socket(), sent, destination, &[]).unwrap(), sent.len());

                let mut buffer = [0; 2048];
                let arrived = receive(&service, &mut buffer, &mut [0; 256]).unwrap();
                assert_eq!(&buffer[..arrived.length], sent);
                assert_eq!(arrived.source, client.local_addr().unwrap());
                assert_eq!((arrived.control, arrived.is_cut, arrived.is_control_cut), (0, false, false));
            }
        }
    }

    #[test]
    fn a_datagram_that_is_longer_than_the_buffer_is_cut_and_says_so() {
        let (client, service) = pair("127.0.0.1:0");
        client.send_to(&[7; 100], service.local_addr().unwrap()).unwrap();
        client.send_to(b"next", service.local_addr().unwrap()).unwrap();

        let mut buffer = [0; 10];
        let arrived = receive(&service, &mut buffer, &mut [0; 256]).unwrap();
        assert_eq!((arrived.length, buffer, arrived.is_cut), (10, [7; 10], true));
        assert_eq!(arrived.source, client.local_addr().unwrap());
        let arrived = receive(&service, &mut buffer, &mut [0; 256]).unwrap();
        assert_eq!((&buffer[..arrived.length], arrived.is_cut), (&b"next"[..], false));
    }

    /// The address at which a datagram came is control data which every system has.
    #[test]
    fn control_data_of_the_systems_is_read() {
        for (address, level, option) in
            [("127.0.0.1:0", IPPROTO_IP, IP_PKTINFO), ("[::1]:0", IPPROTO_IPV6, IPV6_PKTINFO)]
        {
            let (client, service) = pair(address);
            set(service.as_socket(), level, option).unwrap();
            client.send_to(b"x", service.local_addr().unwrap()).unwrap();

            let mut control = [0; 256];
            let arrived = receive(&service, &mut [0; 10], &mut control).unwrap();
            let messages: Vec<_> = control::messages(&control[..arrived.control]).collect();
            assert_eq!(messages.len(), 1, "{messages:?}");
            assert_eq!((messages[0].level, messages[0].kind), (level, option));
            assert!(matches!(messages[0].data.len(), 8 | 20), "{messages:?}");
            assert!(!arrived.is_control_cut);
        }
    }

    #[test]
    fn control_data_that_is_cut_off_is_told() {
        let (client, service) = pair("127.0.0.1:0");
        set(service.as_socket(), IPPROTO_IP, IP_PKTINFO).unwrap();
        client.send_to(b"bytes", service.local_addr().unwrap()).unwrap();

        let mut control = [0; 20];
        let mut buffer = [0; 10];
        let arrived = receive(&service, &mut buffer, &mut control).unwrap();
        assert!(arrived.is_control_cut);
        // Wine does not say how long the datagram is then.
        assert!(arrived.is_cut && arrived.length == 0 || &buffer[..arrived.length] == b"bytes");
        assert_eq!(control::messages(&control[..arrived.control]).count(), 0);
    }

    #[test]
    fn records_go_with_a_datagram() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (client, service) = pair(address);
            let destination = service.local_addr().unwrap();
            let (level, kind) = records_message(destination);
            let control = control::encode(&[Message { level, kind, data: &[7; 440] }]);
            // Wine passes over control data that it does not know; Windows refuses records that nobody gave.
            match send(client.as_socket(), b"first", destination, &control) {
                Ok(sent) => {
                    assert_eq!(sent, 5);
                    assert_eq!(receive(&service, &mut [0; 10], &mut []).unwrap().length, 5);
                }
                Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
            }
        }
    }

    #[test]
    fn a_socket_that_does_not_wait_says_that_nothing_is_there() {
        let (_client, service) = pair("127.0.0.1:0");
        service.set_nonblocking(true).unwrap();
        let Err(error) = receive(&service, &mut [0; 10], &mut [0; 256]) else { panic!("a datagram that nobody sent") };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_socket_for_both_families_asks_at_both_levels() {
        let v6 = || Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        let (only, both) = (v6(), v6());
        only.set_only_v6(true).unwrap();
        both.set_only_v6(false).unwrap();
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();

        assert_eq!(levels(v4.as_socket()).unwrap(), [IPPROTO_IP]);
        assert_eq!(levels(only.as_socket()).unwrap(), [IPPROTO_IPV6]);
        assert_eq!(levels(both.as_socket()).unwrap(), [IPPROTO_IPV6, IPPROTO_IP]);
    }

    #[test]
    fn the_level_is_of_the_family_that_carries_it() {
        for (destination, level) in
            [("192.0.2.7:53", IPPROTO_IP), ("[::ffff:192.0.2.7]:53", IPPROTO_IP), ("[2001:db8::1]:53", IPPROTO_IPV6)]
        {
            assert_eq!(records_message(destination.parse().unwrap()), (level, 60));
        }
    }

    fn receive(socket: &UdpSocket, buffer: &mut [u8], control: &mut [u8]) -> io::Result<Arrived> {
        Receiver::of(socket.as_socket()).unwrap().receive(socket.as_socket(), buffer, control)
    }

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        let service = UdpSocket::bind(address).unwrap();
        service.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (UdpSocket::bind(address).unwrap(), service)
    }
}
