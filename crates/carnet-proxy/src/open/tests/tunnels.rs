use http::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{Stage, event, full, http1, http2, serve, serve_http, text, within};
use crate::{
    open::{Event, Inside, Why},
    rules::Unread,
};

#[tokio::test]
async fn what_is_no_http_is_passed_on_as_it_is() {
    let stage = Stage::new();
    // In one of them the server speaks first, in the other one the client.
    for server_first in [true, false] {
        let address = serve(stage.root.server("site.example", &[]), move |mut stream| async move {
            if server_first {
                stream.write_all(b"220 ready\r\n").await.unwrap();
                stream.flush().await.unwrap();
            }
            let mut said = [0; 10];
            stream.read_exact(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .await;
        let (mut client, mut reports) = stage.client(address, &[]).await;
        if server_first {
            let mut greeting = [0; 11];
            within(client.read_exact(&mut greeting)).await.unwrap();
            assert_eq!(&greeting, b"220 ready\r\n");
        }
        client.write_all(b"USER alice").await.unwrap();
        client.write_all(b"\r\n").await.unwrap();
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"USER alice");
        assert_eq!(event(&mut reports).await, Event::Unread { why: Why::NotHttp, passed: true });
        assert_eq!(event(&mut reports).await, Event::Opened { inside: Inside::Bytes });
    }
}

#[tokio::test]
async fn where_all_is_to_be_read_what_is_no_http_is_refused() {
    let stage = Stage { unread: Unread::Block, ..Stage::new() };
    let address = serve(stage.root.server("site.example", &[]), |mut stream| async move {
        let _ = stream.write_all(b"220 ready\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let (mut client, mut reports) = stage.client(address, &[]).await;
    let mut answer = Vec::new();
    within(client.read_to_end(&mut answer)).await.expect_err("a reset");
    assert_eq!(answer, b"");
    assert_eq!(event(&mut reports).await, Event::Unread { why: Why::NotHttp, passed: false });
}

#[tokio::test]
async fn http_that_is_upgraded_is_a_tunnel() {
    let stage = Stage::new();
    let address = serve_http(stage.root.server("site.example", &["http/1.1"]), echo_after_upgrade).await;
    let (client, mut reports) = stage.client(address, &["http/1.1"]).await;
    let request = Request::get("/chat").header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "websocket");
    let mut sender = http1(client).await;
    let response = within(sender.send_request(request.body(full("")).unwrap())).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-accept"], "yes");
    let mut upgraded = TokioIo::new(within(hyper::upgrade::on(response)).await.unwrap());
    upgraded.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    within(upgraded.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"hello");
    assert_eq!(event(&mut reports).await, Event::Opened { inside: Inside::Http1 });
    assert_eq!(event(&mut reports).await, Event::Unread { why: Why::Tunnel, passed: true });
}

#[tokio::test]
async fn where_all_is_to_be_read_there_are_no_tunnels() {
    let stage = Stage { unread: Unread::Block, ..Stage::new() };
    let address = serve_http(stage.root.server("site.example", &["http/1.1"]), echo_after_upgrade).await;
    let (client, mut reports) = stage.client(address, &["http/1.1"]).await;
    let request = Request::get("/chat").header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "websocket");
    let mut sender = http1(client).await;
    let response = within(sender.send_request(request.body(full("")).unwrap())).await.unwrap();
    assert_eq!((response.status().as_u16(), &*text(response).await), (200, "as ever"));
    let request = Request::connect("other.example:443").body(full("")).unwrap();
    sender.ready().await.unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(event(&mut reports).await, Event::Opened { inside: Inside::Http1 });
    for _ in 0..2 {
        assert_eq!(event(&mut reports).await, Event::Unread { why: Why::Tunnel, passed: false });
    }
}

#[tokio::test]
async fn connect_is_a_tunnel_in_both_versions() {
    for alpn in ["http/1.1", "h2"] {
        let stage = Stage::new();
        let address = serve_http(stage.root.server("site.example", &[alpn]), echo_after_upgrade).await;
        let (client, _reports) = stage.client(address, &[alpn]).await;
        let request = Request::connect("other.example:443").body(full("")).unwrap();
        let response = match alpn {
            "h2" => within(http2(client).await.send_request(request)).await.unwrap(),
            _ => within(http1(client).await.send_request(request)).await.unwrap(),
        };
        assert_eq!(response.status(), 200, "{alpn}");
        let mut upgraded = TokioIo::new(within(hyper::upgrade::on(response)).await.unwrap());
        upgraded.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        within(upgraded.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"hello", "{alpn}");
    }
}

/// Sends back what comes after an upgrade or a CONNECT.
async fn echo_after_upgrade(mut request: Request<hyper::body::Incoming>) -> Result<super::stage::Answer, hyper::Error> {
    let is_connect = request.method() == http::Method::CONNECT;
    if !is_connect && !request.headers().contains_key(header::UPGRADE) {
        return Ok(Response::new(full("as ever")));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(&said).await.unwrap();
        stream.flush().await.unwrap();
        let _ = stream.read(&mut said).await;
    });
    if is_connect {
        return Ok(Response::new(full("")));
    }
    let response = Response::builder().status(101).header(header::CONNECTION, "Upgrade");
    let response = response.header(header::UPGRADE, "websocket").header("Sec-WebSocket-Accept", "yes");
    Ok(response.body(full("")).unwrap())
}
