//! Whatever an upstream answers: nothing panics, nothing is taken that is not the answer's, and cuts make no difference.

use carnet_proxy::upstream::{Credentials, Error, Greeting, Kind, Target, Upstream};
use proptest::{collection::vec, prelude::*};

proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_an_error(kind in kinds(), login: bool, bytes in vec(any::<u8>(), 0..400), piece in 1..20_usize) {
        check(kind, login, &bytes, piece)?;
    }

    /// Arbitrary bytes are hardly ever an answer. Here it is one with a few bytes changed, cut, or put in.
    #[test]
    fn answers_that_are_nearly_right(
        kind in kinds(),
        login: bool,
        which in 0..6_usize,
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..4),
        piece in 1..20_usize,
    ) {
        let mut bytes = answers(kind, login)[which % answers(kind, login).len()].to_vec();
        for (place, byte, what) in changes {
            let place = place.index(bytes.len());
            match what {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => bytes.truncate(place.max(1)),
            }
        }
        check(kind, login, &bytes, piece)?;
    }
}

/// So that the properties above are about answers at all.
#[test]
fn the_answers_are_right() {
    for (kind, login) in [(Kind::Socks5, false), (Kind::Socks5, true), (Kind::HttpConnect, false)] {
        for answer in answers(kind, login) {
            let (taken, over) = hear(greeting(kind, login), answer, usize::MAX).unwrap();
            assert!(over, "{}", answer.escape_ascii());
            assert_eq!(&answer[taken..], b"REST");
        }
    }
}

/// Also where an upstream answers ahead: a login that is not sent is none.
#[test]
fn everything_is_said_however_early_the_answers_are() {
    for (kind, login, times) in [(Kind::Socks5, false, 2), (Kind::Socks5, true, 3), (Kind::HttpConnect, false, 1)] {
        let (mut greeting, mut answer, mut said) = (greeting(kind, login), answers(kind, login)[0], Vec::new());
        loop {
            said.extend(greeting.to_send());
            if greeting.is_over() {
                break;
            }
            let taken = greeting.receive(answer).unwrap();
            answer = &answer[taken..];
        }
        assert_eq!(said.len(), times, "{said:?}");
        assert!(!login || said[1] == b"\x01\x02me\x06secret");
    }
}

/// There may be no line, and nothing more.
#[test]
fn what_is_no_http_is_seen_at_once() {
    let error = greeting(Kind::HttpConnect, false).receive(b"\x05\xff").unwrap_err();
    assert!(matches!(error, Error::NotOne { .. }), "{error}");
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Socks5), Just(Kind::HttpConnect)]
}

fn answers(kind: Kind, login: bool) -> &'static [&'static [u8]] {
    match (kind, login) {
        (Kind::Socks5, false) => &[
            b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38REST",
            b"\x05\x00\x05\x00\x00\x03\x04nameHTREST",
            b"\x05\x00\x05\x00\x00\x04abcdefghijklmnopqrREST",
        ],
        (Kind::Socks5, true) => &[b"\x05\x02\x01\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38REST"],
        _ => &[
            b"HTTP/1.1 200 OK\r\n\r\nREST",
            b"HTTP/1.0 200 Connection established\r\nVia: 1.1 squid\r\nX-Cache: MISS\r\n\r\nREST",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\nA: b\n\nREST",
        ],
    }
}

fn greeting(kind: Kind, login: bool) -> Greeting {
    let credentials = login.then(|| Credentials::new("me", "secret"));
    let upstream = Upstream::new(kind, "192.0.2.1:1080".parse().unwrap(), credentials).unwrap();
    upstream.greeting(&Target::to("198.51.100.7:443".parse().unwrap())).unwrap()
}

fn check(kind: Kind, login: bool, bytes: &[u8], piece: usize) -> Result<(), TestCaseError> {
    let whole = hear(greeting(kind, login), bytes, usize::MAX);
    let pieces = hear(greeting(kind, login), bytes, piece);
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => prop_assert_eq!(whole, pieces),
        (Err(whole), Err(pieces)) => prop_assert_eq!(whole.io_kind(), pieces.io_kind()),
        // What is wrong in a line without an end may be seen before the end is.
        (Err(Error::NotOne { .. }), Ok((_, false))) | (Ok((_, false)), Err(Error::NotOne { .. })) => {
            prop_assert_eq!(kind, Kind::HttpConnect);
        }
        (whole, pieces) => prop_assert!(false, "{:?} and in pieces {:?}", whole, pieces),
    }
    Ok(())
}

/// Bytes that were taken, and whether the greeting was over then.
fn hear(mut greeting: Greeting, bytes: &[u8], piece: usize) -> Result<(usize, bool), Error> {
    let (mut taken, mut shown) = (0, 0);
    loop {
        greeting.to_send();
        if greeting.is_over() {
            return Ok((taken, true));
        }
        shown = bytes.len().min(shown.max(taken).saturating_add(piece));
        if shown == taken {
            return Ok((taken, false));
        }
        let now = greeting.receive(&bytes[taken..shown])?;
        assert!((1..=shown - taken).contains(&now), "it would wait for ever, or takes what is not there");
        taken += now;
    }
}
