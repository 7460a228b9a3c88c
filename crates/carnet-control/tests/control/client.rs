//! What the command does.

use std::{os::unix::net::UnixListener, sync::Arc, time::Duration};

use carnet_control::{
    Access, Client, ClientError, ControlSocket, FlowLine, Limits, PolicyRequest, Problem, ProblemKind, Role, Server,
};

use crate::{
    memory::{Memory, flow},
    raw,
    scene::{Scene, own_access, registration, soon, stranger},
};

#[tokio::test]
async fn each_question_has_its_answer() {
    let scene = Scene::new();
    let client = scene.client().await;
    assert_eq!(client.status().await.unwrap().pid, std::process::id());
    assert_eq!(client.providers().await.unwrap(), []);

    let applied = client.apply(policy("default = \"permit\"\n")).await.unwrap();
    assert!(applied.applied);
    assert_eq!(applied.policy.generation, 1);
    assert_eq!(client.policy().await.unwrap(), "default = \"permit\"\n");

    let removed = client.down().await.unwrap();
    assert_eq!(removed.removed, ["9 programs"]);
    soon("down()", scene.backend.down.notified()).await;
}

#[tokio::test]
async fn a_policy_replaces_only_the_one_that_was_meant() {
    let scene = Scene::new();
    let client = scene.client().await;
    client.apply(PolicyRequest { expected: Some(0), ..policy("# one") }).await.unwrap();
    let error = client.apply(PolicyRequest { expected: Some(0), ..policy("# two") }).await.unwrap_err();
    assert_eq!(error.problem().unwrap().kind, ProblemKind::Precondition);
    assert_eq!(client.policy().await.unwrap(), "# one");
    client.apply(PolicyRequest { expected: Some(1), ..policy("# two") }).await.unwrap();
    assert_eq!(client.policy().await.unwrap(), "# two");

    for (condition, status) in [("2", 200), ("\"3\"", 200), ("*", 200), ("\"3\"", 412), ("W/\"5\"", 400), ("", 400)] {
        let headers = format!("if-match: {condition}\r\n");
        let answer = raw::ask(&scene.socket(), "PUT", "/v1/policy", &headers, b"# three").await;
        assert_eq!(answer.status, status, "{condition}: {}", answer.head);
    }
}

#[tokio::test]
async fn the_daemon_reads_its_own_file_again() {
    let scene = Scene::new();
    assert!(scene.client().await.reload().await.unwrap().applied);
    assert_eq!(scene.backend.state(|state| state.reloaded), 1);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let scene = Scene::new();
    let client = scene.client().await;
    assert!(!client.apply(PolicyRequest { dry_run: true, ..policy("# nothing") }).await.unwrap().applied);
    assert_eq!(client.policy().await.unwrap(), "");
    assert!(scene.backend.state(|state| state.applied[0].1), "the backend was told that it is a dry run");
}

#[tokio::test]
async fn mistakes_in_a_policy_come_with_their_places() {
    let scene = Scene::new();
    let error = scene.client().await.apply(policy("rnak = 1")).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(problem.kind, ProblemKind::Mistakes);
    assert_eq!((problem.mistakes[0].line, problem.mistakes[0].column), (1, 1));
    let text = error.to_string();
    assert!(text.ends_with("line 1, column 1: unknown field `rnak`; did you mean `rank`?"), "{text}");
}

#[tokio::test]
async fn open_flows_are_told_one_a_line() {
    let scene = Scene::new();
    scene.backend.state(|state| state.open = (0..1000).map(flow).collect());
    let mut lines = scene.client().await.flows(false).await.unwrap();
    for number in 0..1000 {
        assert_eq!(lines.next().await.unwrap(), Some(FlowLine::Flow(flow(number).into())));
    }
    assert_eq!(lines.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_policy_of_many_megabytes_arrives() {
    let scene = Scene::new();
    let text = "# a million prefixes\n".repeat(1 << 20);
    let client = scene.client().await;
    client.apply(policy(&text)).await.unwrap();
    assert!(client.policy().await.unwrap() == text);
}

#[tokio::test]
async fn without_a_daemon_the_error_says_what_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let error = Client::connect(&socket).await.unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }));
    assert!(error.to_string().contains("start carnet serve"), "{error}");

    // The daemon was killed: its socket is still there.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(matches!(Client::connect(&socket).await.unwrap_err(), ClientError::NoDaemon { .. }));
}

#[tokio::test]
async fn a_daemon_that_is_stopped_is_told_from_one_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let _deaf = UnixListener::bind(&socket).unwrap();
    let client = Client::connect(&socket).await.unwrap().with_patience(Duration::from_millis(50));
    assert!(matches!(client.status().await.unwrap_err(), ClientError::Silent { .. }));
}

#[tokio::test]
async fn another_program_at_the_socket_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let other = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut stream, _) = other.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1000]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}\n").await;
        }
    });
    let client = Client::connect(&socket).await.unwrap();
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::Strange { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refusal_names_the_role() {
    // Root has every role, so a user has to ask.
    if rustix::process::geteuid().is_root() {
        return crate::access::a_refusal_names_the_role_to_a_user().await;
    }
    let scene = Scene::with(Limits::default(), Access::default());
    let error = scene.client().await.session(&registration("dlp", 10), &[]).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!((problem.kind, problem.role), (ProblemKind::Forbidden, Some(Role::Registrar)));
    assert!(problem.detail.contains(&stranger().to_string()));
}

#[tokio::test]
async fn down_is_answered_before_the_server_ends() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Memory::new();
    // Made by somebody else, as socket activation does.
    let listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
    let server = Server::new(ControlSocket::from_listener(listener).unwrap(), Arc::clone(&backend), own_access());
    let server = tokio::spawn(async move { server.run(backend.down.notified()).await });
    let client = Client::connect(folder.path().join("control.sock")).await.unwrap();
    assert_eq!(client.down().await.unwrap().removed, ["9 programs"]);
    soon("the end of the server", server).await.unwrap();
    assert!(matches!(client.status().await.unwrap_err(), ClientError::NoDaemon { .. }));
    assert!(folder.path().join("control.sock").exists(), "who made it removes it");
}

#[test]
fn a_problem_of_a_newer_daemon_is_still_one() {
    let text = r#"{"type":"urn:problem-type:carnet:moon-phase","title":"t","status":418,"detail":"wait","more":1}"#;
    let problem: Problem = serde_json::from_str(text).unwrap();
    assert_eq!((problem.kind, problem.status, &problem.detail[..]), (ProblemKind::Other, 418, "wait"));
}

#[tokio::test]
async fn a_panic_of_the_backend_is_an_answer() {
    let scene = Scene::new();
    scene.backend.state(|state| state.panic = true);
    let client = scene.client().await;
    let error = client.status().await.unwrap_err();
    assert_eq!(error.problem().unwrap().kind, ProblemKind::Failed);
    assert!(client.status().await.is_ok(), "it goes on");
}

fn policy(text: &str) -> PolicyRequest {
    PolicyRequest { text: text.into(), ..PolicyRequest::default() }
}
