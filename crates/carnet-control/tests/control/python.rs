//! The program in docs/control-api.md.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use carnet_control::SessionLine;

use crate::scene::{Scene, soon};

#[tokio::test]
async fn the_program_in_the_documentation_passes_its_listener() {
    let document = include_str!("../../../../docs/control-api.md");
    let program = document.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let scene = Scene::new();
    let mut python = Command::new("python3");
    python.args(["-c", program]).arg(scene.socket()).stdout(Stdio::piped());
    let mut python = python.spawn().unwrap();
    let stdout = python.stdout.take().unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    let line = soon("the first line", reading).await.unwrap().unwrap().replace('\'', "\"");
    let SessionLine::Registered { registered } = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
    assert_eq!(registered.providers[0].name, "mine");
    let address = scene.backend.state(|state| state.sessions[&registered.session].listeners[0][0].address());
    std::net::TcpStream::connect(address).unwrap();

    // SIGKILL. The backend's copy of the listener goes with the session.
    python.kill().unwrap();
    python.wait().unwrap();
    assert_eq!(scene.ended(1).await, [registered.session.0]);
    assert!(std::net::TcpStream::connect(address).is_err());
}
