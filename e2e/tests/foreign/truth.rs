//! A name with an IPv6 and an IPv4 address, and no IPv6 route: every client gets there by IPv4, as without Carnet. A
//! connect() to a service that stood in for the IPv6 address would have succeeded, and the client would be lost.

use std::fs;
use std::net::SocketAddr;

use carnet_e2e::flow_log::Flow;
use carnet_e2e::netns;
use carnet_e2e::origin::Exchange;
use carnet_e2e::programs::{foreign, path, program, require, succeed};
use carnet_e2e::sockets::until;

use crate::clients::{build, built};
use crate::stage::{Service, Stage};

#[test]
fn curl_resolves_the_name() {
    arrives_by_ipv4(&["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "URL"], 1, false);
}

#[test]
fn curl_begins_with_ipv6() {
    let resolve = format!("{NAME}:PORT:[{UNREACHABLE}],127.0.0.1");
    let command = ["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "--resolve", &resolve, "URL"];
    arrives_by_ipv4(&command, 1, true);
}

#[test]
fn node_resolves_the_name() {
    let script = foreign("client.js").display().to_string();
    arrives_by_ipv4(&["node", &script, "URL"], 2, false);
}

#[test]
fn node_begins_with_ipv6() {
    let script = foreign("client.js").display().to_string();
    arrives_by_ipv4(&["node", &script, "URL", UNREACHABLE, "127.0.0.1"], 1, true);
}

#[test]
fn go_resolves_the_name() {
    build();
    let client = built("go-client").display().to_string();
    arrives_by_ipv4(&[&client, "CERTIFICATES", &format!("URL@{NAME}")], 1, false);
}

#[test]
fn java_resolves_the_name() {
    build();
    let classes = built("").display().to_string();
    let java =
        ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &classes, "Client", "CERTIFICATES", "URL"];
    arrives_by_ipv4(&java, 1, false);
}

/// The client makes this many requests and each is answered. `tries_ipv6`: it is known to try that first, so that there
/// is a refusal to be seen; others ask the kernel for a route before they choose.
fn arrives_by_ipv4(client: &[&str], requests: usize, tries_ipv6: bool) {
    require(&[client[0], "unshare"]);
    netns::alone(|| {
        let stage = Stage::new();
        let v4 = stage.http[0].address;
        let hosts = stage.file("hosts");
        // IPv6 first: those who take what comes first must get there too.
        fs::write(&hosts, format!("{UNREACHABLE} {NAME}\n127.0.0.1 {NAME}\n")).expect("a hosts file");
        let url = format!("http://{NAME}:{}/both", v4.port());
        let certificates = stage.trusted(&[Service::Inspect]);
        let client = client.iter().map(|word| {
            let word = word.replace("URL", &url).replace("CERTIFICATES", &certificates);
            word.replace("PORT", &v4.port().to_string())
        });
        // The file takes the place of /etc/hosts, for this command alone.
        let mounted = ["unshare", "--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""];
        let mounted = mounted.map(str::to_owned).into_iter().chain([hosts.display().to_string()]);
        let command: Vec<String> = mounted.chain(client).collect();

        succeed(program(&command[0]).args(&command[1..]).env("PATH", path()));
        let (ended, log) = stage.run(&[Service::Inspect], &[], &command);
        assert_eq!(ended.code, 0, "{}\n{}", ended.output, ended.errors);

        let flows: Vec<&Flow> = log.flows.iter().filter(|flow| flow.text("protocol") == Some("tcp")).collect();
        let (arrived, others): (Vec<&Flow>, Vec<&Flow>) = flows.iter().partition(|flow| flow.destination() == v4);
        assert_eq!(arrived.len(), requests, "{flows:#?}");
        for flow in arrived {
            assert_eq!((flow.text("ended"), flow.chain()), (Some("closed"), vec![("inspect", false)]));
        }
        for flow in &others {
            let told = (flow.text("decision"), flow.text("ended"), flow.text("reason"), flow.text("error"));
            assert_eq!(told, (Some("refused"), Some("refused"), Some("no-route"), Some("ENETUNREACH")));
            assert_eq!(flow.destination(), SocketAddr::new(UNREACHABLE.parse().expect("an address"), v4.port()));
        }
        assert!(!tries_ipv6 || !others.is_empty(), "{flows:#?}");
        until("the origin to have served both times", || {
            let is_ours = |exchange: &&Exchange| exchange.path == "/both";
            (stage.http[0].served().iter().filter(is_ours).count() == 2 * requests).then_some(())
        });
    });
}

const NAME: &str = "both.test";
const UNREACHABLE: &str = "2001:db8::1";
