//! Who may do what.

use std::os::fd::AsFd;
use std::time::Duration;

use carnet_control::{Client, ClientError, Id, Owner, Problem, ProviderState, Session, SessionLine, SessionRequest};
use carnet_e2e::raw::{self, NOBODY};
use carnet_e2e::sockets::{PATIENCE, listen};
use carnet_e2e::{Ground, daemon::Table};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::stage::{Arrival, Stage, problem};

/// Asks as somebody without privileges.
fn asked<T: Send, F>(stage: &Stage, ask: impl FnOnce(Client) -> F + Send) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let socket = stage.daemon.socket();
    raw::as_nobody(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { ask(Client::connect(socket).await?).await })
    })
}

/// A registration's end, as that user sees it.
async fn register(client: Client, request: Value) -> Result<Session, ClientError> {
    let request: SessionRequest = serde_json::from_value(request).unwrap();
    client.session(&request, &[]).await
}

/// How each kind of question is answered: 0 is well.
fn answers(stage: &Stage) -> [u16; 6] {
    fn status<T>(answer: &Result<T, ClientError>) -> u16 {
        match answer {
            Ok(_) => 0,
            Err(ClientError::Refused(problem)) => problem.status,
            Err(error) => panic!("{error}"),
        }
    }
    let policy = stage.daemon.block_on(async {
        let client = Client::connect(stage.daemon.socket()).await.unwrap();
        client.policy().await.unwrap()
    });
    let provider = json!({"providers": [{"name": "theirs", "listen": "127.0.0.1:15999"}]});
    let host = json!({"filters": [{"match": {"remote-port": 9}, "action": "block"}]});
    let apply = carnet_control::PolicyRequest { text: policy, ..Default::default() };
    [
        status(&asked(stage, async |client| client.status().await)),
        status(&asked(stage, async |client| client.flows(false).await.map(drop))),
        status(&asked(stage, async |client| client.events().await.map(drop))),
        status(&asked(stage, async |client| register(client, provider).await.map(drop))),
        status(&asked(stage, async |client| client.apply(apply).await)),
        status(&asked(stage, async |client| register(client, host).await.map(drop))),
    ]
}

#[test]
fn each_role_may_what_the_list_says_and_no_more() {
    let stage = Stage::new();
    assert_eq!(answers(&stage), [403; 6], "no role");
    for (list, expected) in
        [("read", [0, 0, 0, 403, 403, 403]), ("register", [0, 0, 0, 0, 403, 403]), ("administer", [0; 6])]
    {
        for who in [format!("{NOBODY}"), format!("\"%{NOBODY}\"")] {
            stage.daemon.apply(&format!("[control]\n{list} = [\"root\", {who}]\n"));
            assert_eq!(answers(&stage), expected, "{list} {who}");
        }
    }
    stage.daemon.apply("default = \"permit\"");
    assert_eq!(answers(&stage), [403; 6], "the role was taken away");
}

/// What is refused to a registrar: an owner that is not the caller's.
fn claimed(stage: &Stage, owner: Value) -> Problem {
    let provider = json!({"name": "theirs", "listen": "127.0.0.1:15999", "owner": owner});
    let request = json!({"providers": [provider]});
    problem(asked(stage, async |client| register(client, request).await.map(drop)))
}

#[test]
fn a_registrar_cannot_be_somebody_else() {
    let stage = Stage::with(&format!("[control]\nregister = [{NOBODY}]\n"));
    let before = stage.in_force();
    let service = stage.ground.name_of(&stage.ground.service(0));
    for owner in [
        json!({"uid": 0}),
        json!({"uid": "root"}),
        json!({"uid": NOBODY - 1}),
        json!({"cgroup": service}),
        json!({"cgroup": "/"}),
        json!([{"uid": NOBODY}, {"uid": 0}]),
        json!({"cgroup": format!("{service}/../..")}),
    ] {
        let problem = claimed(&stage, owner.clone());
        assert_eq!(problem.status, 403, "{owner}: {problem:?}");
        assert!(problem.detail.contains("owner"), "{problem:?}");
    }
    assert_eq!(stage.in_force(), before);
}

#[test]
fn a_registrar_is_its_own_provider_and_ends_with_its_role() {
    let stage = Stage::with(&format!("[control]\nregister = [{NOBODY}]\n"));
    let listener = stage.ground.within(&stage.ground.service(0), || raw::as_nobody(|| listen("127.0.0.1:0")));
    let request = json!({"providers": [stage.listening("theirs", &listener)]});
    let socket = stage.daemon.socket();
    let (tell, told) = std::sync::mpsc::channel();
    // Ends with the daemon, at the latest.
    std::thread::spawn(move || {
        raw::as_nobody(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = Client::connect(socket).await.unwrap();
                let mut session = register(client, request).await.unwrap();
                tell.send(String::new()).unwrap();
                while let Ok(Some(line)) = session.next().await {
                    if let SessionLine::Closing { reason } = line {
                        let _ = tell.send(reason);
                    }
                }
            });
        });
    });
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "");
    assert_eq!(stage.arrival(&listener), Arrival::Service);
    let Owner::Uid(Id::Number(owner)) = stage.daemon.provider("theirs").owner[0] else { panic!("no uid") };
    assert_eq!(owner, NOBODY);
    stage.daemon.apply("default = \"permit\"");
    stage.wait_for(Arrival::Server, &listener);
    assert_ne!(told.recv_timeout(PATIENCE).unwrap(), "", "it is told why");
    assert_eq!((stage.daemon.status().sessions, stage.daemon.providers().len()), (0, 0));
}

/// Who opens a FIFO waits for whoever writes to it.
#[test]
fn a_registrar_that_names_a_fifo_as_a_network_namespace_keeps_nobody_waiting() {
    let stage = Stage::with(&format!("[control]\nregister = [{NOBODY}]\n"));
    let fifo = stage.daemon.file("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut filter = stage.filter();
    filter["match"]["netns"] = json!(fifo);
    let listener = stage.ground.within(&stage.ground.service(0), || raw::as_nobody(|| listen("127.0.0.1:0")));
    let at = listener.local_addr().unwrap();
    let request = json!({"providers": [{"name": "theirs", "listen": at, "filters": [filter]}]});
    let answer = asked(&stage, async |client| Ok(timeout(PATIENCE, register(client, request)).await));
    // It may become one, so this is about nobody until then.
    let _session = answer.unwrap().expect("an answer").unwrap();
    assert_eq!(stage.arrival(&listener), Arrival::Server);
    // Nor do later looks at it wait.
    let mut events = stage.daemon.events();
    drop(listener);
    events.wait_until("that it is dead", |event| event.state == Some(ProviderState::Dead));
    assert_eq!(stage.daemon.provider("theirs").filters, 1);
}

#[test]
fn nobody_else_holds_or_releases_a_providers_listeners() {
    let ground = Ground::new();
    let own = ground.within(&ground.service(0), || listen("127.0.0.1:0"));
    let at = own.local_addr().unwrap();
    let file = Table::new("dlp", 10, &ground, &ground.service(0), &[at]).redirecting("web", "remote-port = 9");
    let stage = Stage::on(ground, &format!("[control]\nregister = [{NOBODY}]\n{file}"));
    let other = listen("127.0.0.1:0");
    let fd = other.as_fd();
    let held = problem(asked(&stage, async |client| client.hold("dlp", &[fd], MINUTE).await));
    assert_eq!(held.status, 403, "{held:?}");
    let fd = own.as_fd();
    stage.daemon.asked(async |client| client.hold("dlp", &[fd], MINUTE).await).unwrap();
    let released = problem(asked(&stage, async |client| client.release("dlp").await));
    assert_eq!(released.status, 403, "{released:?}");
    // Root may, but not with what is no listener of the provider's.
    let fd = other.as_fd();
    let strange = problem(stage.daemon.asked(async |client| client.hold("dlp", &[fd], MINUTE).await));
    assert_eq!(strange.status, 409, "{strange:?}");
    let nothing = problem(stage.daemon.asked(async |client| client.release("nobody").await));
    assert_eq!(nothing.status, 404, "{nothing:?}");
    assert_eq!(stage.daemon.asked(async |client| client.release("dlp").await).unwrap()[0].address(), at);
}

const MINUTE: Duration = Duration::from_secs(60);
