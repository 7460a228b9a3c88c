//! The API with curl.

use std::process::Command;

use carnet_e2e::programs::{program, require, succeed};
use carnet_e2e::raw::NOBODY;
use carnet_e2e::{Running, enter};
use serde_json::{Value, json};

use crate::stage::{Arrival, Stage};

fn curl(stage: &Stage, path: &str) -> Command {
    require(&["curl"]);
    let mut curl = program("curl");
    curl.args(["-sS", "--max-time", "20", "--unix-socket"]).arg(stage.daemon.socket());
    curl.arg(format!("http://carnet{path}"));
    curl
}

#[test]
fn curl_asks_and_puts_a_policy_in_force() {
    let stage = Stage::new();
    let status: Value = serde_json::from_str(&succeed(&mut curl(&stage, "/v1/status"))).unwrap();
    assert_eq!(status["pid"], stage.daemon.pid());
    let text = "[[filter]]\nname = \"no\"\nmatch = { remote-port = 2 }\naction = \"block\"\n";
    let mut put = curl(&stage, "/v1/policy");
    let applied = succeed(put.args(["-X", "PUT", "-H", "Content-Type: application/toml", "--data-binary", text]));
    let applied: Value = serde_json::from_str(&applied).unwrap();
    assert_eq!((&applied["applied"], &applied["policy"]["filters"]), (&json!(true), &json!(1)));
    assert_eq!(succeed(&mut curl(&stage, "/v1/policy")), text);
    let mut put = curl(&stage, "/v1/policy");
    let wrong = succeed(put.args([
        "-X",
        "PUT",
        "-H",
        "Content-Type: application/toml",
        "--data-binary",
        "rnak = 1",
        "-w",
        "\n%{http_code}",
    ]));
    assert!(wrong.ends_with("\n422") && wrong.contains("rnak"), "{wrong}");
    assert_eq!(succeed(&mut curl(&stage, "/v1/policy")), text);
}

#[test]
fn curl_holds_a_session() {
    let stage = Stage::new();
    let listener = stage.listener("127.0.0.1:0");
    let request = json!({"providers": [stage.listening("dlp", &listener)]}).to_string();
    require(&["curl"]);
    let mut curl = enter(&stage.ground.service(0), "curl");
    curl.args(["-sSN", "--unix-socket"]).arg(stage.daemon.socket());
    curl.args(["http://carnet/v1/session", "--json", &request]);
    let mut curl = Running::start(&mut curl);
    let line: Value = serde_json::from_str(&curl.line()).unwrap();
    assert_eq!((&line["type"], &line["registered"]["providers"][0]["name"]), (&json!("registered"), &json!("dlp")));
    assert_eq!(stage.arrival(&listener), Arrival::Service);
    curl.kill();
    stage.wait_for(Arrival::Server, &listener);
}

#[test]
fn a_supplementary_group_gives_its_role() {
    require(&["curl", "setpriv"]);
    let stage = Stage::with("[control]\nread = [\"%4242\"]\n");
    for (groups, code) in [("--groups=4242", "200"), ("--groups=4243", "403"), ("--clear-groups", "403")] {
        let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), groups.into()];
        let mut asked = program("setpriv");
        asked.args(user).args(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]);
        asked.arg(stage.daemon.socket()).arg("http://carnet/v1/status");
        assert_eq!(succeed(&mut asked), code, "{groups}");
    }
}
