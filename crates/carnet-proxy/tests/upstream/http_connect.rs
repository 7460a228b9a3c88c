use std::io::ErrorKind;

use carnet_proxy::upstream::{Answer, Credentials, Error, Kind, Mistake, Target, Upstream};

use crate::script::play_in_pieces;

const REQUEST: &[u8] = b"CONNECT 198.51.100.7:443 HTTP/1.1\r\nHost: 198.51.100.7:443\r\n\r\n";
const OPEN: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn to() -> Target<'static> {
    Target::to("198.51.100.7:443".parse().unwrap())
}

async fn answered(answer: &[u8]) -> Result<(), Error> {
    play_in_pieces(Kind::HttpConnect, None, false, &to(), &[(REQUEST, answer)]).await
}

#[tokio::test]
async fn by_address_or_by_name() {
    answered(OPEN).await.unwrap();
    let v6 = Target::to("[2001:db8::7]:80".parse().unwrap());
    let request: &[u8] = b"CONNECT [2001:db8::7]:80 HTTP/1.1\r\nHost: [2001:db8::7]:80\r\n\r\n";
    play_in_pieces(Kind::HttpConnect, None, false, &v6, &[(request, OPEN)]).await.unwrap();
    let named = Target { name: Some("example.org"), ..to() };
    let request: &[u8] = b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n";
    play_in_pieces(Kind::HttpConnect, None, true, &named, &[(request, OPEN)]).await.unwrap();
    play_in_pieces(Kind::HttpConnect, None, false, &named, &[(REQUEST, OPEN)]).await.unwrap();
}

#[tokio::test]
async fn an_upstream_is_asked_for_hosts_only() {
    let upstream = Upstream::new(Kind::HttpConnect, "192.0.2.1:3128".parse().unwrap(), None).unwrap().by_name(true);
    let long = "a".repeat(256);
    for name in ["", "a b", "a\r\nX: y", "a:1", "a/", "user@a", "\u{e4}.example", "a\0", "%41", &long] {
        for kind in [Kind::HttpConnect, Kind::Socks5] {
            let upstream = Upstream::new(kind, upstream.address(), None).unwrap().by_name(true);
            let error = upstream.greeting(&Target { name: Some(name), ..to() }).unwrap_err();
            assert!(matches!(&error, Error::WrongName { name: named, .. } if named == name), "{error}");
        }
    }
    for name in ["localhost", "a_b.example.", "xn--4ca.example", &long[1..]] {
        upstream.greeting(&Target { name: Some(name), ..to() }).unwrap();
    }
}

#[tokio::test]
async fn with_a_login() {
    let credentials = || Some(Credentials::new("me", "s3:cret"));
    let request: &[u8] = b"CONNECT 198.51.100.7:443 HTTP/1.1\r\nHost: 198.51.100.7:443\r\n\
        Proxy-Authorization: Basic bWU6czM6Y3JldA==\r\n\r\n";
    let play = async |answer: &[u8]| {
        play_in_pieces(Kind::HttpConnect, credentials(), false, &to(), &[(request, answer)]).await
    };
    play(OPEN).await.unwrap();
    let wanted = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    assert!(matches!(play(wanted).await.unwrap_err(), Error::CredentialsRefused { .. }));
    assert!(matches!(answered(wanted).await.unwrap_err(), Error::CredentialsWanted { .. }));
    let shown = format!("{:?}", Upstream::new(Kind::HttpConnect, "192.0.2.1:1".parse().unwrap(), credentials()));
    assert!(shown.contains("\"me\"") && !shown.contains("cret"), "{shown}");
}

#[tokio::test]
async fn heads_of_success_have_nothing_after_them() {
    for answer in [
        &b"HTTP/1.0 200 OK\r\n\r\n"[..],
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 \r\n\r\n",
        b"HTTP/1.1 299 Something\r\nVia: 1.1 x\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nServer: bare line ends\n\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        answered(answer).await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_says_who_does_not_go_where_and_why() {
    let kinds = [
        (&b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!"[..], ErrorKind::PermissionDenied, "403 Forbidden"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", ErrorKind::ConnectionRefused, "502 Bad Gateway"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", ErrorKind::ConnectionRefused, "503 Service Unavailable"),
        (b"HTTP/1.1 504 Gateway Time-out\r\n\r\n", ErrorKind::TimedOut, "504 Gateway Time-out"),
        (b"HTTP/1.1 404\r\n\r\n", ErrorKind::Other, "404"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", ErrorKind::Other, "302 Found"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ErrorKind::Other, "101 Switching Protocols"),
    ];
    for (answer, kind, words) in kinds {
        let error = answered(answer).await.unwrap_err();
        assert_eq!(error.io_kind(), kind);
        let text = error.to_string();
        assert!(text.starts_with("the HTTP CONNECT upstream at 127.0.0.1:"), "{text}");
        assert!(text.ends_with(&format!(" does not connect to 198.51.100.7:443: HTTP status {words}")), "{text}");
        assert!(matches!(error, Error::Refused { answer: Answer::Http { .. }, .. }));
        let told: std::io::Error = error.into();
        assert!(told.get_ref().is_some_and(|cause| cause.is::<Error>()));
    }
}

#[tokio::test]
async fn what_is_no_http_is_shown() {
    for answer in [&b"\x05\xff"[..], b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 xyz\r\n\r\n"] {
        let error = answered(answer).await.unwrap_err();
        assert!(matches!(error, Error::NotOne { .. }), "{error}");
    }
    let error = answered(b"SSH-2.0-x\x1b[31m\r\n").await.unwrap_err();
    assert!(error.to_string().contains("answers \"S"), "{error}");
    assert!(!error.to_string().contains('\x1b'), "{error}");
}

#[tokio::test]
async fn heads_without_an_end_are_cut_off() {
    let fields = "X: yyyyyyyyyyyyyyyy\r\n".repeat(1000);
    let line = "z".repeat(20_000);
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    for answer in [format!("HTTP/1.1 200 OK\r\n{fields}"), format!("HTTP/1.1 200 OK\r\nX: {line}"), interim] {
        let error = answered(answer.as_bytes()).await.unwrap_err();
        assert!(matches!(error, Error::TooLong { limit: 16_384, .. }), "{error}");
    }
}

#[test]
fn credentials_have_to_fit() {
    let make = |kind, user: &str, password: &str| {
        let credentials = Credentials::new(user, password);
        Upstream::new(kind, "192.0.2.1:3128".parse().unwrap(), Some(credentials)).map(drop)
    };
    assert_eq!(make(Kind::HttpConnect, "me", "a:b"), Ok(()));
    assert_eq!(make(Kind::HttpConnect, "token", &"x".repeat(4000)), Ok(()));
    for (user, password) in [("m:e", ""), ("m\n", ""), ("me", "\r\n")] {
        assert_eq!(make(Kind::HttpConnect, user, password), Err(Mistake::Character));
    }
    assert_eq!(make(Kind::ProxyV2, "me", "x"), Err(Mistake::NotTaken));
}
