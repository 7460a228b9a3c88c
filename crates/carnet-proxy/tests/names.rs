//! Names in the first bytes of connections: real clients', made ones, and noise.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use carnet_proxy::{Found, Name, NameReader};
use proptest::{collection::vec, prelude::*};

/// Taken from the wire: the first record which each client sent.
const CLIENTS: [(&str, &[u8], &[&str]); 4] = [
    ("curl.example", include_bytes!("hello/curl.bin"), &["h2", "http/1.1"]),
    ("go.example", include_bytes!("hello/go.bin"), &[]),
    ("java.example", include_bytes!("hello/java.bin"), &[]),
    ("node.example", include_bytes!("hello/node.bin"), &["h2", "http/1.1"]),
];

#[test]
fn real_clients() {
    for (name, hello, alpn) in CLIENTS {
        let found = read_at_once(hello).unwrap_or_else(|| panic!("no name in the hello of {name}"));
        assert_eq!(found.name, Name::Sni(name.into()));
        assert_eq!(found.alpn, alpn);
    }
}

#[test]
fn a_hello_without_a_name_has_none() {
    let hello = include_bytes!("hello/openssl-without-name.bin");
    let mut reader = NameReader::new();
    assert_eq!(reader.read(hello), None);
    assert!(reader.is_done());
}

#[test]
fn http() {
    let long = format!("GET / HTTP/1.1\r\nCookie: {}\r\nHost: late.example\r\n\r\n", "c".repeat(8000));
    for (request, name) in [
        ("GET / HTTP/1.1\r\nHost: Example.ORG:8080\r\n\r\nbody", Some("example.org")),
        ("POST /a?b HTTP/1.0\r\nX: y\r\nhost:  example.org \r\n\r\n", Some("example.org")),
        ("GET / HTTP/1.1\nHost: bare.example\n\n", Some("bare.example")),
        ("PROPFIND / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", Some("[2001:db8::1]")),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", Some("a.example")),
        (&long, Some("late.example")),
        ("GET / HTTP/1.0\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: \u{1b}[2J\r\n\r\n", None),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
        ("SSH-2.0-OpenSSH_9.2\r\n", None),
        ("EHLO mail.example\r\n", None),
        ("USER anonymous\r\n", None),
    ] {
        let mut reader = NameReader::new();
        let found = reader.read(request.as_bytes());
        assert_eq!(found.map(|found| found.name), name.map(|name| Name::Host(name.into())), "{request:?}");
        assert!(reader.is_done(), "{request:?}");
    }
}

#[test]
fn a_name_is_found_once() {
    for bytes in [CLIENTS[0].1, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"] {
        let mut reader = NameReader::new();
        assert!(reader.read(bytes).is_some());
        assert_eq!(reader.read(bytes), None);
    }
}

#[test]
fn it_gives_up_at_the_limit_and_not_before() {
    let fill = |length: usize| {
        let head = "GET / HTTP/1.1\r\nHost: a.example\r\nX: ";
        format!("{head}{}\r\n\r\n", "x".repeat(length - head.len() - 4)).into_bytes()
    };
    assert!(read_at_once(&fill(NameReader::LIMIT)).is_some());
    assert!(read_in_pieces(&fill(NameReader::LIMIT), &[1]).is_some());
    assert_eq!(read_at_once(&fill(NameReader::LIMIT + 1)), None);
    assert_eq!(read_in_pieces(&fill(NameReader::LIMIT + 1), &[1]), None);

    let mut reader = NameReader::new();
    reader.read(&fill(NameReader::LIMIT + 1)[..NameReader::LIMIT]);
    assert!(reader.is_done());
}

#[test]
fn what_is_neither_is_left_at_the_first_byte() {
    for first in (0..=u8::MAX).filter(|&byte| byte != 22 && !byte.is_ascii_uppercase()) {
        let mut reader = NameReader::new();
        assert_eq!(reader.read(&[first]), None);
        assert!(reader.is_done(), "{first}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn real_hellos_in_any_pieces(
        client in 0..CLIENTS.len(),
        records in vec(1..400_usize, 1..4),
        pieces in vec(1..200_usize, 1..20),
    ) {
        let (name, hello, _) = CLIENTS[client];
        let found = read_in_pieces(&in_records(hello, &records), &pieces).map(|found| found.name);
        prop_assert_eq!(found, Some(Name::Sni(name.into())));
    }

    #[test]
    fn requests_in_any_pieces(
        name in "[a-z]{1,20}\\.example",
        fields in vec(("[A-Za-z]{1,9}", "[ -~]{0,40}"), 0..9),
        pieces in vec(1..60_usize, 1..20),
    ) {
        let mut request = "GET / HTTP/1.1\r\n".to_owned();
        for (field, value) in fields {
            request += &format!("X-{field}: {value}\r\n");
        }
        request += &format!("Host: {name}\r\n\r\nbody");
        let found = read_in_pieces(request.as_bytes(), &pieces).map(|found| found.name);
        prop_assert_eq!(found, Some(Name::Host(name)));
    }

    /// Also for what nobody should send: bytes changed, cut off, put in.
    #[test]
    fn pieces_make_no_difference(bytes in noise(), pieces in vec(1..300_usize, 1..20)) {
        let whole = read_at_once(&bytes);
        prop_assert_eq!(read_in_pieces(&bytes, &pieces), whole.clone());
        prop_assert_eq!(read_in_pieces(&bytes, &[1]), whole);
    }
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    let requests: [&[u8]; 2] =
        [b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"PUT /x HTTP/1.0\nA: b\nHost:c\nHost: d\n\n"];
    let real = proptest::sample::select(CLIENTS.map(|client| client.1).into_iter().chain(requests).collect::<Vec<_>>());
    let changes = vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4_u8), 0..6);
    let changed = (real, changes, vec(any::<u8>(), 0..50)).prop_map(|(bytes, changes, tail)| {
        let mut bytes = bytes.to_vec();
        for (index, byte, change) in changes {
            let index = index.index(bytes.len());
            match change {
                0 => bytes.insert(index, byte),
                1 if bytes.len() > 1 => drop(bytes.remove(index)),
                _ => bytes[index] = byte,
            }
        }
        bytes.extend(tail);
        bytes
    });
    let begun = (proptest::sample::select(vec![&b"\x16\x03\x01"[..], b"GET ", b""]), vec(any::<u8>(), 0..2000))
        .prop_map(|(begin, rest)| [begin, &rest[..]].concat());
    prop_oneof![changed, begun]
}

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

/// The handshake message of a hello in one record, put into several.
fn in_records(hello: &[u8], lengths: &[usize]) -> Vec<u8> {
    let (header, mut message) = hello.split_at(5);
    let (mut records, mut lengths) = (Vec::new(), lengths.iter().cycle());
    while !message.is_empty() {
        let (part, rest) = message.split_at(lengths.next().unwrap().min(&message.len()).to_owned());
        records.extend_from_slice(&header[..3]);
        records.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        records.extend_from_slice(part);
        message = rest;
    }
    records
}
