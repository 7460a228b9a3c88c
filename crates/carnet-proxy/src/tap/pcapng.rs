//! The four kinds of blocks of a pcapng file that a tap needs, little-endian.
//!
//! Each function appends one whole block, and can fail in no way: what is too long for its field is cut off.

use std::time::{Duration, SystemTime};

/// What a file begins with: who wrote it, and its one interface, whose packets begin with an IP header.
pub(super) fn header(file: &mut Vec<u8>) {
    block(file, SECTION_HEADER, |body| {
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend(1_u16.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes()); // the section's length: not known
        option(body, SHB_OS, std::env::consts::OS.as_bytes());
        option(body, SHB_APPLICATION, concat!("carnet ", env!("CARGO_PKG_VERSION")).as_bytes());
        body.extend(END_OF_OPTIONS);
    });
    block(file, INTERFACE_DESCRIPTION, |body| {
        body.extend(LINKTYPE_RAW.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        body.extend(0_u32.to_le_bytes()); // no packet is cut off
        option(body, IF_NAME, b"carnet");
        option(body, IF_DESCRIPTION, b"TCP streams as the relay saw them, in packets made up for them");
        option(body, IF_TSRESOL, &[9]); // units of 10^-9 s
        body.extend(END_OF_OPTIONS);
    });
}

pub(super) fn packet<S: AsRef<str>>(file: &mut Vec<u8>, time: SystemTime, packet: &[u8], comments: &[S]) {
    block(file, ENHANCED_PACKET, |body| {
        body.extend(0_u32.to_le_bytes()); // the interface
        body.extend(timestamp(time));
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX).to_le_bytes();
        body.extend(length);
        body.extend(length);
        body.extend(packet);
        pad(body, packet.len());
        for comment in comments {
            option(body, COMMENT, up_to(comment.as_ref(), COMMENT_MAX).as_bytes());
        }
        if !comments.is_empty() {
            body.extend(END_OF_OPTIONS);
        }
    });
}

/// How many packets there were until now, and how many of them are not in the file.
pub(super) fn statistics(file: &mut Vec<u8>, time: SystemTime, packets: u64, lost: u64, comment: Option<&str>) {
    block(file, INTERFACE_STATISTICS, |body| {
        body.extend(0_u32.to_le_bytes());
        body.extend(timestamp(time));
        if let Some(comment) = comment {
            option(body, COMMENT, up_to(comment, COMMENT_MAX).as_bytes());
        }
        option(body, ISB_IFRECV, &packets.to_le_bytes());
        option(body, ISB_IFDROP, &lost.to_le_bytes());
        body.extend(END_OF_OPTIONS);
    });
}

/// The longest comment. A field of 16 bits would hold more, but a process chooses what is in it.
pub(super) const COMMENT_MAX: usize = 8 << 10;

/// The largest block of statistics, with the longest comment.
pub(super) const STATISTICS_MAX: u64 = COMMENT_MAX as u64 + 100;

/// The beginning of `text` that has at most so many bytes.
pub(super) fn up_to(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn block(file: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = file.len();
    file.extend(kind.to_le_bytes());
    file.extend([0; 4]);
    body(file);
    let length = u32::try_from(file.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
    file[start + 4..start + 8].copy_from_slice(&length);
    file.extend(length);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body, value.len());
}

fn pad(body: &mut Vec<u8>, length: usize) {
    body.extend(&[0; 3][..length.wrapping_neg() % 4]);
}

/// Nanoseconds since 1970, the upper half first whatever the byte order.
fn timestamp(time: SystemTime) -> [u8; 8] {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((nanoseconds >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(nanoseconds as u32).to_le_bytes());
    bytes
}

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// IPv4 or IPv6, told by the version in the packet itself.
const LINKTYPE_RAW: u16 = 101;

const END_OF_OPTIONS: [u8; 4] = [0; 4];
const COMMENT: u16 = 1;
const SHB_OS: u16 = 3;
const SHB_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;
