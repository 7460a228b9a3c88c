//! Who may do what, asked by other users.

use std::{path::Path, process::Stdio};

use carnet_control::{Access, Identities, Limits, Problem, ProblemKind, Role};

use crate::{
    memory::event,
    scene::{Scene, as_stranger, registration, soon, stranger},
};

#[tokio::test]
async fn each_role_has_the_rights_of_those_before_it() {
    let scene = Scene::with(Limits::default(), Access::default());
    let socket = scene.socket();
    let roles = [None, Some(Role::Reader), Some(Role::Registrar), Some(Role::Administrator)];
    let paths = [
        ("GET", "/v1/status", Some(Role::Reader)),
        ("GET", "/v1/policy", Some(Role::Reader)),
        ("PUT", "/v1/policy?dry-run=true", Some(Role::Administrator)),
        ("GET", "/v1/providers", Some(Role::Reader)),
        ("POST", "/v1/providers/nobody/release", Some(Role::Registrar)),
        ("GET", "/v1/flows", Some(Role::Reader)),
        ("POST", "/v1/down", Some(Role::Administrator)),
        ("GET", "/v1/openapi.json", None),
    ];
    for has in roles {
        scene.access.replace(access(has));
        for (method, path, needs) in paths {
            let (status, body) = curl_as_stranger(&socket, method, path).await;
            if has >= needs {
                assert_ne!(status, 403, "{method} {path} by {has:?}");
                continue;
            }
            assert_eq!(status, 403, "{method} {path} by {has:?}");
            let problem: Problem = serde_json::from_slice(&body).unwrap();
            assert_eq!((problem.kind, problem.role), (ProblemKind::Forbidden, needs));
        }
    }
}

#[tokio::test]
async fn the_primary_group_gives_a_role() {
    let gid = if rustix::process::geteuid().is_root() { stranger() } else { rustix::process::getegid().as_raw() };
    let read = Identities { gids: [gid].into(), ..Identities::default() };
    let scene = Scene::with(Limits::default(), Access { read, ..Access::default() });
    assert_eq!(curl_as_stranger(&scene.socket(), "GET", "/v1/status").await.0, 200);
    assert_eq!(curl_as_stranger(&scene.socket(), "POST", "/v1/down").await.0, 403);
}

#[tokio::test]
async fn filters_of_the_host_are_for_administrators() {
    let scene = Scene::with(Limits::default(), access(Some(Role::Registrar)));
    let body = r#"{"filters":[{"action":"permit"}]}"#;
    let mut curl = as_stranger("curl");
    curl.args(["-s", "--max-time", "20", "--unix-socket"]).arg(scene.socket());
    curl.args(["--json", body, "http://carnet/v1/session"]);
    let output = soon("curl", tokio::task::spawn_blocking(move || curl.output())).await.unwrap().unwrap();
    let problem: Problem = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problem.role, Some(Role::Administrator));
    assert_eq!(scene.backend.state(|state| state.begun), 0);
}

#[tokio::test]
async fn who_loses_a_role_loses_the_stream() {
    let scene = Scene::with(Limits::default(), access(Some(Role::Registrar)));
    let body = serde_json::to_string(&registration("dlp", 10)).unwrap();
    let mut curl = as_stranger("curl");
    curl.args(["-s", "-N", "--max-time", "60", "--unix-socket"]).arg(scene.socket());
    curl.args(["--json", &body, "http://carnet/v1/session"]).stdout(Stdio::piped());
    let curl = curl.spawn().unwrap();
    scene.until("the session", |backend| backend.state(|state| !state.sessions.is_empty())).await;

    // What does not concern this caller changes nothing for it.
    scene.access.replace(access(Some(Role::Administrator)));
    let told = scene.backend.state(|state| state.sessions.values().next().unwrap().events.send(event("x").into()));
    assert!(told.is_ok());
    scene.access.replace(access(Some(Role::Reader)));
    assert_eq!(scene.ended(1).await, [1]);
    let output = soon("curl", tokio::task::spawn_blocking(|| curl.wait_with_output())).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().last().unwrap().contains("role was taken away"), "{text}");
}

/// For whoever runs these tests as root.
pub async fn a_refusal_names_the_role_to_a_user() {
    let scene = Scene::with(Limits::default(), Access::default());
    let (status, body) = curl_as_stranger(&scene.socket(), "POST", "/v1/session").await;
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, problem.role), (403, Some(Role::Registrar)));
    assert!(problem.detail.contains(&stranger().to_string()), "{problem}");
    assert!(problem.detail.contains("`register`"), "{problem}");
}

fn access(role: Option<Role>) -> Access {
    let identities = Identities { uids: [stranger()].into(), ..Identities::default() };
    match role {
        None => Access::default(),
        Some(Role::Reader) => Access { read: identities, ..Access::default() },
        Some(Role::Registrar) => Access { register: identities, ..Access::default() },
        Some(Role::Administrator) => Access { administer: identities, ..Access::default() },
    }
}

pub async fn curl_as_stranger(socket: &Path, method: &str, path: &str) -> (u16, Vec<u8>) {
    let mut curl = as_stranger("curl");
    curl.args(["-s", "--max-time", "20", "-X", method, "-w", "\n%{http_code}", "--unix-socket"]).arg(socket);
    curl.arg(format!("http://carnet{path}"));
    let output = soon("curl", tokio::task::spawn_blocking(move || curl.output())).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let end = output.stdout.iter().rposition(|&byte| byte == b'\n').unwrap();
    let status = str::from_utf8(&output.stdout[end + 1..]).unwrap().parse().unwrap();
    (status, output.stdout[..end].to_vec())
}
