//! Upstreams that are programs of other people: HAProxy for the PROXY protocol, Squid for CONNECT, microsocks for SOCKS5.

use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use carnet::Redirect;
use carnet_abi::{EVENT_CONNECT, Event, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::origin::{Origin, body_of};
use carnet_e2e::programs::{Scratch, Started, program, require, succeed};
use carnet_e2e::sockets::{PATIENCE, accept, connect, connect_on, stream, until};
use carnet_e2e::{Sandbox, Service, netns};
use carnet_policy::Service as Carries;
use carnet_proxy::upstream::{Answer, Credentials, Error, Kind, Target, Upstream};
use nix::errno::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

#[test]
fn squid_connects() {
    netns::alone(|| {
        let origins = ["127.0.0.1:0", "[::1]:0"].map(Origin::http);
        let everywhere = Origin::http("[::]:0");
        let closed = Origin::http("127.0.0.1:0").address;
        let (_scratch, _squid) = squid(&["http_access allow all"]);
        let squid = Upstream::new(Kind::HttpConnect, SQUID, None).expect("no credentials");
        for origin in &origins {
            assert_eq!(fetch(&squid, &Target::to(origin.address)).expect("squid connects"), body_of("/"));
        }
        let named = Target { name: Some("localhost"), ..Target::to(nowhere(everywhere.address.port())) };
        assert_eq!(fetch(&squid.clone().by_name(true), &named).expect("squid knows the name"), body_of("/"));

        until_closed(closed);
        let error = fetch(&squid, &Target::to(closed)).expect_err("nobody listens there");
        assert_eq!(error.io_kind(), ErrorKind::ConnectionRefused, "{error}");
        assert!(matches!(&error, Error::Refused { answer: Answer::Http { status: 503, .. }, .. }), "{error}");
        let error = fetch(&squid, &Target::to(SQUID_SAYS_NO)).expect_err("its rules do not allow it");
        assert_eq!(error.io_kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(matches!(&error, Error::Refused { answer: Answer::Http { status: 403, .. }, .. }), "{error}");
    });
}

#[test]
fn squid_wants_a_login() {
    netns::alone(|| {
        let origin = Origin::http("127.0.0.1:0");
        let passwords = Scratch::new();
        let file = passwords.file("passwords");
        let hash = succeed(program("openssl").args(["passwd", "-apr1", "s3:cret"]));
        fs::write(&file, format!("me:{hash}")).expect("a file");
        let helper = format!("auth_param basic program /usr/lib/squid/basic_ncsa_auth {}", file.display());
        let rules = [&helper, "acl known proxy_auth REQUIRED", "http_access allow known"];
        let (_scratch, _squid) = squid(&rules);

        let ask = |credentials| {
            let upstream = Upstream::new(Kind::HttpConnect, SQUID, credentials).expect("they fit");
            fetch(&upstream, &Target::to(origin.address))
        };
        assert_eq!(ask(Some(Credentials::new("me", "s3:cret"))).expect("the password is right"), body_of("/"));
        let error = ask(Some(Credentials::new("me", "wrong"))).expect_err("it is not");
        assert!(matches!(error, Error::CredentialsRefused { .. }), "{error}");
        let error = ask(None).expect_err("it is missing");
        assert!(matches!(error, Error::CredentialsWanted { .. }), "{error}");
    });
}

#[test]
fn microsocks_connects() {
    netns::alone(|| {
        let origins = ["127.0.0.1:0", "[::1]:0"].map(Origin::http);
        let everywhere = Origin::http("[::]:0");
        let closed = Origin::http("127.0.0.1:0").address;
        let _microsocks = microsocks(&[]);
        let socks = Upstream::new(Kind::Socks5, MICROSOCKS, None).expect("no credentials");
        for origin in &origins {
            assert_eq!(fetch(&socks, &Target::to(origin.address)).expect("it connects"), body_of("/"));
        }
        let named = Target { name: Some("localhost"), ..Target::to(nowhere(everywhere.address.port())) };
        assert_eq!(fetch(&socks.clone().by_name(true), &named).expect("it knows the name"), body_of("/"));
        let unknown = Target { name: Some("nobody.invalid"), ..named };
        fetch(&socks.clone().by_name(true), &unknown).expect_err("there is no such name");

        until_closed(closed);
        let error = fetch(&socks, &Target::to(closed)).expect_err("nobody listens there");
        assert!(matches!(error, Error::Refused { answer: Answer::Socks5(5), .. }), "{error}");
        let http = Upstream::new(Kind::HttpConnect, MICROSOCKS, None).expect("no credentials");
        let error = fetch(&http, &Target::to(origins[0].address)).expect_err("it speaks no HTTP");
        assert!(matches!(error, Error::NotOne { .. } | Error::Ended { .. }), "{error}");
    });
}

#[test]
fn microsocks_wants_a_login() {
    netns::alone(|| {
        let origin = Origin::http("127.0.0.1:0");
        let _microsocks = microsocks(&["-u", "me", "-P", "secret"]);
        let ask = |credentials| {
            let upstream = Upstream::new(Kind::Socks5, MICROSOCKS, credentials).expect("they fit");
            fetch(&upstream, &Target::to(origin.address))
        };
        assert_eq!(ask(Some(Credentials::new("me", "secret"))).expect("the password is right"), body_of("/"));
        let error = ask(Some(Credentials::new("me", "wrong"))).expect_err("it is not");
        assert!(matches!(error, Error::CredentialsRefused { .. }), "{error}");
        let error = ask(None).expect_err("it is missing");
        assert!(matches!(error, Error::CredentialsWanted { .. }), "{error}");
    });
}

/// HAProxy tells what it has read: addresses, name and flow. It has to read past Carnet's own fields to get to the last.
#[test]
fn haproxy_reads_the_header() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Carries::Aware);
        let _haproxy = haproxy();
        let told = Upstream::new(Kind::ProxyV2, HAPROXY, None).expect("no credentials");
        let long = format!("/{}", "x".repeat(4000));
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let origin = Origin::http(at);
            let (client, accepted) = sandbox.arrive(&service, origin.address);
            let flow = Redirect::of(&accepted).flow().expect("a flow");
            let source = client.local_addr().expect("an address");
            let alpn = ["h2".to_owned()];
            let target = Target {
                name: Some("example.org"),
                alpn: &alpn,
                flow: Some(&flow),
                executable: Some(Path::new(&long)),
                ..Target::to(flow.destination())
            };
            let seen = fetch(&told, &target).expect("a header has no answer");
            let [from, to] = [source, origin.address].map(|address| format!("{} {}", address.ip(), address.port()));
            assert_eq!(seen, format!("{from} {to} example.org {:032X}", flow.id()));
        }
        // HAProxy's words for a port of 0 and for what is missing are nothing.
        let to = nowhere(80);
        assert_eq!(fetch(&told, &Target::to(to)).expect("as before"), format!("0.0.0.0  {} {}  ", to.ip(), to.port()));
    });
}

/// The record is on the socket that goes to the upstream. The kernel has that connection arrive there, and knows whose it is.
#[test]
fn a_flow_goes_to_an_upstream_with_its_record() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Carries::Aware);
        let origin = Origin::http("127.0.0.1:0");
        let _microsocks = microsocks(&[]);
        let (_client, accepted) = sandbox.arrive(&service, origin.address);
        let flow = Redirect::of(&accepted).flow().expect("a flow");

        let onward = go_on(&sandbox, &service, &accepted);
        let mut decisions = sandbox.events();
        decisions.retain(|event| event.kind == EVENT_CONNECT);
        let [_, decision] = decisions[..] else { panic!("two decisions: {decisions:#?}") };
        assert_eq!((decision.verdict, decision.remote.to_socket_addr()), (VERDICT_PASS, MICROSOCKS));
        assert_eq!(carnet_abi::flow_id(decision.record.flow), flow.id());

        let socks = Upstream::new(Kind::Socks5, MICROSOCKS, None).expect("no credentials");
        assert_eq!(fetch_on(onward, &socks, &Target::to(flow.destination())).expect("it connects"), body_of("/"));
        // The upstream's own connection is not governed: nobody has decided on it.
        assert!(sandbox.events().iter().all(|event| event.kind != EVENT_CONNECT));
    });
}

/// A refusal by the upstream says nothing of the destination. The next flow there comes to the service as this one did.
#[test]
fn an_upstream_that_is_away_refuses_nothing_to_applications() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Carries::Aware);
        let origin = Origin::http("127.0.0.1:0");
        for _ in 0..2 {
            let (_client, accepted) = sandbox.arrive(&service, origin.address);
            let refused = dial(&sandbox, &service, &accepted).expect_err("nobody listens there");
            assert_eq!(refused, Errno::ECONNREFUSED as i32);
        }
    });
}

/// An upstream below the governed cgroup is an application like any other: what it dials comes back to the service, as
/// a flow of the upstream's own. A service that hands that one to the upstream, too, has made a loop.
#[test]
fn an_upstream_that_is_governed_comes_back() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Carries::Aware);
        let origin = Origin::http("127.0.0.1:0");
        let _microsocks = listening(MICROSOCKS, sandbox.app_command("microsocks").args(MICROSOCKS_AT));
        let (_client, accepted) = sandbox.arrive(&service, origin.address);
        let flow = Redirect::of(&accepted).flow().expect("a flow");
        let onward = go_on(&sandbox, &service, &accepted);
        sandbox.events();

        let socks = Upstream::new(Kind::Socks5, MICROSOCKS, None).expect("no credentials");
        let runtime = runtime();
        // It connects in its own eyes: to the service.
        runtime.block_on(async {
            let mut onward = tokio::net::TcpStream::from_std(onward).expect("a socket");
            socks.greet(&mut onward, &Target::to(flow.destination())).await.expect("it connects");
        });
        let back = Redirect::of(&accept(&service.listeners[0])).flow().expect("a flow");
        assert_eq!((back.destination(), back.depth(), &*back.origin().comm), (origin.address, 1, "microsocks"));
        assert_ne!(back.id(), flow.id());
        let is_redirected = |event: &Event| (event.kind, event.verdict) == (EVENT_CONNECT, VERDICT_REDIRECT);
        assert!(sandbox.events().iter().any(is_redirected));
        assert_eq!(origin.served(), []);
    });
}

fn go_on(sandbox: &Sandbox, service: &Service, accepted: &TcpStream) -> TcpStream {
    let onward = dial(sandbox, service, accepted).expect("connect");
    onward.set_nonblocking(true).expect("non-blocking");
    onward
}

/// The service's connection to the upstream, in the flow's name.
fn dial(sandbox: &Sandbox, service: &Service, accepted: &TcpStream) -> Result<TcpStream, i32> {
    sandbox.in_service(service.index, || {
        let socket = stream(MICROSOCKS);
        Redirect::of(accepted).records().expect("a record").apply_to(&socket).expect("set");
        connect_on(socket, &MICROSOCKS.into())
    })
}

/// Through an upstream to an HTTP server. The answer's body.
fn fetch(through: &Upstream, to: &Target<'_>) -> Result<String, Error> {
    let stream = connect(through.address()).expect("the upstream accepts");
    stream.set_nonblocking(true).expect("non-blocking");
    fetch_on(stream, through, to)
}

fn fetch_on(stream: TcpStream, through: &Upstream, to: &Target<'_>) -> Result<String, Error> {
    runtime().block_on(async {
        let mut stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
        through.greet(&mut stream, to).await?;
        let request = b"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("it reads");
        let mut answer = String::new();
        let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
        read.expect("it answers in time").expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer of HTTP: {answer:?}"));
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok(body.to_owned())
    })
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn squid(rules: &[&str]) -> (Scratch, Started) {
    require(&["squid", "openssl"]);
    let scratch = Scratch::new();
    let mut configuration = format!("http_port {SQUID}\nacl no port {}\nhttp_access deny no\n", SQUID_SAYS_NO.port());
    for rule in rules.iter().chain(SQUID_ALONE) {
        writeln!(configuration, "{rule}").expect("to memory");
    }
    let file = scratch.file("squid.conf");
    fs::write(&file, configuration).expect("a configuration");
    let squid = listening(SQUID, program("squid").args(["-N", "-f"]).arg(file));
    (scratch, squid)
}

fn microsocks(options: &[&str]) -> Started {
    require(&["microsocks"]);
    listening(MICROSOCKS, program("microsocks").args(MICROSOCKS_AT).args(options))
}

fn haproxy() -> (Scratch, Started) {
    require(&["haproxy"]);
    let scratch = Scratch::new();
    let file = scratch.file("haproxy.cfg");
    fs::write(&file, HAPROXY_CONFIGURATION).expect("a configuration");
    let haproxy = listening(HAPROXY, program("haproxy").args(["-db", "-f"]).arg(file));
    (scratch, haproxy)
}

fn listening(at: SocketAddr, command: &mut Command) -> Started {
    let started = Started::by(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    until("the upstream to listen", || connect(at).ok());
    started
}

/// An origin's threads end a little after it.
fn until_closed(at: SocketAddr) {
    until("the port to be closed", || connect(at).is_err().then_some(()));
}

/// An address of nobody's, for a name that leads somewhere else.
fn nowhere(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

// Nobody else is in a test's network namespace.
const SQUID: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
const SQUID_SAYS_NO: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 25);
const MICROSOCKS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1080);
const MICROSOCKS_AT: [&str; 4] = ["-i", "127.0.0.1", "-p", "1080"];
const HAPROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// What a squid of a test's must not do to the host's own one.
const SQUID_ALONE: &[&str] = &[
    "http_access deny all",
    "hosts_file /etc/hosts",
    "dns_nameservers 127.0.0.1",
    "cache deny all",
    "pid_filename none",
    "access_log none",
    "cache_log /dev/null",
    "coredump_dir none",
    "pinger_enable off",
    "shutdown_lifetime 0 seconds",
];

/// Carnet's own fields can be asked for (`fc_pp_tlv`) from HAProxy 2.9 on, which is newer than Debian 12's.
const HAPROXY_CONFIGURATION: &str = r#"
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend told
    bind 127.0.0.1:8080 accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id,hex]"
"#;
