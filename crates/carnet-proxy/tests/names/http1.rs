use carnet_proxy::{Name, NameReader, rules::Protocol};

#[test]
fn requests() {
    let long = format!("GET / HTTP/1.1\r\nCookie: {}\r\nHost: late.example\r\n\r\n", "c".repeat(8000));
    for (request, name) in [
        ("GET / HTTP/1.1\r\nHost: Example.ORG:8080\r\n\r\nbody", Some("example.org")),
        ("POST /a?b HTTP/1.0\r\nX: y\r\nhost:  example.org \r\n\r\n", Some("example.org")),
        ("GET / HTTP/1.1\nHost: bare.example\n\n", Some("bare.example")),
        ("PROPFIND / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", Some("[2001:db8::1]")),
        ("PRINT / HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example")),
        ("SSH / HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example")),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", Some("a.example")),
        ("GET http://A.example:80?x HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example")),
        ("GET /see?http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example")),
        (&long, Some("late.example")),
        ("GET / HTTP/1.0\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", None),
        ("GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", None),
        ("GET HTTP://a.example@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", None),
        ("CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", None),
    ] {
        let mut reader = NameReader::new();
        let found = reader.read(request.as_bytes()).unwrap_or_else(|| panic!("{request:?}"));
        assert_eq!(found.protocol, Protocol::Http1, "{request:?}");
        assert_eq!(found.name, name.map(|name| Name::Host(name.into())), "{request:?}");
        assert_eq!((found.alpn.len(), found.ja4, found.ech, found.software), (0, None, false, None));
        assert!(reader.is_done(), "{request:?}");
    }
}

#[test]
fn what_is_no_request_is_left() {
    for bytes in [
        "EHLO mail.example\r\n",
        "USER anonymous\r\n",
        "GET / HTTP/1.1\r\nno field\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \u{1b}[2J\r\n\r\n",
        "PRI * HTTP/2.0\r\n\n",
    ] {
        let mut reader = NameReader::new();
        assert_eq!(reader.read(bytes.as_bytes()), None, "{bytes:?}");
        assert!(reader.is_done(), "{bytes:?}");
    }
}
