//! The API by hand, as docs/control-api.md shows it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use carnet_control::{Applied, SessionLine, Status};

use crate::scene::{Scene, registration, soon};

#[tokio::test]
async fn curl_asks_and_puts() {
    let scene = Scene::new();
    let file = scene.folder.path().join("policy.toml");
    std::fs::write(&file, "default = \"permit\"\n").unwrap();
    let file = file.to_str().unwrap().to_owned();

    let status: Status = serde_json::from_str(&curl(&scene, &["http://carnet/v1/status"]).await).unwrap();
    assert_eq!(status.pid, std::process::id());

    let dry = curl(&scene, &["-T", &file, "http://carnet/v1/policy?dry-run=true"]).await;
    assert!(!serde_json::from_str::<Applied>(&dry).unwrap().applied);
    let applied = curl(&scene, &["-T", &file, "http://carnet/v1/policy"]).await;
    assert!(serde_json::from_str::<Applied>(&applied).unwrap().applied);
    assert_eq!(curl(&scene, &["http://carnet/v1/policy"]).await, "default = \"permit\"\n");

    let types: serde_json::Value =
        serde_json::from_str(&curl(&scene, &["http://carnet/v1/openapi.json"]).await).unwrap();
    assert_eq!(types["openapi"], "3.1.0");
}

#[tokio::test]
async fn a_session_of_curl_lasts_until_curl_is_killed() {
    let scene = Scene::new();
    let body = serde_json::to_string(&registration("dlp", 10)).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-s", "-N", "--unix-socket"]).arg(scene.socket());
    curl.args(["--json", &body, "http://carnet/v1/session"]).stdout(Stdio::piped());
    let mut curl = curl.spawn().unwrap();
    let stdout = curl.stdout.take().unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    let line = soon("the first line", reading).await.unwrap().unwrap();
    let SessionLine::Registered { registered } = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
    assert_eq!((&registered.providers[0].name[..], registered.filters), ("dlp", 1));
    assert_eq!(scene.backend.state(|state| state.providers.len()), 1);

    // SIGKILL
    curl.kill().unwrap();
    curl.wait().unwrap();
    assert_eq!(scene.ended(1).await, [registered.session.0]);
    assert!(scene.backend.state(|state| state.providers.is_empty()));
}

async fn curl(scene: &Scene, args: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-s", "--fail-with-body", "--max-time", "20", "--unix-socket"]).arg(scene.socket()).args(args);
    let output = soon("curl", tokio::task::spawn_blocking(move || curl.output())).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}
