use carnet_proxy::NameReader;

use crate::{
    http2::CURL,
    made::{Hello, frame, http2, in_records},
    read_at_once, read_in_pieces,
    ssh::OPENSSH,
    tls::CLIENTS,
};

#[test]
fn something_is_found_once() {
    for bytes in [CLIENTS[0].bytes, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", CURL, OPENSSH] {
        let mut reader = NameReader::new();
        assert!(reader.read(bytes).is_some());
        assert!(reader.is_done());
        assert_eq!(reader.read(bytes), None);
    }
}

#[test]
fn it_gives_up_at_the_limit_and_not_before() {
    for fill in [fill_request, fill_hello, fill_http2] {
        let (longest, longer) = (fill(NameReader::LIMIT), fill(NameReader::LIMIT + 1));
        assert_eq!((longest.len(), longer.len()), (NameReader::LIMIT, NameReader::LIMIT + 1));
        for lengths in [&[1][..], &[NameReader::LIMIT * 2]] {
            assert!(read_in_pieces(&longest, lengths).is_some());
            assert_eq!(read_in_pieces(&longer, lengths), None);
        }
        let mut reader = NameReader::new();
        reader.read(&longest[..NameReader::LIMIT - 1]);
        assert!(!reader.is_done());
        reader.read(&longer[NameReader::LIMIT - 1..NameReader::LIMIT]);
        assert!(reader.is_done());
    }
}

#[test]
fn what_is_none_of_them_is_left_at_the_first_byte() {
    for first in (0..=u8::MAX).filter(|&byte| byte != 22 && !byte.is_ascii_uppercase()) {
        let mut reader = NameReader::new();
        assert_eq!(reader.read(&[first]), None);
        assert!(reader.is_done(), "{first}");
    }
}

#[test]
fn nothing_is_done_before_anything_has_come() {
    let mut reader = NameReader::new();
    assert_eq!(reader.read(&[]), None);
    assert!(!reader.is_done());
}

#[test]
fn what_is_begun_is_not_done() {
    for bytes in [CLIENTS[4].bytes, b"PUT / HTTP/1.1\r\nHost: a.example\r\n\r\n", &CURL[..101], OPENSSH] {
        for length in 1..bytes.len() {
            let mut reader = NameReader::new();
            if read_at_once(&bytes[..length]).is_none() {
                reader.read(&bytes[..length]);
                assert!(!reader.is_done(), "{} bytes", length);
            }
        }
    }
}

fn fill_request(length: usize) -> Vec<u8> {
    let head = "GET / HTTP/1.1\r\nHost: a.example\r\nX: ";
    format!("{head}{}\r\n\r\n", "x".repeat(length - head.len() - 4)).into_bytes()
}

fn fill_hello(length: usize) -> Vec<u8> {
    let empty = in_records(&Hello::default().with_name("a.example").with(21, b"").message(), &[1 << 14]).len();
    let padding = vec![0; length - empty];
    in_records(&Hello::default().with_name("a.example").with(21, &padding).message(), &[1 << 14])
}

fn fill_http2(length: usize) -> Vec<u8> {
    // GET, http, /.
    let request = frame(1, 4, 1, &[0x82, 0x86, 0x84]);
    let unknown = frame(0xbe, 0, 0, &vec![0; length - http2().len() - 9 - request.len()]);
    [http2(), unknown, request].concat()
}
