//! Who may do what, asked by other users.

use std::{
    fs::Permissions,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use carnet_control::{
    Access, Client, ControlSocket, Identities, Limits, Problem, ProblemKind, Role, Server, SessionNews,
};
use rustix::net::{AddressFamily, SocketType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    memory::{Memory, event},
    scene::{Scene, as_stranger, own_access, registration, soon, stranger},
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
        ("POST", "/v1/reload", Some(Role::Administrator)),
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
async fn a_supplementary_group_gives_a_role_where_the_kernel_tells_who_connected() {
    let read = Identities { gids: [SUPPLEMENTARY].into(), ..Identities::default() };
    let scene = Scene::with(Limits::default(), Access { read, ..Access::default() });
    let user = stranger().to_string();
    let is_root = rustix::process::geteuid().is_root();
    let whole = ["--reuid", &user, "--regid", &user];
    // As a program that was started by root, or by anybody else, and took on a user's rights for a while.
    let half = ["--euid", &user, "--regid", &user];
    for (ids, counts) in [(whole, true), (half, false)] {
        let mut curl = match is_root {
            true => {
                let mut command = Command::new("setpriv");
                command.args(ids).args(["--groups", &SUPPLEMENTARY.to_string(), "curl"]);
                command
            }
            // Nobody else can take a group on: without it, the answer is the other one.
            false => Command::new("curl"),
        };
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", "--unix-socket"]);
        curl.arg(scene.socket()).arg("http://carnet/v1/status");
        let output = soon("curl", tokio::task::spawn_blocking(move || curl.output())).await.unwrap().unwrap();
        let expected = if is_root && counts && tells_who_connected() { "200" } else { "403" };
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{ids:?}: {output:?}");
    }
}

/// Connects by the socket that is its standard input, and ends.
const CONNECTS: &str = "import socket, sys; socket.socket(fileno=0).connect(sys.argv[1])";

#[tokio::test]
async fn of_who_has_ended_only_what_the_connection_says_is_known() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("control.sock");
    // It listens, and accepts nothing before the other process has ended.
    let socket = ControlSocket::bind(&path).unwrap();
    let connection = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", CONNECTS]).arg(&path).stdin(connection.try_clone().unwrap());
    let mut python = python.spawn().unwrap();
    let pid = python.id();
    // Nobody has asked how it ended, so its entry in /proc is still there.
    let ended = async {
        while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end of the other process", ended).await;

    let backend = Memory::new();
    let server = tokio::spawn(Server::new(socket, Arc::clone(&backend), own_access()).run(std::future::pending()));
    let connection = std::os::unix::net::UnixStream::from(connection);
    connection.set_nonblocking(true).unwrap();
    let mut connection = UnixStream::from_std(connection).unwrap();
    let body = serde_json::to_string(&registration("dlp", 10)).unwrap();
    let head = format!("POST /v1/session HTTP/1.1\r\nhost: c\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    soon("the answer", connection.read_exact(&mut [0; 12])).await.unwrap();
    let ended = backend.state(|state| state.caller.take()).unwrap();
    assert_eq!((ended.pid, ended.groups, ended.cgroup), (Some(pid as i32), Vec::new(), None));
    assert!(python.wait().unwrap().success());

    let client = Client::connect(&path).await.unwrap();
    let _session = client.session(&registration("dlp", 10), &[]).await.unwrap();
    let alive = backend.state(|state| state.caller.take()).unwrap();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from);
    assert!(own.is_some());
    assert_eq!(alive.cgroup, own.filter(|_| tells_who_connected()));
    server.abort();
}

/// Sends the head of a policy, says when the server waits for the rest, and sends that when it is told to.
const IS_SLOW: &str = "
import socket, sys
control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
control.send(b'PUT /v1/policy HTTP/1.1\\r\\nhost: c\\r\\ncontent-length: 6\\r\\nexpect: 100-continue\\r\\n\\r\\n')
print(control.recv(12).decode(), flush=True)
control.recv(1000)
sys.stdin.read(1)
control.send(b'# what')
print(control.recv(12).decode(), flush=True)
";

#[tokio::test]
async fn who_loses_a_role_before_the_policy_is_whole_changes_nothing() {
    for (role, status) in [(Role::Administrator, "HTTP/1.1 200"), (Role::Reader, "HTTP/1.1 403")] {
        let scene = Scene::with(Limits::default(), access(Some(Role::Administrator)));
        let mut python = as_stranger("python3");
        python.args(["-c", IS_SLOW]).arg(scene.socket()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().unwrap();
        let mut stdout = BufReader::new(python.stdout.take().unwrap());
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).map(|_| (line, stdout))
        });
        let (line, mut stdout) = soon("100 Continue", reading).await.unwrap().unwrap();
        assert_eq!(line, "HTTP/1.1 100\n");
        scene.access.replace(access(Some(role)));
        drop(python.stdin.take());
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).map(|_| line)
        });
        assert_eq!(soon("the answer", reading).await.unwrap().unwrap().trim_end(), status);
        assert_eq!(scene.backend.state(|state| state.applied.len()), usize::from(role == Role::Administrator));
        python.wait().unwrap();
    }
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
    let told = scene
        .backend
        .state(|state| state.sessions.values().next().unwrap().news.send(SessionNews::Event(event("x").into())));
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

/// Linux 6.5.
fn tells_who_connected() -> bool {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    nix::sys::socket::getsockopt(&one, nix::sys::socket::sockopt::PeerPidfd).is_ok()
}

/// A group that nobody who runs tests is in.
const SUPPLEMENTARY: u32 = 4_000_000;
