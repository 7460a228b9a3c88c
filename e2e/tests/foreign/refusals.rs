//! What does not work is refused at once and said; nothing hangs or goes round.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use carnet_e2e::netns;
use carnet_e2e::programs::{CURL_GOT_NOTHING, foreign};

use crate::stage::Service::{Haproxy, Inspect, Mitmdump, Redsocks};
use crate::stage::{SOCKS_PORT, Stage};

/// curl's own exit codes.
const CURL_GOT_AN_ERROR: i32 = 22;
const CURL_COULD_NOT_CONNECT: i32 = 7;

/// Nobody listens on it in a network namespace of the test's own.
const CLOSED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

#[test]
fn a_closed_port_is_closed_through_every_service() {
    netns::alone(|| {
        let stage = Stage::new();
        for service in [Inspect, Haproxy, Redsocks, Mitmdump] {
            let (ended, log) = stage.run(&[service], &[], &curl(&format!("http://{CLOSED}/")));
            // Some versions of mitmproxy answer themselves: status 502.
            let answers = service == Mitmdump && ended.code == CURL_GOT_AN_ERROR;
            assert!(answers || CURL_GOT_NOTHING.contains(&ended.code), "{service:?}: {ended:?}");
            let [flow] = &log.to(CLOSED)[..] else { panic!("one flow: {log:#?}") };
            assert_eq!((flow.text("ended"), flow.at()), (Some("failed"), Some("destination")), "{flow:?}");
            assert_eq!(flow.text("error"), Some("ECONNREFUSED"));
            assert_eq!(flow.chain(), [(service.name(), !service.is_aware())]);
            assert_eq!((log.flows.len(), log.summary["failed"].as_u64()), (1, Some(1)));
        }
    });
}

/// HAProxy knows IPv4 destinations only, and listens there only. An IPv6 flow cannot be told to it, so connect() says so
/// at once, and a client that has both families goes on to IPv4.
#[test]
fn ipv6_is_refused_where_the_service_does_not_know_it() {
    netns::alone(|| {
        let stage = Stage::new();
        let [_, v6] = &stage.http;
        let (ended, log) = stage.run(&[Haproxy], &[], &curl(&format!("http://{}/", v6.address)));
        assert_eq!(ended.code, CURL_COULD_NOT_CONNECT, "{ended:?}");
        let [asked] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        let said = ["program", "decision", "reason", "error"].map(|field| asked.text(field).unwrap_or_default());
        assert_eq!(said, ["curl", "refused", "family", "ECONNREFUSED"]);
        assert_eq!(v6.served(), []);
    });
}

/// A proxy that does not ask for the original destination takes its own port for it. Its connection to itself is refused.
#[test]
fn a_service_that_dials_itself_is_stopped() {
    netns::alone(|| {
        let stage = Stage::new();
        let [v4, _] = &stage.http;
        let service = format!("'{}' {{port}} {SOCKS_PORT} without-original-destination", foreign("redsocks").display());
        let (ended, log) = stage.run(&[], &["--through", &service], &curl(&format!("http://{}/", v4.address)));
        assert!(CURL_GOT_NOTHING.contains(&ended.code), "{ended:?}");
        let [dialled, asked] = &log.flows[..] else { panic!("two flows: {log:#?}") };
        let said = ["program", "decision", "reason", "error"].map(|field| dialled.text(field).unwrap_or_default());
        assert_eq!(said, ["microsocks", "refused", "own-listener", "ELOOP"]);
        assert_eq!((asked.destination(), asked.text("program")), (v4.address, Some("curl")));
        assert_eq!(v4.served(), []);
    });
}

/// The command's exit code is the run's, whatever services do.
#[test]
fn exit_codes_are_the_commands() {
    netns::alone(|| {
        let stage = Stage::new();
        for code in [0, 1, 7, 125] {
            let command = ["sh", "-c", &format!("exit {code}")].map(str::to_owned);
            let (ended, log) = stage.run(&[Inspect, Haproxy], &[], &command);
            assert_eq!((ended.code, log.flows.len()), (code, 0), "{ended:?}");
        }
    });
}

fn curl(url: &str) -> Vec<String> {
    ["curl", "-sS", "--fail", "--max-time", "10", url].map(str::to_owned).into()
}
