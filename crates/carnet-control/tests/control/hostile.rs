//! Bytes of those who mean no request.

use std::{path::PathBuf, time::Duration};

use carnet_control::Problem;
use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Runtime,
    time::timeout,
};

use crate::{
    raw::{self, find},
    scene::{Scene, registration},
};

#[tokio::test]
async fn what_is_no_request_is_answered_with_a_problem() {
    let scene = Scene::new();
    for (text, status) in [
        ("hello\r\n\r\n", 400),
        ("\0\0\0\0\0\0\0\0\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", 400),
        ("GET /v1/status HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET /v1/status HTTP/9.9\r\nhost: c\r\n\r\n", 400),
        ("GET /v1/status?nonsense HTTP/1.1\r\nhost: c\r\n\r\n", 400),
        ("GET /v1/flows?follow=perhaps HTTP/1.1\r\nhost: c\r\n\r\n", 400),
        ("POST /v1/providers/%ff/release HTTP/1.1\r\nhost: c\r\n\r\n", 400),
        ("PUT /v1/policy HTTP/1.1\r\nhost: c\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        ("POST /v1/session HTTP/1.1\r\nhost: c\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ", 400),
        ("GET / HTTP/1.1\r\nhost: c\r\n\r\n", 404),
        ("GET /v1/status/ HTTP/1.1\r\nhost: c\r\n\r\n", 404),
        ("GET /v1/providers//hold HTTP/1.1\r\nhost: c\r\n\r\n", 404),
        ("DELETE /v1/policy HTTP/1.1\r\nhost: c\r\n\r\n", 405),
        ("POST /v1/session HTTP/1.1\r\nhost: c\r\ncontent-type: text/xml\r\ncontent-length: 2\r\n\r\n{}", 415),
        ("PUT /v1/policy HTTP/1.1\r\nhost: c\r\ncontent-length: 6\r\n\r\na\n\"\u{fffd}", 200),
    ] {
        let answer = raw::send(&scene.socket(), text.as_bytes()).await;
        assert_eq!(answer.status, status, "{text:?}: {}", answer.head);
        if status != 200 {
            answer.problem();
        }
    }
    let answer = raw::ask(&scene.socket(), "DELETE", "/v1/policy", "", b"").await;
    assert!(answer.head.contains("\r\nallow: get, put\r\n"), "{}", answer.head);
    let answer = raw::ask(&scene.socket(), "PUT", "/v1/policy", "", b"a\nb\xff").await;
    assert_eq!((answer.problem().mistakes[0].line, answer.problem().mistakes[0].column), (2, 2));
}

#[tokio::test]
async fn who_sends_a_request_and_its_end_gets_the_answer() {
    let scene = Scene::new();
    for _ in 0..50 {
        let mut stream = UnixStream::connect(scene.socket()).await.unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: c\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(raw::read(&mut stream).await.status, 200);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "nothing else comes");
    }
}

#[test]
fn any_bytes_end_in_a_refusal_or_in_the_end_of_the_connection() {
    let hostile = Hostile::new();
    proptest!(ProptestConfig::with_cases(300), |(bytes in vec(any::<u8>(), 0..2000))| {
        hostile.survives(&bytes);
    });
}

#[test]
fn any_change_to_a_request_ends_in_an_answer_or_in_the_end_of_the_connection() {
    let hostile = Hostile::new();
    let body = serde_json::to_string(&registration("dlp", 10)).unwrap();
    let length = body.len();
    let requests = [
        format!("POST /v1/session HTTP/1.1\r\nhost: carnet\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!(
            "POST /v1/session HTTP/1.1\r\nhost: carnet\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        ),
        "PUT /v1/policy?dry-run=true HTTP/1.1\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\na=1".into(),
        "GET /v1/status HTTP/1.1\r\nhost: carnet\r\n\r\nGET /v1/flows HTTP/1.1\r\n\r\n".into(),
        "POST /v1/providers/d%6cp/release HTTP/1.1\r\nhost: carnet\r\nexpect: 100-continue\r\n\r\n".into(),
    ];
    let change = (any::<prop::sample::Index>(), 0..4_usize, vec(any::<u8>(), 0..4));
    proptest!(
        ProptestConfig::with_cases(300),
        |(which in 0..requests.len(), changes in vec(change, 1..4))| {
            let mut bytes = requests[which].clone().into_bytes();
            for (place, removed, added) in changes {
                let start = place.index(bytes.len() + 1);
                let end = (start + removed).min(bytes.len());
                bytes.splice(start..end, added);
            }
            hostile.survives(&bytes);
        }
    );
}

struct Hostile {
    runtime: Runtime,
    scene: Scene,
    socket: PathBuf,
}

impl Hostile {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let scene = runtime.block_on(async { Scene::new() });
        Self { runtime, socket: scene.socket(), scene }
    }

    fn survives(&self, bytes: &[u8]) {
        let answer = self.runtime.block_on(async {
            let mut stream = UnixStream::connect(&self.socket).await.unwrap();
            let _ = stream.write_all(bytes).await;
            // Nothing more comes, whatever the bytes have announced.
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
            assert!(read.is_ok(), "the connection is still open");
            answer
        });
        if answer.starts_with(b"HTTP/1.1 4") {
            let body = &answer[find(&answer, b"\r\n\r\n").unwrap() + 4..];
            let first = serde_json::Deserializer::from_slice(body).into_iter::<Problem>().next();
            assert!(first.unwrap().is_ok(), "{}", String::from_utf8_lossy(&answer));
        } else {
            let good = answer.is_empty()
                || [&b"HTTP/1.1 200"[..], b"HTTP/1.1 100", b"HTTP/1.0 "].iter().any(|start| answer.starts_with(start));
            assert!(good, "{}", String::from_utf8_lossy(&answer));
        }
        let status = self.runtime.block_on(raw::ask(&self.socket, "GET", "/v1/status", "", b""));
        assert_eq!(status.status, 200);
        assert!(self.scene.backend.state(|state| state.begun >= state.ended.len() as u64));
    }
}
