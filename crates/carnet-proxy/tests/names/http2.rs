use carnet_proxy::{Name, NameReader, rules::Protocol};

use crate::{
    made::{fields, frame, http2},
    name, read_at_once,
};

pub const CURL: &[u8] = include_bytes!("../hello/curl-http2.bin");

const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/")];

#[test]
fn curl_says_its_authority() {
    let found = read_at_once(CURL).unwrap();
    assert_eq!((found.protocol, found.name), (Protocol::Http2, Some(Name::Authority("h2.example".into()))));
}

#[test]
fn authorities() {
    for (more, expected) in [
        (&[(":authority", "A.example:8080")][..], Some("a.example")),
        (&[(":authority", "[2001:db8::1]:80")], Some("[2001:db8::1]")),
        (&[("host", "a.example")], Some("a.example")),
        (&[(":authority", "a.example"), ("host", "A.example:80")], Some("a.example")),
        (&[(":authority", "a.example"), ("host", "b.example")], None),
        (&[("host", "a.example"), ("host", "a.example")], None),
        (&[(":authority", "user@a.example")], None),
        (&[], None),
    ] {
        let header = fields(&[&GET[..], more].concat());
        let found = read_at_once(&[http2(), frame(HEADERS, END_HEADERS, 1, &header)].concat()).unwrap();
        assert_eq!((found.protocol, name(&found)), (Protocol::Http2, expected), "{more:?}");
    }
}

#[test]
fn a_header_may_be_padded_prioritised_and_continued() {
    let header = fields(&[&GET[..], &[(":authority", "a.example"), ("x", &"y".repeat(5000))]].concat());
    let (first, rest) = header.split_at(20);
    let (second, third) = rest.split_at(3000);
    let padded = [&[3][..], &[0, 0, 0, 0, 15], first, &[0; 3]].concat();
    let bytes = [
        http2(),
        frame(8, 0, 0, &[0, 1, 0, 0]), // window update
        frame(HEADERS, PADDED | PRIORITY, 1, &padded),
        frame(CONTINUATION, 0, 1, second),
        frame(CONTINUATION, END_HEADERS, 1, third),
        b"what comes then does not count".to_vec(),
    ];
    assert_eq!(name(&read_at_once(&bytes.concat()).unwrap()), Some("a.example"));
}

/// A few bytes that stand for megabytes: what is stored once is named over and over.
#[test]
fn a_header_that_unfolds_is_bounded() {
    let mut header = fields(&[&GET[..], &[(":authority", "a.example")]].concat());
    header.extend([0x40, 1, b'x', 127, 0x81, 30]); // stored: a value of 127 + 1 + (30 << 7) bytes
    header.extend([b'y'; 3968]);
    header.extend([0x80 | 62; 8000]);
    assert_eq!(read_at_once(&[http2(), frame(HEADERS, END_HEADERS, 1, &header)].concat()), None);
    header.truncate(header.len() - 7990);
    assert_eq!(
        name(&read_at_once(&[http2(), frame(HEADERS, END_HEADERS, 1, &header)].concat()).unwrap()),
        Some("a.example")
    );
}

#[test]
fn what_is_no_request_is_left() {
    let header = fields(&[&GET[..], &[(":authority", "a.example")]].concat());
    for (frames, what) in [
        (frame(HEADERS, END_HEADERS, 0, &header), "stream 0"),
        (frame(HEADERS, END_HEADERS, 2, &header), "a server's stream"),
        (frame(HEADERS, END_HEADERS, 1, &header[..9]), "cut off"),
        (frame(HEADERS, END_HEADERS, 1, &fields(&GET[1..])), "no method"),
        (frame(HEADERS, END_HEADERS, 1, b"\x3f"), "a table's size that is cut off"),
        (frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff"), "more padding than there is"),
        ([frame(HEADERS, 0, 1, &header), frame(6, 0, 0, &[0; 8]), frame(CONTINUATION, 4, 1, b"")].concat(), "torn"),
        (vec![0xff; 9], "too long"),
    ] {
        let mut reader = NameReader::new();
        assert_eq!(reader.read(&[http2(), frames].concat()), None, "{what}");
        assert!(reader.is_done(), "{what}");
    }
}

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
