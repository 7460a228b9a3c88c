use std::io::ErrorKind;

use carnet_proxy::upstream::{Answer, Credentials, Error, Kind, Mistake, Target, Upstream};

use crate::script::play_in_pieces;

const NO_LOGIN: (&[u8], &[u8]) = (b"\x05\x01\x00", b"\x05\x00");
const TO: (&[u8], &[u8]) = (b"\x05\x01\x00\x01\xc6\x33\x64\x07\x01\xbb", OPEN);
const OPEN: &[u8] = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38";

fn to() -> Target<'static> {
    Target::to("198.51.100.7:443".parse().unwrap())
}

fn credentials() -> Option<Credentials> {
    Some(Credentials::new("me", "secret"))
}

#[tokio::test]
async fn by_ipv4_address() {
    play_in_pieces(Kind::Socks5, None, false, &to(), &[NO_LOGIN, TO]).await.unwrap();
}

#[tokio::test]
async fn an_ipv4_address_in_its_ipv6_form_is_an_ipv4_address() {
    let to = Target::to("[::ffff:198.51.100.7]:443".parse().unwrap());
    play_in_pieces(Kind::Socks5, None, false, &to, &[NO_LOGIN, TO]).await.unwrap();
}

#[tokio::test]
async fn by_ipv6_address() {
    let to = Target::to("[2001:db8::7]:80".parse().unwrap());
    let request = b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x00\x50";
    play_in_pieces(Kind::Socks5, None, false, &to, &[NO_LOGIN, (request, OPEN)]).await.unwrap();
}

#[tokio::test]
async fn by_name_where_that_is_wanted_and_there_is_one() {
    let named = Target { name: Some("example.org"), ..to() };
    let request: (&[u8], _) = (b"\x05\x01\x00\x03\x0bexample.org\x01\xbb", OPEN);
    play_in_pieces(Kind::Socks5, None, true, &named, &[NO_LOGIN, request]).await.unwrap();
    play_in_pieces(Kind::Socks5, None, false, &named, &[NO_LOGIN, TO]).await.unwrap();
    play_in_pieces(Kind::Socks5, None, true, &to(), &[NO_LOGIN, TO]).await.unwrap();
    // An address is no name: what a client writes there says nothing that the connection did not.
    for name in ["203.0.113.9", "[2001:db8::9]", "2001:db8::9"] {
        let named = Target { name: Some(name), ..to() };
        play_in_pieces(Kind::Socks5, None, true, &named, &[NO_LOGIN, TO]).await.unwrap();
    }
}

#[tokio::test]
async fn the_bound_address_may_be_of_any_type() {
    let bound: [&[u8]; 4] = [
        b"\x05\x00\x00\x01\0\0\0\0\0\0",
        b"\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x05\x00\x00\x03\x09localhost\0\0",
        b"\x05\x00\x00\x03\x00\0\0",
    ];
    for answer in bound {
        play_in_pieces(Kind::Socks5, None, false, &to(), &[NO_LOGIN, (TO.0, answer)]).await.unwrap();
    }
}

#[tokio::test]
async fn the_password_goes_to_whom_asks_for_it() {
    let asked: (&[u8], &[u8]) = (b"\x05\x02\x00\x02", b"\x05\x02");
    for status in [b"\x01\x00", b"\x05\x00"] {
        let login = (&b"\x01\x02me\x06secret"[..], &status[..]);
        play_in_pieces(Kind::Socks5, credentials(), false, &to(), &[asked, login, TO]).await.unwrap();
    }
    let not_asked: (&[u8], &[u8]) = (b"\x05\x02\x00\x02", b"\x05\x00");
    play_in_pieces(Kind::Socks5, credentials(), false, &to(), &[not_asked, TO]).await.unwrap();
}

#[tokio::test]
async fn who_may_not_log_in_is_told_what_is_missing() {
    for method in [b"\x05\xff", b"\x05\x02", b"\x05\x01"] {
        let error = play_in_pieces(Kind::Socks5, None, false, &to(), &[(NO_LOGIN.0, method)]).await.unwrap_err();
        assert!(matches!(error, Error::CredentialsWanted { .. }), "{error}");
    }
    let asked: (&[u8], &[u8]) = (b"\x05\x02\x00\x02", b"\x05\x02");
    let login: (&[u8], &[u8]) = (b"\x01\x02me\x06secret", b"\x01\x01");
    let error = play_in_pieces(Kind::Socks5, credentials(), false, &to(), &[asked, login]).await.unwrap_err();
    assert!(matches!(error, Error::CredentialsRefused { .. }), "{error}");
    assert_eq!(error.io_kind(), ErrorKind::PermissionDenied);
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test]
async fn a_refusal_says_who_does_not_go_where_and_why() {
    let kinds = [
        (1, ErrorKind::Other, "it failed"),
        (2, ErrorKind::PermissionDenied, "its rules do not allow it"),
        (3, ErrorKind::NetworkUnreachable, "the network is unreachable"),
        (4, ErrorKind::HostUnreachable, "the host is unreachable"),
        (5, ErrorKind::ConnectionRefused, "the connection was refused"),
        (6, ErrorKind::TimedOut, "the time to live has run out"),
        (8, ErrorKind::Other, "it does not know this type of address"),
        (255, ErrorKind::Other, "the standard has no word for this"),
    ];
    for (reply, kind, words) in kinds {
        // Some stop after two bytes. What follows is none of the answer.
        for answer in [&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0][..], &[5, reply]] {
            let script = [NO_LOGIN, (TO.0, answer)];
            let error = play_in_pieces(Kind::Socks5, None, false, &to(), &script).await.unwrap_err();
            assert_eq!(error.io_kind(), kind);
            let text = error.to_string();
            assert!(text.starts_with("the SOCKS5 upstream at 127.0.0.1:"), "{text}");
            let end = format!(" does not connect to 198.51.100.7:443: {words} (SOCKS5 reply {reply})");
            assert!(text.ends_with(&end), "{text}");
            assert!(matches!(error, Error::Refused { answer: Answer::Socks5(said), .. } if said == reply));
        }
    }
}

#[tokio::test]
async fn what_is_no_socks5_is_shown() {
    let lines: [&[(&[u8], &[u8])]; 4] = [
        &[(NO_LOGIN.0, b"HTTP/1.1 400 Bad Request\r\n\r\n")],
        &[(NO_LOGIN.0, b"\x04\x5b")],
        &[NO_LOGIN, (TO.0, b"\x04\x00\x00\x01\0\0\0\0\0\0")],
        &[NO_LOGIN, (TO.0, b"\x05\x00\x00\x02\0\0\0\0\0\0")],
    ];
    for script in lines {
        let error = play_in_pieces(Kind::Socks5, None, false, &to(), script).await.unwrap_err();
        assert!(matches!(error, Error::NotOne { .. }), "{error}");
        assert_eq!(error.io_kind(), ErrorKind::InvalidData);
    }
    let error = play_in_pieces(Kind::Socks5, None, false, &to(), lines[0]).await.unwrap_err();
    assert!(error.to_string().contains("answers \"HT\", which is not of that protocol"), "{error}");
}

#[test]
fn credentials_have_to_fit() {
    let make = |user: usize, password: usize| {
        let credentials = Credentials::new("u".repeat(user), "p".repeat(password));
        Upstream::new(Kind::Socks5, "192.0.2.1:1080".parse().unwrap(), Some(credentials)).map(drop)
    };
    assert_eq!([make(1, 0), make(255, 255)], [Ok(()), Ok(())]);
    assert_eq!([make(0, 1), make(256, 1), make(1, 256)], [(); 3].map(|()| Err(Mistake::Length)));
}
