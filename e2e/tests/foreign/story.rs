//! Why there is Carnet: two proxies that know nothing of each other, each of which rightly leaves out its own traffic.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use carnet_e2e::command::{carnet_run, finish};
use carnet_e2e::flow_log::FlowLog;
use carnet_e2e::netns;
use carnet_e2e::programs::{CURL_GOT_NOTHING, Started, foreign, path, program, require, succeed};
use carnet_e2e::sockets::until;
use carnet_engine::listeners;

use crate::stage::{SOCKS_PORT, Stage};

/// Neither root nor each other. Rules and the system know them by number only.
const UID_A: u32 = 64_001;
const UID_B: u32 = 64_002;
/// In a network namespace of the test's own.
const PORT_A: u16 = 15_001;
const PORT_B: u16 = 15_002;
/// So that a loop ends.
const MOST_CONNECTIONS: u64 = 200;

#[test]
fn two_redirectors_loop_and_behind_carnet_they_do_not() {
    require(&["nft", "setpriv"]);
    netns::alone(|| {
        let stage = Stage::new();
        let [origin, _] = &stage.http;
        let connections = with_nft_redirect(&stage, origin.address);
        assert!(connections.iter().all(|&count| count > 10), "connections of one request: {connections:?}");
        let at_most = 2 * MOST_CONNECTIONS;
        assert!(connections.iter().sum::<u64>() <= at_most + 20, "connections of one request: {connections:?}");
        assert_eq!(origin.served(), [], "the request never arrived");
        println!("nft REDIRECT to two proxies: {} connections for one request", connections.iter().sum::<u64>());
    });
    netns::alone(|| {
        let stage = Stage::new();
        with_carnet(&stage, stage.http[0].address);
        until("the origin to see the connection's end", || (!stage.http[0].served().is_empty()).then_some(()));
        assert_eq!(stage.http[0].served().len(), 1);
    });
}

/// Both proxies behind their own rules; one request, which fails. New connections that each rule has redirected.
fn with_nft_redirect(stage: &Stage, origin: SocketAddr) -> [u64; 2] {
    let mut proxies = Vec::new();
    for (uid, port) in [(UID_A, PORT_A), (UID_B, PORT_B)] {
        proxies.push(haproxy(port, uid));
        // Not by a connection: that would have no original destination, and HAProxy would dial itself.
        until("HAProxy to listen", || listeners(port).expect("listeners").first().map(drop));
    }
    let rule = |name: &str, priority: i32, uid: u32, port: u16| {
        format!(
            "table ip {name} {{
               chain output {{
                 type nat hook output priority {priority};
                 ip daddr {} tcp dport {} meta skuid != {uid} counter redirect to :{port}
               }}
             }}\n",
            origin.ip(),
            origin.port(),
        )
    };
    let rules = stage.file("rules.nft");
    let text = rule("carnet_a", -100, UID_A, PORT_A) + &rule("carnet_b", -99, UID_B, PORT_B);
    fs::write(&rules, text).expect("a file of rules");
    succeed(program("nft").arg("-f").arg(&rules));

    let ended = finish(program("curl").args(["-sS", "--max-time", "5"]).arg(format!("http://{origin}/story")));
    assert_ne!(ended.code, 0, "one request went through two proxies, which this kernel should not let it: {ended:?}");
    ["carnet_a", "carnet_b"].map(|table| {
        let shown = succeed(program("nft").args(["list", "table", "ip", table]));
        let count = shown.split_once("counter packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("no counter in {shown}"))
    })
}

/// The same two proxies, the same users, the same request.
fn with_carnet(stage: &Stage, origin: SocketAddr) {
    let haproxy = |uid: u32| format!("'{}' {{port}} {uid} {MOST_CONNECTIONS}", foreign("haproxy").display());
    let [a, b] = [UID_A, UID_B].map(haproxy);
    let log = stage.file("flows.json").display().to_string();
    let url = format!("http://{origin}/story");
    let run = ["--verbose", "--json", "--log", &log, "--through", &a, "--through", &b];
    let mut command: Command = carnet_run(&[&run[..], &["--", "curl", "-sS", "--max-time", "5", &url]].concat());
    let ended = finish(command.env("PATH", path()));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.output.starts_with("/story/story"), "{ended:?}");

    let log = FlowLog::read(log.as_ref());
    let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
    assert_eq!(flow.chain(), [("haproxy", true), ("haproxy-2", true)]);
    assert_eq!((flow.destination(), flow.text("ended")), (origin, Some("closed")));
    // HAProxy writes a line for each connection.
    for service in ["[haproxy] ", "[haproxy-2] "] {
        let said = |line: &&str| line.starts_with(service) && line.contains("redirected/original");
        assert_eq!(ended.errors.lines().filter(said).count(), 1, "{service}: {}", ended.errors);
    }
}

/// A SOCKS server that is another user's and not in the service's cgroup is an application like any other: what it dials
/// for redsocks goes to redsocks again. Only the guard can end that.
#[test]
fn a_helper_outside_the_service_is_ended_by_the_guard() {
    const LIMIT: usize = 64;
    netns::alone(|| {
        let stage = Stage::new();
        let [origin, _] = &stage.http;
        let redsocks = format!("'{}' {{port}} {SOCKS_PORT} alone", foreign("redsocks").display());
        // The SOCKS server is the command's, and known to listen when curl starts.
        let script = format!(
            "setpriv --reuid {UID_B} --clear-groups microsocks -i 127.0.0.1 -p {SOCKS_PORT} 2>/dev/null &
            until grep -q '{} 00000000:0000 0A' /proc/net/tcp; do kill -0 $! || exit 99; sleep 0.01; done
            exec curl -sS --max-time 10 http://{}/story",
            format_args!("0100007F:{SOCKS_PORT:04X}"),
            origin.address,
        );
        let command = ["sh".to_owned(), "-c".to_owned(), script];
        let limit = LIMIT.to_string();
        let (ended, log) = stage.run(&[], &["--through", &redsocks, "--loop-limit", &limit], &command);
        assert!(CURL_GOT_NOTHING.contains(&ended.code), "curl gets no answer: {ended:?}");

        // redsocks's own connections to the SOCKS server are flows as well, and nobody is above it to get them.
        let (own, flows): (Vec<_>, Vec<_>) =
            log.flows.iter().partition(|flow| flow.text("program") == Some("redsocks"));
        assert_eq!(flows.len(), LIMIT + 1, "as many as the limit, and the one that was refused: {:#?}", log.summary);
        assert_eq!(own.len(), LIMIT);
        assert!(own.iter().all(|flow| flow.text("decision") == Some("direct")), "{own:#?}");
        let refused: Vec<_> = log.flows.iter().filter(|flow| flow.text("decision") == Some("refused")).collect();
        let [refused] = &refused[..] else { panic!("one was refused: {refused:#?}") };
        let said = ["program", "reason", "error"].map(|field| refused.text(field).unwrap_or_default());
        assert_eq!(said, ["microsocks", "runaway", "ELOOP"]);
        assert_eq!((refused.number("uid"), refused.at()), (UID_B.into(), Some("redsocks")));
        let by = |program: &str| log.flows.iter().filter(|flow| flow.text("program") == Some(program)).count();
        assert_eq!((by("curl"), by("microsocks")), (1, LIMIT));
        assert!(flows.iter().all(|flow| flow.destination() == origin.address));
        assert_eq!(origin.served(), []);
    });
}

/// HAProxy as this user, killed when dropped. Where the test itself is killed, it ends too.
fn haproxy(port: u16, uid: u32) -> Started {
    let mut command = program("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(foreign("haproxy"));
    command.args([port.to_string(), uid.to_string(), MOST_CONNECTIONS.to_string()]);
    Started::by(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}
