//! The flow log against its description, `docs/flow-log.md`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use carnet_e2e::sockets::{accept, listen};
use serde_json::Value;

use crate::{LOAD, Scratch, chain, echo_server, flows, objects, run, run_logged};

#[test]
fn objects_are_as_described() {
    let server = echo_server();
    let destination = server.addresses[1].to_string();
    let (ended, objects) = run_logged(&["--", LOAD, "finish", "3", &destination]);
    assert_eq!((ended.code, &ended.errors[..]), (0, ""));

    let mut described = fields("## The flow object");
    described.sort();
    for flow in flows(&objects) {
        let object = flow.as_object().unwrap();
        let mut written: Vec<&str> = object.keys().map(String::as_str).collect();
        written.sort();
        assert_eq!(written, described.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>());
        for (name, kind) in &described {
            let fits = match &object[name] {
                Value::Null => kind.contains("null"),
                Value::Bool(_) => kind.contains("bool"),
                Value::Number(_) => kind.contains("number"),
                Value::String(_) => kind.contains("string"),
                Value::Array(_) => kind.contains("array"),
                Value::Object(_) => kind.contains("object"),
            };
            assert!(fits, "{name} is described as {kind}: {flow}");
        }

        let text = |name: &str| flow[name].as_str().unwrap();
        assert!(text("flow").len() == 32 && text("flow").bytes().all(|byte| byte.is_ascii_hexdigit()), "{flow}");
        assert!(text("time").ends_with('Z') && text("time").as_bytes()[10] == b'T', "{flow}");
        assert_eq!(text("program"), "carnet-e2e-load");
        assert!(text("source").starts_with("[::1]:"), "{flow}");
        assert_eq!((text("destination"), text("protocol")), (&destination[..], "tcp"));
        assert_eq!((&flow["sent"], &flow["received"]), (&1.into(), &1.into()));
        assert!(flow["duration_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(flow["uid"], 0);
    }

    let [rest @ .., summary] = &objects[..] else { panic!("there is no summary") };
    assert_eq!(rest.len(), 3, "{rest:#?}");
    for (name, expected) in [
        ("flows", 3),
        ("refused", 0),
        ("failed", 0),
        ("open", 0),
        ("not_inspected", 0),
        ("sent", 3),
        ("received", 3),
        ("events_lost", 0),
    ] {
        assert_eq!(summary[name], expected, "{name} in {summary}");
    }
    assert_eq!((summary["type"].as_str(), summary.as_object().unwrap().len()), (Some("summary"), 9), "{summary}");
}

#[test]
fn ends_that_are_not_good() {
    let closed = {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        closed.local_addr().unwrap().to_string()
    };
    let (ended, objects) = run_logged(&["--", LOAD, "refused", "1", &closed]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let flow = flows(&objects)[0];
    assert_eq!((chain(flow), &flow["ended"]), (vec!["inspect"], &"failed".into()), "{flow}");
    assert_eq!((&flow["at"], &flow["error"]), (&"destination".into(), &"ECONNREFUSED".into()), "{flow}");
    assert_eq!(objects.last().unwrap()["failed"], 1);

    let server = echo_server();
    let destination = server.addresses[0].to_string();
    let (ended, objects) = run_logged(&["--", LOAD, "reset", "1", &destination]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let flow = flows(&objects)[0];
    assert_eq!((&flow["ended"], &flow["at"]), (&"aborted".into(), &Value::Null), "{flow}");

    // The first connection is in flight while the second one is made: the guard against loops refuses that one.
    let (ended, objects) = run_logged(&["--loop-limit", "1", "--", LOAD, "hold", "2", &destination]);
    assert_ne!(ended.code, 0, "{ended:?}");
    let refused: Vec<_> = flows(&objects).into_iter().filter(|flow| flow["decision"] == "refused").collect();
    assert_eq!(refused.len(), 1, "{objects:#?}");
    assert_eq!((&refused[0]["ended"], &refused[0]["reason"]), (&"refused".into(), &"runaway".into()));
    assert_eq!(refused[0]["at"]["service"], "inspect");
    assert_eq!(objects.last().unwrap()["refused"], 1);
}

#[test]
fn a_line_in_a_pipe() {
    let server = echo_server();
    let destination = server.addresses[0].to_string();
    let ended = run(&["--", LOAD, "finish", "1", &destination]);
    assert_eq!((ended.code, &ended.output[..]), (0, ""));
    let lines: Vec<&str> = ended.errors.lines().collect();
    let [line, summary] = lines[..] else { panic!("a flow and a summary, not {lines:#?}") };
    assert_eq!(summary, "carnet: 1 flow, 1 B up, 1 B down");
    assert!(!ended.errors.contains('\x1b'), "{ended:?}");

    let fields: Vec<&str> = line.split("  ").collect();
    let [time, program, to, bytes, duration, end, chain] = fields[..] else { panic!("{fields:?}") };
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "00:00:00.000");
    let pid = program.strip_prefix("carnet-e2e-load[").and_then(|rest| rest.strip_suffix(']')).unwrap();
    pid.parse::<u32>().unwrap();
    assert_eq!((to, bytes, end, chain), (&destination[..], "1 B up, 1 B down", "closed", "inspect"));
    duration.strip_suffix(" ms").unwrap().parse::<f64>().unwrap();

    let coloured = run(&["--color", "always", "--", LOAD, "finish", "1", &destination]);
    assert!(coloured.errors.contains("\x1b["), "{coloured:?}");
}

#[test]
fn the_log_may_be_a_file() {
    let server = echo_server();
    let destination = server.addresses[0].to_string();
    let log = Scratch::new();
    let ended =
        run(&["--log", log.path(), "--", "sh", "-c", r#"echo mine >&2; "$0" finish 2 "$1""#, LOAD, &destination]);
    assert_eq!((ended.code, &ended.errors[..]), (0, "mine\n"));
    let text = log.text();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert_eq!(text.lines().last(), Some("carnet: 2 flows, 2 B up, 2 B down"));

    let ended = run(&["--log", "/nonexistent/log", "--", "echo", "started"]);
    assert_eq!((ended.code, &ended.output[..], ended.errors.lines().count()), (3, "", 1), "{ended:?}");
    assert!(ended.errors.contains("/nonexistent/log"), "{ended:?}");
}

#[test]
fn names_are_read() {
    let server = listen("127.0.0.1:0");
    let port = server.local_addr().unwrap().port();
    for (scheme, from) in [("http", "http"), ("https", "tls")] {
        let url = format!("{scheme}://carnet.example:{port}/");
        let to = format!("carnet.example:{port}:127.0.0.1:{port}");
        let curl = ["--", "curl", "--silent", "--max-time", "10", "--connect-to", &to, &url];
        let (ended, text) = thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    let mut client = accept(&server);
                    assert_ne!(client.read(&mut [0; 4096]).unwrap(), 0);
                    // To a client that speaks TLS it is nonsense, which is as good: the name was in what the client said.
                    client.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
                }
            });
            let json = run(&[&["--json"], &curl[..]].concat());
            let text = run(&curl);
            (json, text)
        });
        assert_eq!(ended.output, if from == "http" { "hello" } else { "" }, "{ended:?}");
        let objects = objects(&ended.errors);
        let flow = flows(&objects)[0];
        assert_eq!((&flow["name"], &flow["name_from"]), (&"carnet.example".into(), &from.into()), "{flow}");
        assert!(text.errors.contains(&format!("  carnet.example 127.0.0.1:{port}  ")), "{text:?}");
    }
}

/// Names and types of the fields in a table of the description.
fn fields(heading: &str) -> Vec<(String, String)> {
    let description = include_str!("../../../docs/flow-log.md");
    let (_, section) = description.split_once(heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let fields: Vec<_> =
        rows.map(|(name, rest)| (name.to_owned(), rest.split(" | ").next().unwrap().to_owned())).collect();
    assert!(fields.len() > 15, "{fields:?}");
    fields
}
