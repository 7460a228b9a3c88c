//! Netlink, as little of it as this engine asks the kernel: dumps, whose answers are read one by one.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Asks for all of one kind, and gives the body of each answer to `each`. `request` is what follows the header.
pub fn dump(
    protocol: SockProtocol,
    kind: u16,
    request: &[u8],
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let size = (size_of::<Header>() + request.len()) as u32;
    let header = Header { size, kind, flags: NLM_F_REQUEST | NLM_F_DUMP, ..Header::default() };
    send(netlink.as_raw_fd(), &[header.as_bytes(), request].concat(), MsgFlags::empty())?;
    // Larger than what the kernel puts in one message where the reader has room for it.
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let size = match recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        if parse(&buffer[..size], &mut each)? {
            return Ok(());
        }
    }
}

/// Reads one message of the kernel's. True: the dump is over.
fn parse(mut answers: &[u8], each: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
    if answers.is_empty() {
        return Err(malformed());
    }
    while !answers.is_empty() {
        let (header, _) = Header::read_from_prefix(answers).map_err(|_| malformed())?;
        let size = header.size as usize;
        let body = answers.get(size_of::<Header>()..size).ok_or_else(malformed)?;
        if header.flags & NLM_F_DUMP_INTR != 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match header.kind {
            NLMSG_DONE | NLMSG_ERROR => {
                let error = i32::read_from_prefix(body).map_or(0, |(error, _)| error);
                // Negative errnos. Whatever else the number may be, there is one to tell.
                return if error == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(error.wrapping_neg())) };
            }
            _ => each(body)?,
        }
        answers = answers.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Attributes: their types, without flags, and their values.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (attribute, _) = Attribute::read_from_prefix(bytes).ok()?;
        let size = usize::from(attribute.size);
        let value = bytes.get(size_of::<Attribute>()..size)?;
        bytes = bytes.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((attribute.kind & !NLA_FLAGS, value))
    })
}

/// The kernel has said something that cannot be understood.
pub fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is malformed")
}

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Header {
    size: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct rtattr`.
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Attribute {
    size: u16,
    kind: u16,
}

const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const NLM_F_DUMP_INTR: u16 = libc::NLM_F_DUMP_INTR as u16;
const NLM_F_DUMP: u16 = libc::NLM_F_DUMP as u16;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const NLA_FLAGS: u16 = 0xc000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Messages that make sense but for their size get further than random bytes.
        #[test]
        fn no_answer_panics(
            kind in prop::sample::select(vec![24, NLMSG_ERROR, NLMSG_DONE]),
            flags in prop::sample::select(vec![2, NLM_F_DUMP_INTR]),
            body in prop::collection::vec(any::<u8>(), 0..40),
            wrong in -20..20_i32,
        ) {
            let mut bytes = message(kind, flags, &body);
            let size = 16 + body.len() as i32 + wrong;
            bytes[..4].copy_from_slice(&size.to_ne_bytes());
            let mut bodies = 0;
            let result = parse(&bytes, &mut |_| {
                bodies += 1;
                Ok(())
            });
            prop_assert!(bodies <= 1 || wrong < 0, "{result:?}");
        }
    }

    /// Negated it is no number of 32 bits.
    #[test]
    fn the_lowest_number_is_an_error_like_others() {
        assert!(parse(&message(NLMSG_ERROR, 0, &i32::MIN.to_ne_bytes()), &mut |_| Ok(())).is_err());
    }

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let size = (size_of::<Header>() + body.len()) as u32;
        let mut bytes = Header { size, kind, flags, ..Header::default() }.as_bytes().to_vec();
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn every_answer_is_read_until_the_dump_is_over() {
        let bytes = [message(24, 2, b"one!"), message(24, 2, b"three"), message(NLMSG_DONE, 2, &[0; 4])].concat();
        let mut bodies = Vec::new();
        let mut each = |body: &[u8]| {
            bodies.push(body.to_vec());
            Ok(())
        };
        assert!(!parse(&bytes[..44], &mut each).unwrap());
        assert!(parse(&bytes[44..], &mut each).unwrap());
        assert_eq!(bodies, [b"one!".to_vec(), b"three".to_vec()]);
    }

    #[test]
    fn what_is_cut_or_lies_about_its_length_is_an_error() {
        let bytes = message(24, 2, b"body");
        for size in 0..bytes.len() {
            assert!(parse(&bytes[..size], &mut |_| Ok(())).is_err(), "{size} bytes");
        }
        for size in [0_u32, 4, 15, 21] {
            let mut bytes = bytes.clone();
            bytes[..4].copy_from_slice(&size.to_ne_bytes());
            assert!(parse(&bytes, &mut |_| Ok(())).is_err(), "{size}");
        }
    }

    #[test]
    fn the_kernel_s_error_comes_through_and_so_does_an_interruption() {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let error = parse(&message(kind, 0, &(-95_i32).to_ne_bytes()), &mut |_| Ok(())).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(95));
        }
        let error = parse(&message(24, NLM_F_DUMP_INTR, b""), &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn attributes_end_where_one_does_not_fit() {
        let one = [6_u16.to_ne_bytes(), (0x8000_u16 | 9).to_ne_bytes(), [7, 7], [0, 0]].concat();
        let bytes = [&one[..], &[8, 0, 1, 0, 1]].concat();
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(9, &[7, 7][..])]);
        assert_eq!(attributes(&[3, 0, 0, 0]).count(), 0);
    }
}
