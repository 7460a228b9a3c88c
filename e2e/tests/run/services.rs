use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use carnet_e2e::command::{Ended, Run, carnet_run};
use carnet_e2e::programs::foreign;
use carnet_e2e::sockets::{accept, listen, until};
use carnet_e2e::{Relay, enter, netns};
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{LOAD, THROUGH, chain, echo_server, flows, run, run_logged};

#[test]
fn the_default_is_the_built_in_service() {
    let server = echo_server();
    let destinations = server.addresses.map(|address| address.to_string());
    let (ended, objects) = run_logged(&["--", LOAD, "finish", "4", &destinations[0], &destinations[1]]);

    assert_eq!(ended.code, 0, "{ended:?}");
    let flows = flows(&objects);
    assert_eq!(flows.len(), 4);
    for flow in flows {
        assert_eq!(chain(flow), ["inspect"]);
        assert!(destinations.iter().any(|destination| flow["destination"] == destination[..]), "{flow}");
        assert_eq!((&flow["decision"], &flow["ended"]), (&"redirected".into(), &"closed".into()));
    }
}

#[test]
fn flags_are_an_order() {
    let inferred = |flow: &serde_json::Value| -> Vec<bool> {
        flow["chain"].as_array().unwrap().iter().map(|link| link["inferred"].as_bool().unwrap()).collect()
    };
    for (order, marks, expected) in [
        (["a", "b", ""], "ba", ["carnet-e2e-through", "carnet-e2e-through-2", "inspect"]),
        (["b", "a", ""], "ab", ["carnet-e2e-through", "carnet-e2e-through-2", "inspect"]),
        (["", "a", "b"], "ba", ["inspect", "carnet-e2e-through", "carnet-e2e-through-2"]),
    ] {
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap().to_string();
        let services = order.map(|mark| match mark {
            "" => "inspect".to_owned(),
            mark => format!("'{THROUGH}' {{port}} {mark}"),
        });
        let [one, two, three] = &services;
        let through = ["--through", one, "--through", two, "--through", three];
        let (seen, (ended, objects)) = thread::scope(|scope| {
            let seen = scope.spawn(|| answer(&server, marks.len()));
            let finished = run_logged(&[&through[..], &["--", LOAD, "finish", "1", &destination]].concat());
            (seen.join().unwrap(), finished)
        });
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(seen, marks.as_bytes(), "through {order:?}");
        let flow = flows(&objects)[0];
        assert_eq!(chain(flow), expected);
        // Only the built-in service says itself whose connection is whose.
        assert_eq!(inferred(flow), expected.map(|name| name != "inspect"));
    }
}

/// A service that goes elsewhere without a record makes a flow of its own: those after it have that, and nothing passes
/// them by.
#[test]
fn a_services_own_connections_go_through_those_after_it() {
    let [asked, elsewhere] = [echo_server(), echo_server()];
    let [asked, elsewhere] = [asked.addresses[0], elsewhere.addresses[0]];
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/elsewhere.py");
    let service = format!("python3 '{script}' {{port}} {} {}", elsewhere.ip(), elsewhere.port());
    let through = ["--through", &service, "--through", "inspect", "--", LOAD, "finish", "1", &asked.to_string()];
    let (ended, objects) = run_logged(&through);

    assert_eq!(ended.code, 0, "{ended:?}");
    let mut told: Vec<_> = flows(&objects).into_iter().map(|flow| (flow["destination"].clone(), chain(flow))).collect();
    told.sort_by_key(|(_, chain)| chain.concat());
    assert_eq!(told, [(elsewhere.to_string().into(), vec!["inspect"]), (asked.to_string().into(), vec!["python3"]),]);
}

#[test]
fn a_service_that_runs_already() {
    let server = echo_server();
    let service = Outside::start("own");
    let destination = server.addresses[0].to_string();
    let (ended, objects) = run_logged(&["--through", &service.at, "--", LOAD, "finish", "2", &destination]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for flow in flows(&objects) {
        assert_eq!(chain(flow), [&service.at[..]]);
        assert_eq!(flow["ended"], "closed");
    }
    assert_eq!(flows(&objects).len(), 2);
    // It is nobody's to end.
    assert!(fs::read_to_string(service.cgroup.path().join("cgroup.events")).unwrap().contains("populated 1"));
}

#[test]
fn a_service_in_the_root_cgroup_is_told_from_nothing() {
    let hierarchy = Hierarchy::find().unwrap();
    let root = Cgroup::open(&hierarchy, hierarchy.mount()).unwrap();
    let service = Relay::start(0, enter(&root, env!("CARGO_BIN_EXE_carnet-e2e-relay")).arg("unaware"));
    let at = service.addresses[0].to_string();
    assert_refused(&run(&["--through", &at, "--", "echo", "started"]), &[&at, "root cgroup", "systemd-run --scope"]);
}

#[test]
fn nobody_listens_there() {
    let at = {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        closed.local_addr().unwrap().to_string()
    };
    assert_refused(&run(&["--through", &at, "--", "echo", "started"]), &[&at, "nothing listens"]);
}

#[test]
fn a_service_that_ends_or_does_not_listen() {
    let ends = run(&["--through", "sh -c 'echo why >&2; exit 7' {port}", "--", "echo", "started"]);
    assert_eq!((ends.code, &ends.output[..]), (3, ""));
    assert!(ends.errors.contains("the service sh exited with status 7 before it listened"), "{ends:?}");
    assert!(ends.errors.contains("| why"), "{ends:?}");

    let never = run(&["--start-timeout", "1", "--through", "sleep 1000 {port}", "--", "echo", "started"]);
    assert_eq!((never.code, &never.output[..]), (3, ""));

    let silent = run(&["--start-timeout", "1", "--through", "sh -c 'exec sleep 1000' {port}", "--", "echo", "started"]);
    assert_eq!((silent.code, &silent.output[..]), (3, ""));
    assert!(silent.errors.contains("does not listen on its port after 1s (--start-timeout)"), "{silent:?}");

    let missing = run(&["--through", "/nonexistent/service {port}", "--", "echo", "started"]);
    assert_eq!((missing.code, &missing.output[..]), (3, ""));
    assert!(missing.errors.contains("/nonexistent/service"), "{missing:?}");
}

#[test]
fn a_service_that_opens_its_second_listener_late_gets_both_families() {
    let service = format!("python3 '{}' {{port}}", foreign("late.py").display());
    let (ended, objects) = run_logged(&["--through", &service, "--", "bash", "-c", "exec 3<>/dev/tcp/::1/9"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let flow = flows(&objects)[0];
    assert_eq!((&flow["decision"], chain(flow)), (&"redirected".into(), vec!["python3"]), "{flow}");
}

/// There are just four ports to choose from, and each service takes its time to take its own.
#[test]
fn services_of_one_run_never_get_the_same_port() {
    let slow = format!("sh -c 'sleep 0.2; exec \"$0\" \"$@\"' '{THROUGH}' {{port}}");
    let through = ["--through", &slow, "--through", &slow, "--through", &slow];
    netns::alone(|| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10244 60999").unwrap();
        for _ in 0..5 {
            let ended = run(&[&through[..], &["--", "true"]].concat());
            assert_eq!(ended.code, 0, "{ended:?}");
        }
    });
}

#[test]
fn a_dead_service_ends_the_command() {
    for service in ["inspect".to_owned(), format!("'{THROUGH}' {{port}}")] {
        let server = echo_server();
        let mut run = connecting(&["--through", &service], &server);
        assert_eq!(connect(&mut run), "ended 0");
        kill_service(&run);
        let ended = run.end();
        assert_eq!(ended.code, 3, "{ended:?}");
        let expected = "was killed by SIGKILL, so the command was ended; with --open it would go on without";
        assert!(ended.errors.contains(expected), "{ended:?}");
    }
}

#[test]
fn a_dead_service_is_passed_by_with_open() {
    for service in ["inspect".to_owned(), format!("'{THROUGH}' {{port}}")] {
        let server = echo_server();
        let mut run = connecting(&["--open", "--json", "--through", &service], &server);
        assert_eq!(connect(&mut run), "ended 0");
        // The client's word comes before the service's FIN: a service killed between the two resets the connection.
        until("the first flow's end", || run.errors().contains(r#""ended":"closed""#).then_some(()));
        kill_service(&run);
        until("the warning", || run.errors().contains("was killed by SIGKILL; connections pass it by").then_some(()));
        assert_eq!(connect(&mut run), "ended 0");
        run.close_input();
        let ended = run.end();

        assert_eq!(ended.code, 0, "{ended:?}");
        let objects = crate::objects(&ended.errors);
        let flows = flows(&objects);
        assert_eq!(flows.iter().map(|flow| chain(flow).len()).collect::<Vec<_>>(), [1, 0], "{ended:?}");
        assert!(flows.iter().all(|flow| flow["ended"] == "closed"));
        assert_eq!(flows[1]["decision"], "direct");
    }
}

#[test]
fn loopback_is_left_alone_when_asked() {
    netns::with_neighbour(
        || listen("10.99.0.2:0"),
        |neighbour| {
            let loopback = ["127.0.0.1:0", "[::1]:0"].map(listen);
            let servers = [&neighbour, &loopback[0], &loopback[1]];
            for (arguments, expected) in
                [(&[][..], [&["inspect"][..]; 3]), (&["--no-loopback"], [&["inspect"], &[], &[]])]
            {
                for (server, expected) in servers.iter().zip(expected) {
                    let destination = server.local_addr().unwrap().to_string();
                    let (ended, objects) = thread::scope(|scope| {
                        scope.spawn(|| answer(server, 0));
                        // Not in a thread of its own: the namespace is the thread's.
                        run_logged(&[arguments, &["--", LOAD, "finish", "1", &destination]].concat())
                    });
                    assert_eq!(ended.code, 0, "{ended:?}");
                    let flow = flows(&objects)[0];
                    assert_eq!(chain(flow), expected, "{arguments:?} {destination}");
                    let decision = if expected.is_empty() { "direct" } else { "redirected" };
                    assert_eq!(flow["decision"], decision);
                }
            }
        },
    );
}

/// A service in a cgroup of its own, started by somebody else.
struct Outside {
    at: String,
    cgroup: Cgroup,
    _service: Relay,
}

impl Outside {
    fn start(name: &str) -> Self {
        let hierarchy = Hierarchy::find().unwrap();
        let cgroup = Cgroup::create(&hierarchy, &format!("carnet-test.{}.{name}", std::process::id())).unwrap();
        let service = Relay::start(0, enter(&cgroup, env!("CARGO_BIN_EXE_carnet-e2e-relay")).arg("unaware"));
        Self { at: service.addresses[0].to_string(), cgroup, _service: service }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Err(error) = self.cgroup.remove_tree(std::time::Duration::from_secs(10)) {
            eprintln!("{error}");
        }
    }
}

/// A run whose command connects whenever it is told to: see [`connect`].
fn connecting(arguments: &[&str], server: &Relay) -> Run {
    let script = r#"echo ready; while read line; do "$0" finish 1 "$1"; echo "ended $?"; done"#;
    let destination = server.addresses[0].to_string();
    let command = ["--", "sh", "-c", script, LOAD, &destination];
    let mut run = Run::start(&mut carnet_run(&[arguments, &command].concat()));
    assert_eq!(run.line(), "ready");
    run
}

fn connect(run: &mut Run) -> String {
    run.say("go");
    run.line()
}

fn kill_service(run: &Run) {
    let processes = run.service_processes(0);
    let [service] = processes[..] else { panic!("one service, one process, not {processes:?}") };
    kill(Pid::from_raw(service.cast_signed()), Signal::SIGKILL).unwrap();
}

/// One line that says all of this, exit code 3, and no command was started.
fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!((ended.code, &ended.output[..], ended.errors.lines().count()), (3, "", 1), "{ended:?}");
    assert!(words.iter().all(|word| ended.errors.contains(word)), "{ended:?}");
}

/// Takes one connection: reads marks and a byte, sends the byte back, waits for the end. Returns the marks.
fn answer(server: &TcpListener, marks: usize) -> Vec<u8> {
    let mut client = accept(server);
    let mut read = vec![0; marks + 1];
    client.read_exact(&mut read).unwrap();
    client.write_all(&read[marks..]).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    read.truncate(marks);
    read
}

/// Started as a service, a command's own arguments stay what they are.
#[test]
fn a_services_words_are_its_own() {
    let script = r#"printf "<%s>" "$0" "$@" >&2; exit 1"#;
    let ended = run(&["--through", &format!("sh -c '{script}' 'a b' \"c  d\" x{{port}}y"), "--", "true"]);
    assert!(ended.errors.contains("<a b><c  d><x"), "{ended:?}");
    assert_eq!(ended.code, 3);
}
