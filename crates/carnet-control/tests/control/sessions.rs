//! A registration lives exactly as long as its connection.

use std::sync::Arc;

use carnet_control::{ProblemKind, SessionLine, SessionRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Notify,
};

use crate::{
    memory::event,
    raw,
    scene::{Scene, registration, soon},
};

#[tokio::test]
async fn dropping_the_session_ends_it_once() {
    let mut scene = Scene::new();
    let client = scene.client().await;
    let session = client.session(&registration("dlp", 10), &[]).await.unwrap();
    assert_eq!(session.registered().handle, Some(101));
    assert_eq!(client.providers().await.unwrap()[0].session, Some(session.registered().session));

    drop(session);
    assert_eq!(scene.ended(1).await, [1]);
    assert_eq!(client.providers().await.unwrap(), []);
    scene.stop().await;
    assert_eq!(scene.ended(1).await, [1], "not a second time");
}

#[tokio::test]
async fn a_session_is_told_what_concerns_it() {
    let scene = Scene::new();
    let mut session = scene.client().await.session(&registration("dlp", 10), &[]).await.unwrap();
    let told = event("a process that is not dlp listens on its port");
    scene.backend.state(|state| state.sessions.values().next().unwrap().events.send(told.clone().into())).unwrap();
    assert_eq!(soon("the event", session.next()).await.unwrap(), Some(SessionLine::Event(told)));
}

#[tokio::test]
async fn a_session_that_the_daemon_ends_says_so() {
    let scene = Scene::new();
    let mut session = scene.client().await.session(&registration("dlp", 10), &[]).await.unwrap();
    // The sender of its events goes.
    scene.backend.state(|state| state.sessions.clear());
    assert!(matches!(soon("the end", session.next()).await.unwrap(), Some(SessionLine::Closing { .. })));
    assert_eq!(soon("the end", session.next()).await.unwrap(), None);
    assert_eq!(scene.ended(1).await, [1]);
}

#[tokio::test]
async fn all_sessions_have_ended_when_the_server_has() {
    let mut scene = Scene::new();
    let client = scene.client().await;
    let mut sessions = Vec::new();
    for rank in 0..20 {
        sessions.push(client.session(&registration("p", rank), &[]).await.unwrap());
    }
    scene.stop().await;
    let mut ended = scene.backend.state(|state| state.ended.iter().map(|session| session.0).collect::<Vec<_>>());
    ended.sort();
    assert_eq!(ended, (1..=20).collect::<Vec<_>>());
    let line = soon("the last line", sessions[0].next()).await.unwrap();
    assert!(matches!(line, Some(SessionLine::Closing { reason }) if reason.contains("ending")));
}

#[tokio::test]
async fn who_goes_before_the_session_began_has_none() {
    let scene = Scene::new();
    let gate = Arc::new(Notify::new());
    *scene.backend.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let body = serde_json::to_vec(&registration("dlp", 10)).unwrap();
    let head = format!("POST /v1/session HTTP/1.1\r\nhost: carnet\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = UnixStream::connect(scene.socket()).await.unwrap();
    stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    // The backend is at it; then the caller goes; then the backend has done it.
    soon("begin_session()", async {
        while Arc::strong_count(&gate) < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(stream);
    gate.notify_one();
    assert_eq!(scene.ended(1).await, [1]);
    assert_eq!(scene.backend.state(|state| state.begun), 1);
}

#[tokio::test]
async fn a_request_behind_a_session_does_not_hide_its_end() {
    let scene = Scene::new();
    let body = serde_json::to_string(&registration("dlp", 10)).unwrap();
    let length = body.len();
    let request = format!(
        "POST /v1/session HTTP/1.1\r\nhost: carnet\r\ncontent-length: {length}\r\n\r\n{body}GET /v1/status HTTP/1.1\r\n\r\n"
    );
    let mut stream = UnixStream::connect(scene.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    soon("the answer", stream.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    drop(stream);
    assert_eq!(scene.ended(1).await, [1]);
}

#[tokio::test]
async fn a_connection_that_is_half_closed_ends_its_session() {
    let scene = Scene::new();
    let body = serde_json::to_string(&registration("dlp", 10)).unwrap();
    let length = body.len();
    let request = format!("POST /v1/session HTTP/1.1\r\nhost: carnet\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut stream = UnixStream::connect(scene.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(scene.ended(1).await, [1]);
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(raw::find(&answer, b"\r\n0\r\n\r\n").is_some(), "it is a whole answer");
}

#[tokio::test]
async fn a_registration_says_all_that_the_policy_file_can_say() {
    let scene = Scene::new();
    let body = r#"{
        "provider": {
            "name": "dlp", "rank": 10, "listen": "127.0.0.1:15001", "records": "unaware", "on-dead": "open", "direct": true,
            "reach": "anywhere", "sockname": "destination", "in-flight-limit": 100,
            "owner": [{"cgroup": "/system.slice/dlp.service"}, {"uid": "dlp"}]
        },
        "filters": [{
            "name": "web", "weight": 200, "action": "redirect", "context": "site=hq",
            "match": {
                "protocol": "tcp", "remote": ["192.0.2.0/24", "@office"], "remote-port": [80, "8000-8999"], "uid": "alice",
                "gid": 100, "exe": "/usr/bin/curl", "cgroup": "/user.slice", "netns": "blue", "via": "av",
                "not-protocol": "udp", "not-remote": "192.0.2.7", "not-remote-port": 8080, "not-uid": [0, "bob"],
                "not-gid": 7, "not-exe": "/bin/nc", "not-cgroup": "/init.scope", "not-netns": "red", "not-via": "vpn"
            }
        }, {"action": "redirect", "context-base64": "AAEC"}]
    }"#;
    let request: SessionRequest = serde_json::from_str(body).unwrap();
    let written = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<SessionRequest>(&written).unwrap(), request);
    let session = scene.client().await.session(&request, &[]).await.unwrap();
    assert_eq!(session.registered().filters, 2);
}

#[tokio::test]
async fn an_empty_session_is_refused() {
    let scene = Scene::new();
    let error = scene.client().await.session(&SessionRequest::default(), &[]).await.unwrap_err();
    assert_eq!(error.problem().unwrap().kind, ProblemKind::Malformed);
}

#[tokio::test]
async fn a_field_that_nobody_knows_is_named() {
    let scene = Scene::new();
    let cases = [
        (r#"{"filtres": []}"#, "unknown field `filtres`", Some("did you mean `filters`?")),
        ("{\n \"provider\": {\"name\": \"a\", \"rnak\": 1}}", "unknown field `rnak`", Some("did you mean `rank`?")),
        (r#"{"filters": [{"action": "redirekt"}]}"#, "unknown variant `redirekt`", Some("did you mean `redirect`?")),
        (
            r#"{"filters": [{"match": {"remote_port": [1]}}]}"#,
            "unknown field `remote_port`",
            Some("did you mean `remote-port`?"),
        ),
        (r#"{"filters": [{"weight": 1}]}"#, "missing field `action`", None),
        (r#"{"filters": [{"action": "block", "match": {"uid": [1.5]}}]}"#, "expected a number or a name", None),
        (r#"{"filters": [{"action": "block", "match": {"not-uid": []}}]}"#, "the list is empty", None),
        (r#"{"provider": {"name": "a", "rank": 1, "listen": "here"}}"#, "invalid socket address", None),
        ("{", "EOF", None),
        ("", "EOF", None),
    ];
    for (body, message, suggestion) in cases {
        let answer = raw::ask(&scene.socket(), "POST", "/v1/session", "", body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body}");
        let mistake = &answer.problem().mistakes[0];
        assert!(mistake.message.contains(message), "{body}: {mistake}");
        assert_eq!(mistake.suggestion.as_deref(), suggestion, "{body}");
        assert!(mistake.line > 0, "{body}: {mistake}");
    }
    let answer = raw::ask(&scene.socket(), "POST", "/v1/session", "", cases[1].0.as_bytes()).await;
    let mistake = &answer.problem().mistakes[0];
    assert_eq!((mistake.line, mistake.column), (2, 33));
}
