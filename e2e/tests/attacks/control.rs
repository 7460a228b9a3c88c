//! Against the control socket of `carnet serve`.

use std::fs::{self, File};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use carnet_e2e::raw::{self, NOBODY};
use carnet_e2e::sockets::{PATIENCE, until};
use carnet_e2e::{Daemon, Ground};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

/// What answers these bytes, and all it says. 0: the connection's end alone.
fn send(socket: &Path, bytes: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // What is refused early is not read to its end.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    (text.split(' ').nth(1).map_or(0, |status| status.parse().unwrap()), text)
}

fn ask(socket: &Path, method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: carnet\r\nconnection: close\r\ncontent-type: {kind}\r\n");
    send(socket, format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes())
}

fn register(socket: &Path, request: &Value) -> (u16, String) {
    ask(socket, "POST", "/v1/session", "application/json", &request.to_string())
}

fn started(policy: &str) -> (Daemon, Ground) {
    let ground = Ground::new();
    (Daemon::start(&ground, policy), ground)
}

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

#[test]
fn who_has_no_role_sees_and_changes_nothing() {
    let (daemon, _ground) = started("");
    let socket = daemon.socket();
    for (method, path, kind, body) in [
        ("GET", "/v1/status", "", ""),
        ("GET", "/v1/policy", "", ""),
        ("GET", "/v1/providers", "", ""),
        ("GET", "/v1/flows", "", ""),
        ("GET", "/v1/flows?follow=true", "", ""),
        ("GET", "/v1/events", "", ""),
        ("PUT", "/v1/policy", "application/toml", ""),
        ("PUT", "/v1/policy?dry-run=true", "application/toml", ""),
        ("POST", "/v1/reload", "", ""),
        ("POST", "/v1/session", "application/json", "{}"),
        ("POST", "/v1/providers/a/hold", "application/json", "{\"listeners\":[{\"fd\":0}]}"),
        ("POST", "/v1/providers/a/release", "", ""),
        ("POST", "/v1/down", "", ""),
    ] {
        let (status, text) = raw::as_nobody(|| ask(&socket, method, path, kind, body));
        assert_eq!(status, 403, "{method} {path}: {text}");
    }
    assert_eq!(daemon.status().policy.generation, 1);
}

#[test]
fn huge_and_malformed_requests_change_nothing() {
    let (daemon, _ground) = started("");
    let socket = daemon.socket();
    for (method, path, length) in [
        ("PUT", "/v1/policy", u64::MAX - 2),
        ("PUT", "/v1/policy", (64 << 20) + 1),
        ("POST", "/v1/session", (1 << 20) + 1),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: c\r\ncontent-length: {length}\r\n\r\n");
        assert_eq!(send(&socket, head.as_bytes()).0, 413, "{head}");
    }
    let head = format!("GET /v1/status HTTP/1.1\r\nhost: c\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(send(&socket, head.as_bytes()).0, 431);
    let good =
        b"PUT /v1/policy HTTP/1.1\r\nhost: c\r\ncontent-type: application/toml\r\ncontent-length: 8\r\n\r\nrnak = 1";
    assert_eq!(send(&socket, good).0, 422);
    // Each byte becomes others in turn; none of it is a policy. Line ends are left: a head that ends early has no body.
    for place in 0..good.len() {
        for other in [0, b' ', 0xff] {
            let mut bytes = good.to_vec();
            bytes[place] = other;
            let (status, text) = send(&socket, &bytes);
            assert!(status == 0 || (400..500).contains(&status), "{}: {text}", String::from_utf8_lossy(&bytes));
        }
        let (status, _) = send(&socket, &good[..place]);
        assert!(status == 0 || (400..500).contains(&status), "{place}");
    }
    assert_eq!(daemon.status().policy.generation, 1);
}

#[test]
fn a_user_with_many_and_slow_connections_does_not_keep_root_out() {
    let (daemon, _ground) = started("");
    let socket = daemon.socket();
    let before = descriptors(&daemon);
    let many: Vec<_> = raw::as_nobody(|| {
        let slow = |_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            // Half of a head. It may be refused by then.
            let _ = stream.write_all(b"GET /v1/sta");
            stream
        };
        (0..1000).map(slow).collect()
    });
    assert_eq!(daemon.status().policy.generation, 1, "root is answered");
    let taken = descriptors(&daemon) - before;
    assert!(taken < 400, "{taken} descriptors");
    drop(many);
    until("all of it to be closed", || (descriptors(&daemon) <= before + 8).then_some(()));
}

#[test]
fn descriptors_from_somebody_without_a_role_are_closed() {
    let (daemon, _ground) = started("");
    let socket = daemon.socket();
    daemon.status();
    let before = descriptors(&daemon);
    let file = File::open("/dev/null").unwrap();
    let sent: Vec<_> = raw::as_nobody(|| {
        let send = |_| {
            let stream = UnixStream::connect(&socket).unwrap();
            let all: Vec<BorrowedFd> = (0..16).map(|_| file.as_fd()).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            for part in [&b"POST /v1/session HTTP/1.1\r\n"[..], b"host: c\r\n", b"x: y\r\n"] {
                let mut along = SendAncillaryBuffer::new(&mut space);
                assert!(along.push(SendAncillaryMessage::ScmRights(&all)));
                // The connection may be over by then.
                let _ = sendmsg(&stream, &[IoSlice::new(part)], &mut along, SendFlags::NOSIGNAL);
            }
            stream
        };
        (0..100).map(send).collect()
    });
    daemon.status();
    let most = descriptors(&daemon);
    assert!(most < before + 100 + 100, "{} descriptors more", most - before);
    drop(sent);
    until("all of them to be closed", || (descriptors(&daemon) <= before + 8).then_some(()));
}

#[test]
fn a_socket_where_others_may_write_is_not_made() {
    let ground = Ground::new();
    let daemon = Daemon::prepare(&ground.name_of(&ground.governed), "");
    fs::set_permissions(daemon.state(), fs::Permissions::from_mode(0o777)).unwrap();
    let ended = daemon.second();
    assert_ne!(ended.code, 0);
    assert!(ended.errors.contains("others could replace the control socket"), "{}", ended.errors);
    assert!(!daemon.socket().exists());
}

#[test]
fn files_are_not_read_for_an_administrator_who_is_not_root() {
    let (daemon, _ground) = started(&format!("[control]\nadminister = [{NOBODY}]\n"));
    let secret = daemon.file("secret");
    fs::write(&secret, "the-secret-word\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!("[sets.x]\nfile = \"{}\"\n", secret.display());
    let socket = daemon.socket();
    for path in ["/v1/policy?dry-run=true", "/v1/policy"] {
        let (status, told) = raw::as_nobody(|| ask(&socket, "PUT", path, "application/toml", &text));
        assert_eq!(status, 422, "{told}");
        assert!(!told.contains("secret-word"), "{told}");
    }
    // Root is told what is wrong in it.
    let (status, told) = ask(&socket, "PUT", "/v1/policy?dry-run=true", "application/toml", &text);
    assert!(status == 422 && told.contains("secret-word"), "{told}");
}

#[test]
fn a_registrars_texts_stay_texts() {
    let (daemon, _ground) = started(&format!("[control]\nregister = [{NOBODY}]\n"));
    let socket = daemon.socket();
    let escape =
        "x\"\nrank = 1\n[[filter]]\nname = \"all\"\nmatch = {}\naction = \"block\"\n[control]\nadminister = [65534]\n#";
    for text in
        [escape, "'''\n[[filter]]", "\"\"\"\n", "\\\"", "\u{0}", "\u{1b}[2J", "\u{202e}", "]]", &"x".repeat(100_000)]
    {
        for place in ["name", "filter", "context", "remote", "exe"] {
            let mut filter = json!({"name": "f", "match": {"remote-port": 1}, "action": "redirect"});
            let mut provider = json!({"name": "p", "listen": "127.0.0.1:15999"});
            match place {
                "name" => provider["name"] = text.into(),
                "filter" => filter["name"] = text.into(),
                "context" => filter["context"] = text.into(),
                other => filter["match"][other] = text.into(),
            }
            provider["filters"] = json!([filter]);
            let (status, told) = raw::as_nobody(|| register(&socket, &json!({ "providers": [provider] })));
            assert!([200, 400, 422].contains(&status), "{place} {text:?}: {status} {told}");
            let (status, _) = raw::as_nobody(|| ask(&socket, "PUT", "/v1/policy", "application/toml", ""));
            assert_eq!(status, 403, "{place} {text:?}");
            // The session is over with its connection.
            until("it to be out of force", || (daemon.status().sessions == 0).then_some(()));
            assert_eq!(daemon.status().policy.default, "permit");
        }
    }
}

#[test]
fn registrations_beyond_all_limits_are_refused() {
    let (daemon, _ground) = started("");
    let socket = daemon.socket();
    let provider = |n: u16| json!({"name": format!("p{n}"), "listen": format!("127.0.0.1:{}", 20000 + n), "owner": {"uid": 100_000 + u32::from(n)}});
    let providers: Vec<_> = (0..300).map(provider).collect();
    let (status, told) = register(&socket, &json!({ "providers": providers }));
    assert_eq!(status, 422, "{told}");
    assert!(told.contains("255"), "{told}");
    let filters: Vec<_> = (0..5000).map(|n| json!({"match": {"remote-port": n}, "action": "block"})).collect();
    let (status, told) = register(&socket, &json!({ "filters": filters }));
    assert_eq!(status, 422, "{told}");
    assert!(told.contains("4096") || told.contains("4,096"), "{told}");
    assert_eq!((daemon.status().policy.generation, daemon.providers().len()), (1, 0));
}
