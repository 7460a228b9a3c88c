//! `carnet proxy --yara`: what matches is stopped, both ways.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use carnet_e2e::sockets::listen;

use super::*;

const RULES: &str = r#"
rule marked : test {
    strings: $marker = "a-made-up-marker"
    condition: $marker
}
"#;

/// The same, whose proxy scans bodies with `RULES`.
fn scanned(also: &[&str], act: impl FnOnce(Opened) + Send) {
    let files = Files(Scratch::new());
    let rules = files.0.file("rules.yar");
    fs::write(&rules, RULES).unwrap();
    Opened::with_also(OPEN, files, &[&["--yara", path(&rules)], also].concat(), act);
}

#[test]
fn what_matches_does_not_arrive() {
    scanned(&[], |mut opened| {
        let bundle = opened.files.bundle();
        for version in ["--http1.1", "--http2"] {
            for (arguments, at, body, method) in [
                (&["--data", "this is a-made-up-marker"][..], "/", "request", "POST"),
                // The server answers with the path.
                (&[][..], "/a-made-up-marker", "response", "GET"),
            ] {
                let answer =
                    opened.curl(&bundle, &[&[version, "--write-out", " %{http_code}"], arguments].concat(), at);
                assert!(answer.output.ends_with(" 403"), "{answer:?}");
                assert!(answer.output.contains("YARA rule marked matches"), "{answer:?}");
                assert!(!answer.output.contains("HTTP/"), "something of the server's answer arrives: {answer:?}");
                let said = opened.site.said("scan");
                assert_eq!((&said["rule"], &said["action"]), (&"marked".into(), &"block".into()), "{said}");
                assert_eq!((&said["body"], &said["method"]), (&body.into(), &method.into()), "{said}");
                assert_eq!((&said["tags"], &said["uid"]), (&vec!["test"].into(), &0.into()), "{said}");
                assert!(said["url"].as_str().unwrap().starts_with("https://site.example:"), "{said}");
            }
        }

        let clean = opened.files.0.file("clean");
        let bytes: String = (0..200_000).map(|number| format!("{number} ")).collect();
        fs::write(&clean, &bytes).unwrap();
        let data = format!("@{}", path(&clean));
        for version in ["--http1.1", "--http2"] {
            let answer = opened.curl(&bundle, &[version, "--data-binary", &data], "/");
            assert_eq!(answer.code, 0, "{}", answer.errors);
            assert_eq!(answer.output.split_once(" POST / ").unwrap().1, bytes);
        }
    });
}

#[test]
fn it_may_be_logged_only() {
    scanned(&["--yara-match", "log"], |mut opened| {
        let bundle = opened.files.bundle();
        let answer = opened.curl(&bundle, &["--http1.1"], "/a-made-up-marker");
        assert_eq!((answer.code, &*answer.output), (0, "HTTP/1.1 GET /a-made-up-marker "), "{}", answer.errors);
        assert_eq!(opened.site.said("scan")["action"], "log");
    });
}

#[test]
fn a_long_answer_is_cut_off_before_what_matches() {
    scanned(&["--yara-hold", "1"], |mut opened| {
        let before = vec![b'.'; 3 << 20];
        let body = [&before, b"a-made-up-marker".as_slice(), &vec![b'.'; 1 << 20]].concat();
        let server = answering(body.clone());
        let answer = ask(&opened, server);
        let got = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|head| &answer[head + 4..]).unwrap();
        assert!(got.len() >= 1 << 20 && got.len() <= before.len(), "{} bytes arrive", got.len());
        assert!(got.iter().all(|&byte| byte == b'.'));
        assert_eq!(opened.site.said("scan")["rule"], "marked");

        let answer = ask(&opened, answering(before.clone()));
        assert!(answer.ends_with(&before) && answer.len() < before.len() + 1000, "{} bytes arrive", answer.len());
    });
}

#[test]
fn rules_are_read_again() {
    scanned(&[], |mut opened| {
        let bundle = opened.files.bundle();
        let rules = opened.files.0.file("rules.yar");
        let code =
            |opened: &Opened, at| opened.curl(&bundle, &["--output", "/dev/null", "--write-out", "%{http_code}"], at);
        let again = |opened: &mut Opened, text: &str| {
            fs::write(&rules, text).unwrap();
            opened.site.signal(Signal::SIGHUP);
            opened.site.said("yara")
        };
        let said = again(&mut opened, "rule new { condition: nothing }");
        assert_eq!(said["in_force"], false, "{said}");
        let place = format!("{}:1:", path(&rules));
        assert!(said["mistakes"].as_str().unwrap().contains(&place), "{said}");
        assert_eq!(code(&opened, "/a-made-up-marker").output, "403");
        assert_eq!(code(&opened, "/another-marker").output, "200");

        let said = again(&mut opened, &RULES.replace("a-made-up", "another"));
        assert_eq!((&said["in_force"], &said["rules"]), (&true.into(), &1.into()), "{said}");
        assert_eq!(code(&opened, "/a-made-up-marker").output, "200");
        assert_eq!(code(&opened, "/another-marker").output, "403");
    });
}

/// A server in clear text, which answers one request with this.
fn answering(body: Vec<u8>) -> SocketAddr {
    let listener = listen("127.0.0.1:0");
    listener.set_nonblocking(false).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let head = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        assert!(head.count() > 0);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        // It does not get rid of what is cut off.
        let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&body));
    });
    address
}

/// All that an application gets.
fn ask(opened: &Opened, server: SocketAddr) -> Vec<u8> {
    let mut client: TcpStream = opened.site.connect_to(server);
    client.write_all(b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    if let Err(error) = client.read_to_end(&mut answer) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer in time");
    }
    answer
}
