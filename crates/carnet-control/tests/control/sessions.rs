//! A registration lives exactly as long as its connection.

use std::{sync::Arc, time::Duration};

use carnet_control::{
    Client, ControlSocket, Event, FlowLine, Limits, ProblemKind, Server, SessionEnd, SessionId, SessionLine,
    SessionNews, SessionRequest,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{Notify, broadcast},
};

use crate::{
    memory::{KEPT, Memory, event, flow},
    raw,
    scene::{Scene, own_access, provider, registration, soon},
};

#[tokio::test]
async fn dropping_the_session_ends_it_once() {
    let mut scene = Scene::new();
    let client = scene.client().await;
    let session = client.session(&registration("dlp", 10), &[]).await.unwrap();
    assert_eq!(session.registered().providers[0].handle, 100);
    assert_eq!(client.providers().await.unwrap()[0].session, Some(session.registered().session));

    drop(session);
    assert_eq!(scene.ended(1).await, [1]);
    assert_eq!(scene.last_end(), Some(SessionEnd::ClientGone));
    assert_eq!(client.providers().await.unwrap(), []);
    scene.stop().await;
    assert_eq!(scene.ended(1).await, [1], "not a second time");
}

#[tokio::test]
async fn a_session_is_told_what_concerns_it() {
    let scene = Scene::new();
    let mut session = scene.client().await.session(&registration("dlp", 10), &[]).await.unwrap();
    let told = event("a process that is not dlp listens on its port");
    scene.backend.state(|state| state.sessions.values().next().unwrap().news.send(news(&told))).unwrap();
    assert_eq!(soon("the event", session.next()).await.unwrap(), Some(SessionLine::Event(told)));
}

#[tokio::test]
async fn a_session_that_the_daemon_ends_says_so() {
    let scene = Scene::new();
    let mut session = scene.client().await.session(&registration("dlp", 10), &[]).await.unwrap();
    // The sender of its news goes.
    scene.backend.state(|state| state.sessions.clear());
    assert!(matches!(soon("the end", session.next()).await.unwrap(), Some(SessionLine::Closing { .. })));
    assert_eq!(soon("the end", session.next()).await.unwrap(), None);
    assert_eq!(scene.ended(1).await, [1]);
    assert_eq!(scene.last_end(), Some(SessionEnd::Backend));
}

#[tokio::test]
async fn the_daemon_says_why_it_ends_a_session() {
    let scene = Scene::new();
    let mut session = scene.client().await.session(&registration("dlp", 10), &[]).await.unwrap();
    let told = event("before");
    scene.backend.state(|state| {
        let sender = &state.sessions[&session.registered().session].news;
        sender.send(news(&told)).unwrap();
        sender.send(SessionNews::End("the policy has a provider \"dlp\" now".into())).unwrap();
        sender.send(news(&event("never told"))).unwrap();
    });
    assert_eq!(soon("the event", session.next()).await.unwrap(), Some(SessionLine::Event(told)));
    let reason = "the policy has a provider \"dlp\" now".into();
    assert_eq!(soon("the end", session.next()).await.unwrap(), Some(SessionLine::Closing { reason }));
    assert_eq!(soon("the end", session.next()).await.unwrap(), None);
    assert_eq!(scene.ended(1).await, [1]);
    assert_eq!(scene.last_end(), Some(SessionEnd::Backend));
}

#[tokio::test]
async fn a_session_has_several_providers_in_their_order() {
    let scene = Scene::new();
    let client = scene.client().await;
    let providers = vec![provider("first", None), provider("second", Some(7))];
    let session = client.session(&SessionRequest { providers, ..SessionRequest::default() }, &[]).await.unwrap();
    let expected = [("first", 100, 1000), ("second", 101, 7)];
    let registered = session.registered().providers.iter().map(|it| (&it.name[..], it.handle, it.rank));
    assert_eq!(registered.collect::<Vec<_>>(), expected);
    assert_eq!(session.registered().filters, 2, "of both");
    drop(session);
    assert_eq!(scene.ended(1).await, [1], "together");
}

#[tokio::test]
async fn a_session_is_told_the_flows_of_its_providers_where_it_asks_for_them() {
    let scene = Scene::new();
    let client = scene.client().await;
    let asks = SessionRequest { flows: true, ..registration("dlp", 10) };
    let mut session = client.session(&asks, &[]).await.unwrap();
    let mut other = client.session(&registration("av", 11), &[]).await.unwrap();
    let warning = FlowLine::Warning { message: "mind the gap".into() };
    let told = event("at last");
    scene.backend.state(|state| {
        for registration in state.sessions.values() {
            for line in [FlowLine::Flow(flow(1).into()), warning.clone()] {
                // Nobody has it where it is not told.
                let _ = registration.flows.send(line.into());
            }
        }
    });
    assert_eq!(soon("a flow", session.next()).await.unwrap(), Some(SessionLine::Flow(flow(1).into())));
    let message = "mind the gap".into();
    assert_eq!(soon("a warning", session.next()).await.unwrap(), Some(SessionLine::Warning { message }));

    // The end of the flows is not the session's.
    scene.backend.state(|state| {
        for registration in state.sessions.values_mut() {
            registration.flows = broadcast::Sender::new(1);
            registration.news.send(news(&told)).unwrap();
        }
    });
    for session in [&mut session, &mut other] {
        assert_eq!(soon("the event", session.next()).await.unwrap(), Some(SessionLine::Event(told.clone())));
    }
}

#[tokio::test]
async fn a_session_is_told_how_many_flows_it_has_lost() {
    let scene = Scene::new();
    let asks = SessionRequest { flows: true, ..registration("dlp", 10) };
    let mut session = scene.client().await.session(&asks, &[]).await.unwrap();
    // The server does not run meanwhile: there is one thread.
    scene.backend.state(|state| {
        let flows = &state.sessions[&session.registered().session].flows;
        (0..KEPT as u32 + 36)
            .for_each(|number| assert!(flows.send(FlowLine::Flow(flow(number).into()).into()).is_ok()));
    });
    assert_eq!(soon("a line", session.next()).await.unwrap(), Some(SessionLine::Lost { lost: 36 }));
    assert_eq!(soon("a line", session.next()).await.unwrap(), Some(SessionLine::Flow(flow(36).into())));
}

#[tokio::test]
async fn a_session_whose_server_is_dropped_was_not_ended_by_its_caller() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let backend = Memory::new();
    let server = Server::new(ControlSocket::bind(&path).unwrap(), Arc::clone(&backend), own_access());
    let server = tokio::spawn(server.run(std::future::pending()));
    let client = Client::connect(&path).await.unwrap();
    let _session = client.session(&registration("dlp", 10), &[]).await.unwrap();
    server.abort();
    soon("the end", async {
        while backend.state(|state| state.ended.is_empty()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(backend.state(|state| state.ended.clone()), [(SessionId(1), SessionEnd::DaemonEnding)]);
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
    let mut ended = scene.backend.state(|state| state.ended.iter().map(|(session, _)| session.0).collect::<Vec<_>>());
    let ends = scene.backend.state(|state| state.ended.iter().map(|(_, end)| *end).collect::<Vec<_>>());
    assert!(ends.iter().all(|end| *end == SessionEnd::DaemonEnding), "{ends:?}");
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
    assert_eq!(scene.last_end(), Some(SessionEnd::ClientGone));
    assert_eq!(scene.backend.state(|state| state.begun), 1);
}

#[tokio::test]
async fn a_session_that_begins_when_the_server_has_ended_was_not_ended_by_its_caller() {
    let drain = Duration::from_millis(50);
    let mut scene = Scene::with_limits(Limits { drain, ..Limits::default() });
    let gate = Arc::new(Notify::new());
    *scene.backend.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let client = scene.client().await;
    let asking = tokio::spawn(async move { client.session(&registration("dlp", 10), &[]).await });
    soon("begin_session()", async {
        while Arc::strong_count(&gate) < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    scene.stop().await;
    gate.notify_one();
    assert_eq!(scene.ended(1).await, [1]);
    assert_eq!(scene.last_end(), Some(SessionEnd::DaemonEnding));
    assert!(soon("the answer", asking).await.unwrap().is_err());
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
        "providers": [{
            "name": "dlp", "rank": 10, "listen": "127.0.0.1:15001", "records": "unaware", "on-dead": "open", "direct": true,
            "reach": "anywhere", "sockname": "destination", "in-flight-limit": 100,
            "owner": [{"cgroup": "/system.slice/dlp.service"}, {"uid": "dlp"}],
        "filters": [{
            "name": "web", "weight": 200, "action": "redirect", "context": "site=hq",
            "match": {
                "protocol": "tcp", "remote": ["192.0.2.0/24", "@office"], "remote-port": [80, "8000-8999"], "uid": "alice",
                "gid": 100, "exe": "/usr/bin/curl", "cgroup": "/user.slice", "netns": "blue", "via": "av",
                "not-protocol": "udp", "not-remote": "192.0.2.7", "not-remote-port": 8080, "not-uid": [0, "bob"],
                "not-gid": 7, "not-exe": "/bin/nc", "not-cgroup": "/init.scope", "not-netns": "red", "not-via": "vpn"
            }
        }, {"action": "redirect", "context-base64": "AAEC"}]
        }],
        "filters": [{"action": "permit", "match": {"remote": "::1"}}], "flows": true
    }"#;
    let request: SessionRequest = serde_json::from_str(body).unwrap();
    let written = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<SessionRequest>(&written).unwrap(), request);
    let session = scene.client().await.session(&request, &[]).await.unwrap();
    assert_eq!(session.registered().filters, 3);
}

#[tokio::test]
async fn an_empty_session_is_refused() {
    let scene = Scene::new();
    let error = scene.client().await.session(&SessionRequest::default(), &[]).await.unwrap_err();
    assert_eq!(error.problem().unwrap().kind, ProblemKind::Malformed);
}

fn news(event: &Event) -> SessionNews {
    SessionNews::Event(event.clone().into())
}

#[tokio::test]
async fn a_field_that_nobody_knows_is_named() {
    let scene = Scene::new();
    let cases = [
        (r#"{"filtres": []}"#, "unknown field `filtres`", Some("did you mean `filters`?")),
        ("{\n \"providers\": [{\"name\": \"a\", \"rnak\": 1}]}", "unknown field `rnak`", Some("did you mean `rank`?")),
        (r#"{"filters": [{"action": "redirekt"}]}"#, "unknown variant `redirekt`", Some("did you mean `redirect`?")),
        (
            r#"{"filters": [{"match": {"remote_port": [1]}}]}"#,
            "unknown field `remote_port`",
            Some("did you mean `remote-port`?"),
        ),
        (r#"{"filters": [{"weight": 1}]}"#, "missing field `action`", None),
        (r#"{"filters": [{"action": "block", "match": {"uid": [1.5]}}]}"#, "expected a number or a name", None),
        (r#"{"filters": [{"action": "block", "match": {"not-uid": []}}]}"#, "the list is empty", None),
        (r#"{"providers": [{"name": "a", "rank": 1, "listen": "here"}]}"#, "invalid socket address", None),
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
    assert_eq!((mistake.line, mistake.column), (2, 35));
}
