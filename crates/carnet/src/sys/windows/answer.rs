//! What Carnet's questions become: the system answers for records and context alone. The flow is in the context, and
//! the state follows from the records.
//!
//! `Ioctl` is the call as a closure, so that tests can be the system: none that is at hand redirects connections.

use std::io;

use windows_sys::Win32::{
    Foundation::{ERROR_NOT_FOUND, FWP_E_NOT_FOUND},
    Networking::WinSock::{
        SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, WSAEINVAL, WSAENOTCONN,
    },
};

use crate::{
    CONTEXT_MAX, RECORDS_MAX, State,
    flow::context,
    sys::{
        Item,
        size_protocol::{self, Refusal},
    },
};

/// Reads `item` into `buffer`; the answer's length is at most the buffer's.
pub(super) fn answer(item: Item, buffer: &mut [u8], ioctl: &mut Ioctl<'_>) -> io::Result<usize> {
    match item {
        Item::Records => read(SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, buffer, ioctl),
        Item::Context => own_context(buffer, ioctl),
        Item::Flow => flow(buffer, ioctl),
        Item::State => state(buffer, ioctl),
    }
}

/// A query: its code, and the room for the answer.
pub(super) type Ioctl<'a> = dyn FnMut(u32, &mut [u8]) -> Result<usize, Refusal> + 'a;

/// Never redirected, or its record is lost: the system says the same of both, and of sockets that cannot be redirected.
pub(super) fn is_not_redirected(error: &io::Error) -> bool {
    const NOT_FOUND: i32 = ERROR_NOT_FOUND as i32;
    matches!(error.raw_os_error(), Some(WSAEINVAL | WSAENOTCONN | NOT_FOUND))
}

/// The connection was redirected, and the filter gives no context.
pub(crate) fn is_no_context(error: &io::Error) -> bool {
    error.raw_os_error() == Some(FWP_E_NOT_FOUND)
}

/// The filter's own bytes. A flow may be before them; then they move to the beginning of `buffer`.
fn own_context(buffer: &mut [u8], ioctl: &mut Ioctl<'_>) -> io::Result<usize> {
    let length = whole_context(buffer, ioctl)?;
    let own = match context::split(&buffer[..length]) {
        Ok((Some(_), [])) => return Err(no_context()),
        Ok((_, own)) => own.len(),
        Err(what) => return Err(io::Error::new(io::ErrorKind::InvalidData, what)),
    };
    buffer.copy_within(length - own..length, 0);
    Ok(own)
}

/// As much of the flow as the buffer holds, for a newer one is longer.
fn flow(buffer: &mut [u8], ioctl: &mut Ioctl<'_>) -> io::Result<usize> {
    let mut whole = vec![0; CONTEXT_MAX];
    let length = whole_context(&mut whole, ioctl)?;
    match context::split(&whole[..length]) {
        Ok((Some(flow), _)) => {
            let length = flow.len().min(buffer.len());
            buffer[..length].copy_from_slice(&flow[..length]);
            Ok(length)
        }
        Ok((None, _)) => {
            Err(io::Error::new(io::ErrorKind::NotFound, "the redirect context does not begin with CARNETF1"))
        }
        Err(what) => Err(io::Error::new(io::ErrorKind::InvalidData, what)),
    }
}

/// An accepted connection that has records came by a redirect to whoever accepted it.
fn state(buffer: &mut [u8], ioctl: &mut Ioctl<'_>) -> io::Result<usize> {
    let state = match has_records(ioctl) {
        Ok(()) => State::RedirectedBySelf,
        Err(error) if is_not_redirected(&error) => State::NotRedirected,
        Err(error) => return Err(error),
    };
    let answer = (state as u32).to_ne_bytes();
    match buffer.get_mut(..answer.len()) {
        Some(buffer) => buffer.copy_from_slice(&answer),
        None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no room for a state")),
    }
    Ok(answer.len())
}

/// The context as the callout gave it. Where it gave none the system may say the same as of a connection that was not
/// redirected; the records tell the two apart.
fn whole_context(buffer: &mut [u8], ioctl: &mut Ioctl<'_>) -> io::Result<usize> {
    match read(SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, buffer, ioctl) {
        Ok(0) => Err(no_context()),
        Err(error) if is_not_redirected(&error) => Err(has_records(ioctl).map_or(error, |()| no_context())),
        result => result,
    }
}

fn has_records(ioctl: &mut Ioctl<'_>) -> io::Result<()> {
    read(SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, &mut vec![0; RECORDS_MAX], ioctl).map(drop)
}

fn read(code: u32, buffer: &mut [u8], ioctl: &mut Ioctl<'_>) -> io::Result<usize> {
    size_protocol::read(buffer, |room| ioctl(code, room))
}

/// The error that says so, whatever the system said.
fn no_context() -> io::Error {
    io::Error::from_raw_os_error(FWP_E_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::Networking::WinSock::WSAEFAULT;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::Flow;

    /// A system that has redirected a connection: what it has of it, or the error it answers with.
    struct System {
        records: Result<Vec<u8>, i32>,
        context: Result<Vec<u8>, i32>,
    }

    impl System {
        fn answer(&self, item: Item, room: usize) -> io::Result<Vec<u8>> {
            let mut buffer = vec![0; room];
            let length = answer(item, &mut buffer, &mut |code, room| self.ioctl(code, room))?;
            buffer.truncate(length);
            Ok(buffer)
        }

        fn ioctl(&self, code: u32, room: &mut [u8]) -> Result<usize, Refusal> {
            let refusal =
                |number, too_small, needed| Refusal { error: io::Error::from_raw_os_error(number), too_small, needed };
            let answer = match code {
                SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS => &self.records,
                SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT => &self.context,
                _ => panic!("code {code:#x}"),
            };
            let answer = answer.as_ref().map_err(|&number| refusal(number, false, 0))?;
            let room = room.get_mut(..answer.len()).ok_or_else(|| refusal(WSAEFAULT, true, 0))?;
            room.copy_from_slice(answer);
            Ok(answer.len())
        }
    }

    #[test]
    fn records_of_every_size_are_read() {
        for size in [1, 440, 1024, 1025, 8192, RECORDS_MAX] {
            let system = System { records: Ok(vec![7; size]), context: Err(WSAEINVAL) };
            assert_eq!(system.answer(Item::Records, RECORDS_MAX).unwrap(), vec![7; size]);
            assert_eq!(system.answer(Item::State, 4).unwrap(), 1_u32.to_ne_bytes());
        }
        let system = System { records: Ok(vec![7; RECORDS_MAX + 1]), context: Err(WSAEINVAL) };
        assert_eq!(system.answer(Item::Records, RECORDS_MAX).unwrap_err().raw_os_error(), Some(WSAEFAULT));
    }

    #[test]
    fn a_context_of_carnets_form_is_a_flow_and_the_filters_bytes() {
        for own in [&b"own"[..], &[5; 40_000]] {
            let system =
                System { records: Ok(vec![7]), context: Ok([&Flow::CONTEXT_MAGIC, flow().as_bytes(), own].concat()) };
            assert_eq!(system.answer(Item::Flow, 432).unwrap(), flow().as_bytes());
            assert_eq!(system.answer(Item::Context, CONTEXT_MAX).unwrap(), own);
        }
    }

    #[test]
    fn another_callouts_context_is_the_filters_bytes_and_no_flow() {
        let system = System { records: Ok(vec![7]), context: Ok(b"192.0.2.7:80".to_vec()) };
        assert_eq!(system.answer(Item::Context, CONTEXT_MAX).unwrap(), b"192.0.2.7:80");
        let error = system.answer(Item::Flow, 432).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::NotFound, None));
    }

    #[test]
    fn a_broken_flow_is_neither() {
        let system =
            System { records: Ok(vec![7]), context: Ok([&Flow::CONTEXT_MAGIC[..], &[1, 0, 255, 255]].concat()) };
        for item in [Item::Flow, Item::Context] {
            assert_eq!(system.answer(item, CONTEXT_MAX).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    /// By its own number, by the one of a connection that was not redirected, by 0 bytes, and by nothing behind a flow.
    #[test]
    fn no_context_is_told_apart_from_no_redirect() {
        for context in [Err(FWP_E_NOT_FOUND), Err(WSAEINVAL), Ok(vec![])] {
            let system = System { records: Ok(vec![7; 3000]), context };
            for item in [Item::Context, Item::Flow] {
                assert!(is_no_context(&system.answer(item, 4096).unwrap_err()));
            }
        }
        let flow_alone = [&Flow::CONTEXT_MAGIC, flow().as_bytes()].concat();
        let system = System { records: Ok(vec![7]), context: Ok(flow_alone) };
        assert!(is_no_context(&system.answer(Item::Context, 4096).unwrap_err()));

        for number in [WSAEINVAL, WSAENOTCONN, 1168] {
            let system = System { records: Err(number), context: Err(number) };
            for item in [Item::Context, Item::Flow, Item::Records] {
                assert_eq!(system.answer(item, 4096).unwrap_err().raw_os_error(), Some(number));
            }
            assert_eq!(system.answer(Item::State, 4).unwrap(), 0_u32.to_ne_bytes());
        }
    }

    fn flow() -> carnet_abi::Flow {
        carnet_abi::Flow { version: 1, size: 432, depth: 1, ..Default::default() }
    }
}
