use http::Request;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::stage::{Opened, Root, Stage, event, full, http1, http2, serve, serve_http, text, within};
use crate::{
    open::{Begun, Dialled, Event, Inside, OpenFlow, Why},
    rules::{Protocol, Unread},
};

#[tokio::test]
async fn both_sides_speak_what_the_server_chooses() {
    for (client, server, chosen) in [
        (&["h2", "http/1.1"][..], &["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["h2", "http/1.1"], &["http/1.1"], Some(b"http/1.1")),
        (&["http/1.1"], &["h2", "http/1.1"], Some(b"http/1.1")),
        (&["h2", "http/1.1"], &[], None),
        (&[], &["h2"], None),
        (&["imap", "x"], &["x"], Some(b"x")),
    ] {
        let stage = Stage::new();
        let address = serve(stage.root.server("site.example", server), |_| async {}).await;
        let opened = stage.open(address, client).await.unwrap();
        let tls = within(stage.handshake(opened.client, client)).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), chosen, "{client:?} {server:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_is_passed_on_the_next_time() {
    let stage = Stage::new();
    let address = serve(stage.root.server("site.example", &[]), |_| async {}).await;
    let Opened { client, mut reports, over } = stage.open(address, &[]).await.unwrap();
    super::stage::handshake(client, &stage.root.certificate, &[]).await.expect_err("another authority");
    assert_eq!(event(&mut reports).await, Event::Pinned);
    within(over).await.unwrap();
    assert_eq!(stage.open(address, &[]).await.err(), Some(Why::Pinned));
}

#[tokio::test]
async fn a_client_that_goes_away_when_it_has_seen_the_certificate_is_too() {
    let stage = Stage::new();
    let address = serve(stage.root.server("site.example", &["h2"]), |mut stream| async move {
        let _ = stream.read_u8().await;
    })
    .await;
    for _ in 0..2 {
        let Ok(opened) = stage.open(address, &["h2"]).await else { return };
        let mut reports = opened.reports;
        let mut client = stage.handshake(opened.client, &["h2"]).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(event(&mut reports).await, Event::Pinned);
    }
    panic!("opened again");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_left_to_its_client() {
    let stage = Stage::new();
    let address = serve(stage.root.server_that_asks(&["h2"]), |_| async {}).await;
    for _ in 0..2 {
        assert_eq!(stage.open(address, &["h2"]).await.err(), Some(Why::ClientCertificate));
    }
    let known = stage.subject(address, &[], Some(Protocol::Tls)).why_not();
    assert_eq!(known, Some(Why::ClientCertificate), "it need not be asked again");
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_not_talked_to() {
    let stage = Stage::new();
    let other = Root::new("another root");
    for (config, why) in [
        (other.server("site.example", &["h2", "http/1.1"]), "UnknownIssuer"),
        (stage.root.server("other.example", &["h2", "http/1.1"]), "not valid for name"),
    ] {
        let address = serve(config, |_| async { panic!("it was talked to") }).await;
        for alpn in [&["http/1.1"][..], &["h2"], &[]] {
            let (client, mut reports) = stage.client(address, alpn).await;
            let request = Request::get("https://site.example/secret").body(full("")).unwrap();
            let response = match alpn {
                ["h2"] => http2(client).await.send_request(request).await.unwrap(),
                _ => http1(client).await.send_request(request).await.unwrap(),
            };
            assert_eq!(response.status(), 502);
            let page = text(response).await;
            assert!(page.contains(why) && page.contains("site.example"), "{page}");
            let Event::Untrusted { error } = event(&mut reports).await else { panic!() };
            assert!(error.contains(why), "{error}");
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_told_of() {
    let stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let (client, _) = stage.client(address, &["http/1.1"]).await;
    let response = http1(client).await.send_request(Request::get("/").body(full("")).unwrap()).await.unwrap();
    assert_eq!(response.status(), 502);
}

#[tokio::test]
async fn http_in_clear_text_is_read_as_well() {
    let stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello").await.unwrap();
    });
    let subject = stage.subject(address, &[], Some(Protocol::Http1));
    assert_eq!(subject.why_not(), None);
    let begun = Begun::Clear(TcpStream::connect(address).await.unwrap());
    let mut opened = Opened::begin(OpenFlow { subject, begun, tap: None }).await;
    opened.client.write_all(b"GET / HTTP/1.0\r\nX-Case: yes\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(opened.client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert_eq!(event(&mut opened.reports).await, Event::Opened { inside: Inside::Http1 });
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_cannot_be_read() {
    let stage = Stage::new();
    let anywhere = "192.0.2.1:22".parse().unwrap();
    for protocol in [None, Some(Protocol::Ssh)] {
        assert_eq!(stage.subject(anywhere, &[], protocol).why_not(), Some(Why::Unknown));
    }
}

#[tokio::test]
async fn a_server_of_http_that_is_asked_twice_answers_twice() {
    let stage = Stage::new();
    for alpn in ["http/1.1", "h2"] {
        let address = serve_http(stage.root.server("site.example", &[alpn]), |request| async move {
            Ok(http::Response::new(full(format!("{:?} {}", request.version(), request.uri().path()))))
        })
        .await;
        let (client, mut reports) = stage.client(address, &[alpn]).await;
        let request = |path: &str| Request::get(format!("https://site.example{path}")).body(full("")).unwrap();
        let (one, two) = match alpn {
            "h2" => {
                let mut sender = http2(client).await;
                let (one, two) = (sender.send_request(request("/1")), sender.clone().send_request(request("/2")));
                let (one, two) = tokio::join!(one, two);
                (text(one.unwrap()).await, text(two.unwrap()).await)
            }
            _ => {
                let mut sender = http1(client).await;
                let one = text(sender.send_request(request("/1")).await.unwrap()).await;
                sender.ready().await.unwrap();
                (one, text(sender.send_request(request("/2")).await.unwrap()).await)
            }
        };
        let version = if alpn == "h2" { "HTTP/2.0" } else { "HTTP/1.1" };
        assert_eq!((one, two), (format!("{version} /1"), format!("{version} /2")));
        let inside = if alpn == "h2" { Inside::Http2 } else { Inside::Http1 };
        assert_eq!(event(&mut reports).await, Event::Opened { inside });
    }
}

#[tokio::test]
async fn a_client_that_has_gone_before_it_could_see_a_certificate_does_not_pin() {
    let stage = Stage::new();
    let address = serve(stage.root.server("site.example", &[]), |_| async {}).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    drop(client);
    // Its end has come when this is readable.
    within(accepted.readable()).await.unwrap();
    let subject = stage.subject(address, &[], Some(Protocol::Tls));
    let Dialled::Verified(stream) = subject.dial(TcpStream::connect(address).await.unwrap()).await else { panic!() };
    let (reporter, mut reports) = crate::channel(1);
    let begun = Begun::Tls(stream);
    OpenFlow { subject, begun, tap: None }.run(accepted, Vec::new(), &reporter).await;
    assert!(reports.try_recv().is_err());
    assert!(stage.open(address, &[]).await.is_ok());
}

#[tokio::test]
async fn where_nothing_passes_unread_a_pin_is_no_reason_not_to_try() {
    let stage = Stage { unread: Unread::Block, ..Stage::new() };
    let address = serve(stage.root.server("site.example", &[]), |_| async {}).await;
    for _ in 0..2 {
        let Opened { client, mut reports, .. } = stage.open(address, &[]).await.unwrap();
        super::stage::handshake(client, &stage.root.certificate, &[]).await.expect_err("another authority");
        assert_eq!(event(&mut reports).await, Event::Pinned);
    }
}

#[tokio::test]
async fn a_hello_that_is_encrypted_is_answered_as_by_a_server_that_cannot_do_that() {
    let stage = Stage { unread: Unread::Block, ..Stage::new() };
    let address = serve(stage.root.server("site.example", &[]), |_| async {}).await;
    for hello in [
        &include_bytes!("../../../tests/hello/rustls-ech.bin")[..],
        include_bytes!("../../../tests/hello/rustls-post-quantum.bin"),
    ] {
        let Opened { mut client, .. } = stage.open(address, &[]).await.unwrap();
        client.write_all(hello).await.unwrap();
        assert_eq!(within(client.read_u8()).await.unwrap(), 22, "a handshake message, no alert");
    }
}

#[tokio::test]
async fn a_client_without_a_name_gets_a_certificate_for_the_address() {
    let stage = Stage { name: None, ..Stage::new() };
    let address = serve(stage.root.server("127.0.0.1", &[]), |mut stream| async move {
        let _ = stream.read_u8().await;
    })
    .await;
    let opened = stage.open(address, &[]).await.unwrap();
    let authority = stage.authority.certificate().der().clone();
    within(super::stage::handshake_for("127.0.0.1", opened.client, &authority, &[])).await.unwrap();

    let address = serve(stage.root.server("site.example", &[]), |_| async {}).await;
    let subject = stage.subject(address, &[], Some(Protocol::Tls));
    let dialled = subject.dial(TcpStream::connect(address).await.unwrap()).await;
    assert!(matches!(dialled, Dialled::Untrusted(_)), "the certificate is not for the address");
}

#[tokio::test]
async fn when_the_client_ends_its_connection_the_servers_ends() {
    for alpn in ["http/1.1", "h2"] {
        let stage = Stage::new();
        let (ended, mut ends) = tokio::sync::mpsc::channel(1);
        let config = stage.root.server("site.example", &[alpn]);
        let address = serve(config, move |stream| {
            let ended = ended.clone();
            async move {
                let stream = TokioIo::new(stream);
                let service = service_fn(|_| async { Ok::<_, hyper::Error>(http::Response::new(full("x"))) });
                if alpn == "h2" {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(stream, service).await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
                }
                ended.send(()).await.unwrap();
            }
        })
        .await;
        let opened = stage.open(address, &[alpn]).await.unwrap();
        let client = stage.handshake(opened.client, &[alpn]).await.unwrap();
        let request = Request::get("https://site.example/").body(full("")).unwrap();
        let response = match alpn {
            "h2" => http2(client).await.send_request(request).await.unwrap(),
            _ => http1(client).await.send_request(request).await.unwrap(),
        };
        assert_eq!(text(response).await, "x");
        within(opened.over).await.unwrap();
        within(ends.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_of_an_old_version_is_passed_on_the_next_time() {
    let stage = Stage::new();
    let address = serve(stage.root.server("site.example", &[]), |_| async {}).await;
    let Opened { mut client, mut reports, .. } = stage.open(address, &[]).await.unwrap();
    // TLS 1.0, one cipher, no extensions.
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    client.write_all(&[&[22, 3, 1, 0, message.len() as u8][..], &message].concat()).await.unwrap();
    assert!(matches!(event(&mut reports).await, Event::Failed { .. }));
    assert_eq!(stage.open(address, &[]).await.err(), Some(Why::Incompatible));
}
