//! What is found in the first bytes of connections: real clients', made ones, and noise.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod bounds;
mod http1;
mod http2;
mod made;
mod pieces;
mod ssh;
mod tls;

use carnet_proxy::{Found, NameReader};

fn read_at_once(bytes: &[u8]) -> Option<Found> {
    NameReader::new().read(bytes)
}

/// Cuts the bytes to the lengths, over and over, and reads all of them: what is found must be found once.
fn read_in_pieces(mut bytes: &[u8], lengths: &[usize]) -> Option<Found> {
    let (mut reader, mut all) = (NameReader::new(), Vec::new());
    for &length in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        all.extend(reader.read(piece));
        bytes = rest;
    }
    assert!(all.len() <= 1);
    all.pop()
}

fn name(found: &Found) -> Option<&str> {
    found.name.as_ref().map(|name| name.as_str())
}
