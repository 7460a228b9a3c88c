use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, channel::Channel};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::stage::{Opened, Stage, event, full, har, http1, http2, serve, serve_http, text, within};
use crate::{
    open::{Begun, Dialled, Event, Inside, OpenFlow},
    rules::Protocol,
    tap::{self, FlowInfo, Tap},
};

#[tokio::test]
async fn a_head_has_a_length_and_no_body_and_its_answer_keeps_its_headers() {
    let stage = Stage::new();
    let address = serve(stage.root.server("site.example", &["http/1.1"]), |mut stream| async move {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        assert_eq!(asked, b"HEAD /x HTTP/1.1\r\nHoSt: site.example\r\nX-A: 1\r\nX-A: 2\r\n\r\n".as_slice());
        stream.write_all(b"HTTP/1.1 200 OK\r\nX-OwN: case\r\nContent-Length: 12345\r\n\r\n").await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let (mut client, _reports) = stage.client(address, &["http/1.1"]).await;
    client.write_all(b"HEAD /x HTTP/1.1\r\nHoSt: site.example\r\nX-A: 1\r\nX-A: 2\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1000];
    let length = within(client.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nX-OwN: case\r\nContent-Length: 12345\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_the_server() {
    for alpn in ["http/1.1", "h2"] {
        let stage = Stage::new();
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let address = serve_http(stage.root.server("site.example", &[alpn]), move |_| {
            let counter = Arc::clone(&counter);
            async move {
                let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
                tokio::spawn(async move {
                    while sender.send_data(Bytes::from(vec![7; 64 << 10])).await.is_ok() {
                        counter.fetch_add(64 << 10, Ordering::Relaxed);
                        if counter.load(Ordering::Relaxed) == WHOLE {
                            return;
                        }
                    }
                });
                Ok(Response::new(body.boxed()))
            }
        })
        .await;
        let (client, _reports) = stage.client(address, &[alpn]).await;
        let request = Request::get("https://site.example/").body(full("")).unwrap();
        let (mut one, mut two);
        let response = match alpn {
            "h2" => {
                one = http2(client).await;
                one.send_request(request).await.unwrap()
            }
            _ => {
                two = http1(client).await;
                two.send_request(request).await.unwrap()
            }
        };
        // It goes on until all buffers are full, and then it stands.
        let mut before = 0;
        let stands = async {
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let now = sent.load(Ordering::Relaxed);
                if now > 0 && now == before {
                    return now;
                }
                before = now;
            }
        };
        let stands = within(stands).await;
        assert!(stands < WHOLE / 2, "{alpn}: {stands} bytes were taken from the server for nobody");
        let body = within(response.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(body.len(), WHOLE, "{alpn}");
    }
}

#[tokio::test]
async fn rules_by_name_hold_for_what_is_inside() {
    for alpn in ["http/1.1", "h2"] {
        let stage = Stage { blocked_host: Some("bad.example"), ..Stage::new() };
        let address =
            serve_http(stage.root.server("site.example", &[alpn]), |_| async { Ok(Response::new(full("passed"))) })
                .await;
        let (client, mut reports) = stage.client(address, &[alpn]).await;
        let request = |host: &str| {
            let uri = if alpn == "h2" { format!("https://{host}/") } else { "/".into() };
            Request::get(uri).header("host", host).body(full("")).unwrap()
        };
        let mut answers = Vec::new();
        let (mut one, mut two) = match alpn {
            "h2" => (Some(http2(client).await), None),
            _ => (None, Some(http1(client).await)),
        };
        for host in ["Bad.Example:443", "site.example", "other.example"] {
            let response = match (&mut one, &mut two) {
                (Some(sender), _) => sender.send_request(request(host)).await.unwrap(),
                (_, Some(sender)) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request(host)).await.unwrap()
                }
                _ => unreachable!(),
            };
            answers.push(response.status().as_u16());
            text(response).await;
        }
        assert_eq!(answers, [403, 200, 200], "{alpn}");
        assert!(matches!(event(&mut reports).await, Event::Opened { .. }));
        assert!(matches!(event(&mut reports).await, Event::Refused { url, .. } if url.contains("ad.")));
    }
}

#[tokio::test]
async fn heads_that_are_too_long_are_refused() {
    let stage = Stage::new();
    let address =
        serve_http(stage.root.server("site.example", &["http/1.1"]), |_| async { panic!("it got through") }).await;
    let (client, _reports) = stage.client(address, &["http/1.1"]).await;
    let request = Request::get("/").header("x-long", "x".repeat(300 << 10)).body(full("")).unwrap();
    let response = within(http1(client).await.send_request(request)).await;
    assert_eq!(response.unwrap().status(), 431);
}

#[tokio::test]
async fn a_server_that_breaks_off_breaks_off_for_the_client() {
    let stage = Stage::new();
    let address = serve(stage.root.server("site.example", &["http/1.1"]), |mut stream| async move {
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
        stream.flush().await.unwrap();
    })
    .await;
    let (client, mut reports) = stage.client(address, &["http/1.1"]).await;
    let mut sender = http1(client).await;
    let response = within(sender.send_request(Request::get("/").body(full("")).unwrap())).await.unwrap();
    within(response.into_body().collect()).await.expect_err("it looks whole");
    assert_eq!(event(&mut reports).await, Event::Opened { inside: Inside::Http1 });
}

#[tokio::test]
async fn what_was_said_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.har");
    let stage = Stage::with(None, Some(har(&path)));
    let address = serve_http(stage.root.server("site.example", &["h2"]), |request| async move {
        let length = request.into_body().collect().await?.to_bytes().len();
        let body = if length == 0 { Bytes::from_static(&[0xff, 0xfe]) } else { vec![b'x'; 2 << 20].into() };
        let response = Response::builder().header("content-type", "image/x").header("location", "/elsewhere");
        Ok(response.header("set-cookie", "a=1; Path=/").header("set-cookie", "b=2").body(full(body)).unwrap())
    })
    .await;
    let (client, _reports) = stage.client(address, &["h2"]).await;
    let mut sender = http2(client).await;
    for body in ["", "name=value"] {
        let method = if body.is_empty() { Method::GET } else { Method::PUT };
        let request = Request::builder().method(method).uri("https://site.example/a?q=1&r").header("cookie", "c=3; d");
        let response = within(sender.send_request(request.body(full(body)).unwrap())).await.unwrap();
        within(response.into_body().collect()).await.unwrap();
    }
    let entries = within(async {
        loop {
            // It may be read in the middle of a write.
            let har: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap_or_default();
            match har["log"]["entries"].as_array() {
                Some(entries) if entries.len() == 2 => return entries.clone(),
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let [first, second] = &entries[..] else { panic!() };
    assert_eq!(first["request"]["url"], "https://site.example/a?q=1&r");
    assert_eq!(first["request"]["queryString"].to_string(), r#"[{"name":"q","value":"1"},{"name":"r","value":""}]"#);
    assert_eq!(first["request"]["cookies"][0].to_string(), r#"{"name":"c","value":"3"}"#);
    assert_eq!(first["request"].get("postData"), None);
    assert_eq!(first["response"]["cookies"][1].to_string(), r#"{"name":"b","value":"2"}"#);
    assert_eq!(first["response"]["redirectURL"], "/elsewhere");
    let content = &first["response"]["content"];
    assert_eq!((&content["text"], &content["encoding"]), (&"//4=".into(), &"base64".into()));
    assert_eq!((&content["size"], content.get("comment")), (&2.into(), None));
    assert_eq!(first["serverIPAddress"], "127.0.0.1");
    assert_eq!(first["_carnet"]["exe"], "/usr/bin/client");
    assert_eq!(second["request"]["postData"]["text"], "name=value");
    assert_eq!(second["request"]["bodySize"], 10);
    let content = &second["response"]["content"];
    assert_eq!((&content["size"], content["text"].as_str().unwrap().len()), (&(2 << 20).into(), 1 << 20));
    assert_eq!(content["comment"], "the first 1048576 of 2097152 bytes");
}

#[tokio::test]
async fn a_request_has_one_length_for_the_server() {
    let stage = Stage::new();
    let address = serve(stage.root.server("site.example", &["http/1.1"]), |mut stream| async move {
        let mut asked = Vec::new();
        while !asked.ends_with(b"0\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        let asked = String::from_utf8(asked).unwrap().to_ascii_lowercase();
        let lengths = asked.matches("content-length").count() + asked.matches("transfer-encoding").count();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{lengths}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let (mut client, _reports) = stage.client(address, &["http/1.1"]).await;
    let request = "POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(format!("{request}3\r\nabc\r\n0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("\r\n\r\n1") || answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_tap_has_what_is_inside() {
    let stage = Stage::new();
    let path = stage.authority.folder().join("flows.pcapng");
    let tap = Tap::create(&path, tap::Options::default(), |stopped| panic!("{stopped}")).unwrap();
    let address = serve_http(stage.root.server("site.example", &["http/1.1"]), |_| async {
        Ok(Response::new(full("an answer")))
    })
    .await;
    let info = FlowInfo {
        id: 7,
        source: "192.0.2.1:1".parse().unwrap(),
        destination: address,
        name: None,
        pid: 1,
        comm: "client",
        exe: None,
        uid: 0,
        services: &[],
    };
    let subject = stage.subject(address, &["http/1.1"], Some(Protocol::Tls));
    let Dialled::Verified(stream) = subject.dial(TcpStream::connect(address).await.unwrap()).await else { panic!() };
    let flow = OpenFlow { subject, begun: Begun::Tls(stream), tap: Some(Box::new(tap.flow(&info))) };
    let opened = Opened::begin(flow).await;
    let client = stage.handshake(opened.client, &["http/1.1"]).await.unwrap();
    let mut sender = http1(client).await;
    let request = Request::get("/question").header("connection", "close").body(full("")).unwrap();
    assert_eq!(text(within(sender.send_request(request)).await.unwrap()).await, "an answer");
    drop(sender);
    within(opened.over).await.unwrap();
    drop(tap);
    let bytes = std::fs::read(&path).unwrap();
    for words in ["GET /question HTTP/1.1", "an answer"] {
        assert!(bytes.windows(words.len()).any(|window| window == words.as_bytes()), "{words}");
    }
}

const WHOLE: usize = 64 << 20;
