//! What one caller cannot take from others.

use std::time::Duration;

use carnet_control::{Access, Identities, Limits, ProblemKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
};

use crate::{
    access::curl_as_stranger,
    raw,
    scene::{Scene, registration, soon, stranger},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_are_served_at_once() {
    let scene = Scene::with_limits(Limits { connections_per_uid: 300, ..Limits::default() });
    let client = scene.client().await;
    let mut sessions = JoinSet::new();
    for rank in 0..200 {
        let client = client.clone();
        sessions.spawn(async move { client.session(&registration(&format!("p{rank}"), rank), &[]).await.unwrap() });
    }
    let sessions = soon("200 sessions", sessions.join_all()).await;
    assert_eq!(client.status().await.unwrap().sessions, 200);
    drop(sessions);
    let mut ended = scene.ended(200).await;
    ended.sort();
    assert_eq!(ended, (1..=200).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let scene = Scene::new();
    for (method, path, length) in [
        ("PUT", "/v1/policy", (64 << 20) + 1),
        ("PUT", "/v1/policy", u64::MAX - 2),
        ("POST", "/v1/session", (1 << 20) + 1),
        ("GET", "/v1/status", (1 << 20) + 1),
    ] {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: c\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
        let answer = raw::send(&scene.socket(), head.as_bytes()).await;
        assert_eq!(answer.status, 413, "{head}: {}", answer.head);
        assert_eq!(answer.problem().kind, ProblemKind::TooLarge);
    }
}

#[tokio::test]
async fn what_does_not_say_that_it_is_too_large_is_refused_too() {
    let scene = Scene::new();
    let mut stream = UnixStream::connect(scene.socket()).await.unwrap();
    let head = b"POST /v1/session HTTP/1.1\r\nhost: c\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let chunk = [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat();
    // All of it: what is not wanted is thrown away for a while, so that the answer is seen.
    for _ in 0..32 {
        stream.write_all(&chunk).await.unwrap();
    }
    assert_eq!(raw::read(&mut stream).await.status, 413);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let scene = Scene::new();
    let long = format!("GET /v1/status HTTP/1.1\r\nhost: c\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET /v1/status HTTP/1.1\r\nhost: c\r\n{}\r\n", "x: y\r\n".repeat(100));
    let path = format!("GET /{} HTTP/1.1\r\nhost: c\r\n\r\n", "x".repeat(100_000));
    for head in [long, many, path] {
        let answer = raw::send(&scene.socket(), head.as_bytes()).await;
        assert_eq!(answer.problem().kind, ProblemKind::HeadTooLarge, "{}", answer.head);
    }
}

#[tokio::test]
async fn a_slow_sender_is_not_waited_for() {
    let limits = Limits {
        head_timeout: Duration::from_millis(100),
        body_timeout: Duration::from_millis(100),
        linger: Duration::from_millis(100),
        ..Limits::default()
    };
    let scene = Scene::with_limits(limits);
    for head in ["", "GET /v1/sta", "GET /v1/status HTTP/1.1\r\nhost: c\r\n"] {
        let mut stream = UnixStream::connect(scene.socket()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        soon("the end of the connection", stream.read_to_end(&mut rest)).await.unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
    }

    let mut stream = UnixStream::connect(scene.socket()).await.unwrap();
    stream.write_all(b"POST /v1/session HTTP/1.1\r\nhost: c\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    let answer = raw::read(&mut stream).await;
    assert_eq!(answer.problem().kind, ProblemKind::Slow);
    let mut rest = Vec::new();
    soon("the end of the connection", stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn a_session_is_not_idle() {
    let short = Duration::from_millis(50);
    let limits = Limits { head_timeout: short, body_timeout: short, write_timeout: short, ..Limits::default() };
    let scene = Scene::with_limits(limits);
    let _session = scene.client().await.session(&registration("dlp", 10), &[]).await.unwrap();
    // An idle connection that came later has been closed.
    let mut idle = UnixStream::connect(scene.socket()).await.unwrap();
    soon("the end of the idle connection", idle.read_to_end(&mut Vec::new())).await.unwrap();
    tokio::time::sleep(2 * short).await;
    assert_eq!(scene.backend.state(|state| state.ended.len()), 0);
}

#[tokio::test]
async fn who_does_not_read_an_answer_loses_the_connection() {
    let short = Duration::from_millis(100);
    let scene = Scene::with_limits(Limits {
        write_timeout: short,
        linger: short,
        connections: 1,
        reserved: 0,
        ..Limits::default()
    });
    scene.backend.state(|state| state.policy = "# large\n".repeat(1 << 20));
    let mut deaf = UnixStream::connect(scene.socket()).await.unwrap();
    deaf.write_all(b"GET /v1/policy HTTP/1.1\r\nhost: c\r\n\r\n").await.unwrap();
    deaf.readable().await.unwrap();
    // Its place is the only one.
    soon("its place to be free", async {
        while raw::ask(&scene.socket(), "GET", "/v1/status", "", b"").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let scene = Scene::with_limits(Limits { connections: 3, reserved: 0, ..Limits::default() });
    let client = scene.client().await;
    let mut sessions = Vec::new();
    // connect() has left a connection that may not have gone yet.
    soon("three places", async {
        while sessions.len() < 3 {
            match client.session(&registration("dlp", 10), &[]).await {
                Ok(session) => sessions.push(session),
                Err(error) => assert_eq!(error.problem().unwrap().kind, ProblemKind::Unavailable),
            }
        }
    })
    .await;
    for _ in 0..100 {
        let answer = raw::ask(&scene.socket(), "GET", "/v1/status", "", b"").await;
        assert_eq!(answer.problem().kind, ProblemKind::Unavailable);
    }
    sessions.pop();
    scene.ended(1).await;
    soon("a place", async {
        while client.status().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_does_not_take_the_places_of_others() {
    let read = Identities { uids: [stranger()].into(), ..Identities::default() };
    let limits = Limits { connections_per_uid: 0, ..Limits::default() };
    let scene = Scene::with(limits, Access { read: read.clone(), ..Access::default() });
    assert_eq!(curl_as_stranger(&scene.socket(), "GET", "/v1/status").await.0, 503);

    let limits = Limits { connections: 10, reserved: 10, ..Limits::default() };
    let scene = Scene::with(limits, Access { read, ..Access::default() });
    assert_eq!(curl_as_stranger(&scene.socket(), "GET", "/v1/status").await.0, 503);
}
