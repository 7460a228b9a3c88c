//! The document says what the server does: each path, method and status in it is provoked.

use std::{collections::BTreeSet, time::Duration};

use carnet_control::{Access, Limits, Problem, ProblemKind};
use serde_json::Value;
use tokio::{io::AsyncReadExt, net::UnixStream};

use crate::{
    access::curl_as_stranger,
    raw,
    scene::{Scene, registration, soon},
};

#[tokio::test]
async fn every_documented_answer_can_be_had() {
    let document: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    let short = Duration::from_millis(50);
    let scenes = Scenes {
        usual: Scene::with_limits(Limits { body_timeout: short, linger: short, ..Limits::default() }),
        closed: Scene::with(Limits::default(), Access::default()),
        full: Scene::with_limits(Limits { connections: 0, ..Limits::default() }),
    };
    let mut walked = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let operation = Operation { path, method: method.to_uppercase(), said: operation };
            for (status, said) in operation.said["responses"].as_object().unwrap() {
                let status = status.parse().unwrap();
                let media_type = said["content"].as_object().unwrap().keys().next().unwrap();
                operation.provoke(status, media_type, &scenes).await;
                walked.insert((path.as_str(), operation.method.clone(), status));
            }
        }
    }
    assert!(walked.len() > 80, "{walked:?}");
}

#[tokio::test]
async fn every_answer_of_the_server_is_its_document() {
    let scene = Scene::new();
    let answer = raw::ask(&scene.socket(), "GET", "/v1/openapi.json", "", b"").await;
    assert!(answer.body == include_bytes!("../../../../docs/openapi.json"));
}

struct Scenes {
    usual: Scene,
    /// Nobody but root has a role.
    closed: Scene,
    /// There is room for nobody.
    full: Scene,
}

struct Operation<'a> {
    path: &'a str,
    method: String,
    said: &'a Value,
}

impl Operation<'_> {
    async fn provoke(&self, status: u16, media_type: &str, scenes: &Scenes) {
        let path = self.path.replace("{name}", "dlp");
        let socket = scenes.usual.socket();
        let headers = |headers: &str| format!("{} {path} HTTP/1.1\r\nhost: c\r\n{headers}\r\n", self.method);
        let answer = match status {
            200 => return self.succeed(&path, media_type, scenes).await,
            400 => raw::ask(&socket, &self.method, &format!("{path}?nonsense=true"), "", b"").await,
            403 => {
                let (status, body) = curl_as_stranger(&scenes.closed.socket(), &self.method, &path).await;
                let problem: Problem = serde_json::from_slice(&body).unwrap();
                assert_eq!((status, problem.role.map(|role| role.to_string())), (403, self.role()), "{path}");
                return;
            }
            408 => raw::send(&socket, headers("content-length: 5\r\n").as_bytes()).await,
            413 => raw::send(&socket, headers("content-length: 99999999999\r\n").as_bytes()).await,
            415 => raw::ask(&socket, &self.method, &path, "content-type: image/png\r\n", b"{}").await,
            431 => raw::send(&socket, headers(&format!("x: {}\r\n", "x".repeat(100_000))).as_bytes()).await,
            503 => raw::ask(&scenes.full.socket(), &self.method, &path, "", b"").await,
            404 => self.fail(ProblemKind::NotFound, &path, scenes).await,
            409 => self.fail(ProblemKind::Conflict, &path, scenes).await,
            412 => self.fail(ProblemKind::Precondition, &path, scenes).await,
            422 => self.fail(ProblemKind::Mistakes, &path, scenes).await,
            500 => self.fail(ProblemKind::Failed, &path, scenes).await,
            _ => panic!("{} {path}: nothing here provokes {status}", self.method),
        };
        assert_eq!(answer.status, status, "{} {path}: {}", self.method, answer.head);
        answer.problem();
        assert_eq!(media_type, "application/problem+json");
    }

    async fn succeed(&self, path: &str, media_type: &str, scenes: &Scenes) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        if path.ends_with("/hold") {
            // With a descriptor, which the client has to send.
            let client = scenes.usual.client().await;
            client.hold("dlp", &[std::os::fd::AsFd::as_fd(&listener)], Duration::from_secs(1)).await.unwrap();
            return;
        }
        if path.ends_with("/release") {
            let held = (vec![listener.try_into().unwrap()], Duration::from_secs(1));
            scenes.usual.backend.state(|state| state.held.insert("dlp".into(), held));
        }
        let body = self.body();
        let mut stream = UnixStream::connect(scenes.usual.socket()).await.unwrap();
        let head = format!("{} {path} HTTP/1.1\r\nhost: c\r\ncontent-length: {}\r\n\r\n", self.method, body.len());
        tokio::io::AsyncWriteExt::write_all(&mut stream, &[head.as_bytes(), &body].concat()).await.unwrap();
        let mut answer = Vec::new();
        while raw::find(&answer, b"\r\n\r\n").is_none() {
            assert_ne!(soon("an answer", stream.read_buf(&mut answer)).await.unwrap(), 0);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        assert!(answer.contains(&format!("content-type: {media_type}\r\n")), "{path}: {answer}");
    }

    async fn fail(&self, kind: ProblemKind, path: &str, scenes: &Scenes) -> raw::Answer {
        let backend = &scenes.usual.backend;
        backend.state(|state| state.fail = Some(Problem::new(kind, "as the test wants it")));
        if path.ends_with("/hold") {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let client = scenes.usual.client().await;
            let error =
                client.hold("dlp", &[std::os::fd::AsFd::as_fd(&listener)], Duration::from_secs(1)).await.unwrap_err();
            let body = serde_json::to_vec(error.problem().unwrap()).unwrap();
            let head = "content-type: application/problem+json\r\n".into();
            return raw::Answer { status: error.problem().unwrap().status, head, body };
        }
        let answer = raw::ask(&scenes.usual.socket(), &self.method, path, "", &self.body()).await;
        assert!(backend.state(|state| state.fail.is_none()), "{path}: the backend was asked");
        answer
    }

    fn body(&self) -> Vec<u8> {
        match self.path {
            "/v1/session" => serde_json::to_vec(&registration("dlp", 10)).unwrap(),
            _ => Vec::new(),
        }
    }

    fn role(&self) -> Option<String> {
        self.said["x-role"].as_str().map(Into::into)
    }
}
