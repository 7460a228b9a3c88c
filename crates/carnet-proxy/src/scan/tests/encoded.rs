//! `Content-Encoding`.

use std::io::Write;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};

use super::*;
use crate::scan::{Act, Finding};

pub(super) const ENCODINGS: &[(&str, Encode)] =
    &[("gzip", gzip), ("deflate", zlib), ("deflate", bare), ("br", brotli), ("zstd", zstandard)];

pub(super) type Encode = fn(&[u8]) -> Vec<u8>;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bare(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Blocks that are not compressed, since there is no encoder here (RFC 7932, section 9.2), and a last one that is empty.
/// Their bytes are turned, so that the marker is not to be seen: the encoding is no disguise by itself.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut bits = 0_u32; // the window's size is the first bit of the first block's header
    for block in bytes.chunks(1 << 16) {
        let head = (block.len() as u32 - 1) << 3 | 1 << 19;
        let head = if bits == 0 { head << 1 } else { head };
        bits = 1;
        encoded.extend_from_slice(&head.to_le_bytes()[..3]);
        encoded.extend_from_slice(block);
    }
    encoded.push(if bits == 0 { 0b110 } else { 0b11 });
    encoded
}

/// Text with the marker in its middle, which compresses well.
fn marked() -> Vec<u8> {
    [b"some text. ".repeat(300).as_slice(), b"a marker", &b" more text.".repeat(300)].concat()
}

#[tokio::test]
async fn what_is_inside_is_found() {
    let (scanner, _) =
        scanner(Words(&["text. a marker more"]), ScanOptions { hold: 1 << 20, ..ScanOptions::default() });
    for (name, encode) in ENCODINGS {
        let encoded = encode(&marked());
        for pieces in [1, 100, usize::MAX] {
            let passed = send(&scanner, Some(name), encoded.chunks(pieces)).await;
            assert_eq!((passed.bytes.len(), passed.blocked.is_some()), (0, true), "{name} in pieces of {pieces}");
            let clean = encode(&marked()[..3000]);
            assert_eq!(send(&scanner, Some(name), clean.chunks(pieces)).await, pass(clean), "{name}");
        }
    }
}

#[tokio::test]
async fn what_is_inside_of_a_long_body_is_found_before_it_passes() {
    let (scanner, _) = scanner(Words(&["text. a marker more"]), ScanOptions { overlap: 32, ..short() });
    for (name, encode) in ENCODINGS {
        let encoded = encode(&marked());
        let passed = send(&scanner, Some(name), encoded.chunks(1)).await;
        assert!(passed.blocked.is_some(), "{name}");
        // A decoder makes no more of what has passed than the scan has seen.
        let (decoding, told) = super::scanner(Words(&["a marker"]), ScanOptions { on_match: Act::Log, ..short() });
        assert_eq!(send(&decoding, Some(name), passed.bytes.chunks(1)).await.blocked, None, "{name}");
        assert!(told.lock().unwrap().is_empty(), "{name}: the marker has passed");
    }
}

#[tokio::test]
async fn several_are_undone_from_the_last() {
    let (scanner, _) = scanner(Words(&["a marker"]), ScanOptions::default());
    let twice = zstandard(&gzip(&marked()));
    assert!(send(&scanner, Some("GZIP , identity,zstd"), twice.chunks(50)).await.blocked.is_some());
    // In the wrong order nothing can be decoded, by the client neither.
    assert_eq!(send(&scanner, Some("zstd, gzip"), twice.chunks(50)).await, pass(twice.as_slice()));
    let members = [gzip(b"nothing here"), gzip(b"a marker")].concat();
    assert!(send(&scanner, Some("gzip"), members.chunks(5)).await.blocked.is_some());
}

#[tokio::test]
async fn what_cannot_be_decoded_is_looked_at_as_it_is() {
    let (scanner, _) = scanner(Words(&["a marker"]), ScanOptions::default());
    for encoding in ["gzip", "deflate", "br", "zstd", "compress", "gzip,gzip,gzip,gzip,gzip", ",", "\u{e4}"] {
        assert!(send(&scanner, Some(encoding), marked().chunks(100)).await.blocked.is_some(), "{encoding}");
        let clean = &marked()[..3000];
        assert_eq!(send(&scanner, Some(encoding), clean.chunks(100)).await, pass(clean), "{encoding}");
    }
}

#[tokio::test]
async fn what_comes_before_a_mistake_is_looked_at() {
    let (scanner, _) = scanner(Words(&["a marker"]), ScanOptions::default());
    for (name, encode) in ENCODINGS {
        let whole =
            encode(&[b"a marker".as_slice(), &(0..99_999_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()].concat());
        let half = &whole[..whole.len() / 2];
        assert!(send(&scanner, Some(name), [half]).await.blocked.is_some(), "{name}, cut off");
    }
}

#[tokio::test]
async fn a_bomb_is_not_decoded_to_its_end() {
    let bomb = vec![0; 64 << 20];
    let options = ScanOptions { decoded: 1 << 20, ..ScanOptions::default() };
    for (name, encoded) in [
        ("gzip", gzip(&bomb)),
        ("deflate", zlib(&bomb)),
        ("zstd", zstandard(&bomb)),
        ("gzip, gzip", gzip(&gzip(&bomb))),
    ] {
        let (scanner, told) = scanner(Words(&["a marker"]), options);
        let passed = send(&scanner, Some(name), [encoded.as_slice()]).await;
        assert_eq!(passed.blocked.as_deref(), Some("decoded, the body is too long"), "{name}");
        assert_eq!(told.lock().unwrap()[0].finding, Finding::Unscanned(Unscanned::Length), "{name}");

        let (lenient, _) = super::scanner(Words(&["a marker"]), ScanOptions { on_unscanned: Act::Log, ..options });
        assert_eq!(send(&lenient, Some(name), [encoded.as_slice()]).await, pass(encoded), "{name}");
    }
}

#[tokio::test]
async fn without_memory_for_a_decoder_a_long_body_is_not_decoded() {
    let options = ScanOptions { memory: 1 << 10, ..short() };
    let (scanner, told) = scanner(Words(&["a marker"]), options);
    let noise: Vec<u8> = (0..5000_u32).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    assert!(send(&scanner, Some("gzip"), gzip(&noise).chunks(100)).await.blocked.is_some());
    assert_eq!(told.lock().unwrap()[0].finding, Finding::Unscanned(Unscanned::Memory));
}

#[tokio::test]
async fn windows_that_no_client_has_are_not_decoded() {
    let (scanner, _) = scanner(Words(&["a marker"]), ScanOptions::default());
    let inside = gzip(&marked());
    // Brotli with a large window, of 1 GiB: an extension (RFC 9841).
    let head: u64 = 0x11 | 30 << 8 | (inside.len() as u64 - 1) << 17 | 1 << 33;
    let large = [&head.to_le_bytes()[..5], &inside, b"\x03"].concat();
    assert_eq!(send(&scanner, Some("gzip, br"), [large.as_slice()]).await, pass(large));
    let usual = brotli(&inside);
    assert!(send(&scanner, Some("gzip, br"), [usual.as_slice()]).await.blocked.is_some());
    // Zstandard with a window of 16 MiB, and one block as it is.
    let zstd = |exponent: u8| {
        let block = ((inside.len() as u32) << 3 | 1).to_le_bytes();
        [b"\x28\xb5\x2f\xfd\x00".as_slice(), &[exponent << 3], &block[..3], &inside].concat()
    };
    assert_eq!(send(&scanner, Some("gzip, zstd"), [zstd(14).as_slice()]).await, pass(zstd(14)));
    assert!(send(&scanner, Some("gzip, zstd"), [zstd(13).as_slice()]).await.blocked.is_some());
}
