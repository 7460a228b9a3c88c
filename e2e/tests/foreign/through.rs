//! Every client through every service, alone and in chains with `inspect`: each connection once through each.

use carnet_e2e::flow_log::{Flow, FlowLog};
use carnet_e2e::netns;
use carnet_e2e::origin::Exchange;
use carnet_e2e::sockets::until;

use crate::clients::{Client, CurlTransfer, build};
use crate::stage::Service::{self, Go, Haproxy, Inspect, Mitmdump, Redsocks};
use crate::stage::{Stage, Target};

#[test]
fn inspect() {
    every_client(&[Inspect]);
}

#[test]
fn haproxy() {
    every_client(&[Haproxy]);
}

#[test]
fn redsocks() {
    every_client(&[Redsocks]);
}

#[test]
fn mitmproxy() {
    every_client(&[Mitmdump]);
}

/// Clients of plain TCP come to its MPTCP listener, as to those of every server in Go since Go 1.24.
#[test]
fn a_service_in_go_that_listens_for_mptcp() {
    every_client(&[Go]);
}

#[test]
fn a_service_in_go_before_and_after_inspect() {
    every_client(&[Go, Inspect]);
    every_client(&[Inspect, Go]);
}

#[test]
fn inspect_then_haproxy() {
    every_client(&[Inspect, Haproxy]);
}

#[test]
fn haproxy_then_inspect() {
    every_client(&[Haproxy, Inspect]);
}

#[test]
fn inspect_then_redsocks() {
    every_client(&[Inspect, Redsocks]);
}

#[test]
fn redsocks_then_inspect() {
    every_client(&[Redsocks, Inspect]);
}

#[test]
fn inspect_then_mitmproxy() {
    every_client(&[Inspect, Mitmdump]);
}

#[test]
fn mitmproxy_then_inspect() {
    every_client(&[Mitmdump, Inspect]);
}

#[test]
fn four_at_once() {
    every_client(&[Redsocks, Mitmdump, Inspect, Haproxy]);
}

fn every_client(services: &[Service]) {
    build();
    netns::alone(|| {
        let mut stage = Stage::new();
        for client in Client::ALL {
            eprintln!("{client:?} through {services:?}");
            fetch_all(&mut stage, services, client);
        }
    });
}

fn fetch_all(stage: &mut Stage, services: &[Service], client: Client) {
    let ipv6 = services.iter().all(|service| service.has_ipv6());
    let targets = stage.targets(&format!("{client:?}"), ipv6);
    let command = client.command(stage, &stage.trusted(services), &targets);
    let (ended, log) = stage.run(services, &[], &command);
    assert_eq!(ended.code, 0, "{}\n{}\n{log:#?}", ended.output, ended.errors);
    assert_eq!(ended.errors, "");
    client.check_output(stage, &ended.output, &targets);

    check_summary(&log, targets.len() * client.times());
    // mitmproxy closes a TLS connection before the client's last words have come, which is a reset.
    let may_reset = |target: &Target| target.is_tls && services.contains(&Mitmdump);
    for (place, target) in targets.iter().enumerate() {
        let flows = log.to(target.address);
        assert_eq!(flows.len(), client.times(), "{}: {log:#?}", target.url);
        for flow in &flows {
            check_flow(flow, client, target);
            let ended = flow.text("ended");
            assert!(ended == Some("closed") || may_reset(target) && ended == Some("reset"), "{flow:?}");
        }
        check_chains(&flows, services);
        check_names(&flows, services, target);
        let exchanges = served(stage, target, client.times());
        if client == Client::Curl && !target.is_tls {
            assert_eq!(flows[0].bytes(), CurlTransfer::all(&ended.output)[place].bytes, "curl's count");
        }
        // mitmproxy writes requests anew.
        if !services.contains(&Mitmdump) {
            assert!(exchanges.iter().all(|seen| flows.iter().all(|flow| flow.bytes() == (seen.received, seen.sent))));
        }
    }
}

fn check_summary(log: &FlowLog, flows: usize) {
    assert_eq!(log.warnings, [""; 0]);
    assert_eq!(log.flows.len(), flows, "{log:#?}");
    assert_eq!(log.summary["flows"], flows);
    for none in ["refused", "open", "events_lost"] {
        assert_eq!(log.summary[none], 0, "{none}: {log:#?}");
    }
}

fn check_flow(flow: &Flow, client: Client, target: &Target) {
    let field = |name| flow.text(name);
    assert_eq!((field("decision"), field("reason"), field("left_alone")), (Some("redirected"), None, None), "{flow:?}");
    assert!(field("program").is_some_and(|name| name.starts_with(client.program())), "{flow:?}");
    assert_eq!(flow.number("uid"), u64::from(nix::unistd::getuid().as_raw()));
    let source: std::net::SocketAddr = field("source").and_then(|text| text.parse().ok()).expect("an address");
    assert_eq!(source.ip(), target.address.ip(), "loopback, of the destination's family: {flow:?}");
    assert!(flow.number("received") > 1000 * target.path.len() as u64);
    assert!(!flow.is_ambiguous());
}

/// Through all of them, in this order. What is said of later hops may be told of another connection of the same
/// application to the same destination at the same time, where a service on the way does not carry records.
fn check_chains(flows: &[&Flow], services: &[Service]) {
    let names: Vec<_> = services.iter().map(|service| service.name()).collect();
    let whole: Vec<_> = services.iter().map(|service| (service.name(), !service.is_aware())).collect();
    let is_whole = |flow: &&Flow| flow.chain() == whole;
    if is_exact(flows, services) {
        assert!(flows.iter().all(is_whole), "{flows:#?}");
    } else {
        let is_beginning = |flow: &&Flow| {
            let chain: Vec<_> = flow.chain().iter().map(|link| link.0).collect();
            !chain.is_empty() && names.starts_with(&chain)
        };
        assert!(flows.iter().all(is_beginning), "{flows:#?}");
        assert!(flows.iter().any(is_whole), "{flows:#?}");
    }
}

/// `inspect` reads them, in its place of the chain.
fn check_names(flows: &[&Flow], services: &[Service], target: &Target) {
    let scheme = if target.is_tls { "tls" } else { "http" };
    let expected = services.contains(&Inspect).then_some((target.host, scheme));
    let name = |flow: &Flow| flow.text("name").map(|name| (name.to_owned(), flow.text("name_from").map(str::to_owned)));
    let expected = expected.map(|(name, from)| (name.to_owned(), Some(from.to_owned())));
    if is_exact(flows, services) {
        assert!(flows.iter().all(|flow| name(flow) == expected), "{flows:#?}");
    } else {
        assert!(flows.iter().all(|flow| name(flow).is_none() || name(flow) == expected), "{flows:#?}");
    }
}

fn is_exact(flows: &[&Flow], services: &[Service]) -> bool {
    flows.len() == 1 || services.iter().all(|service| service.is_aware())
}

/// What the origin saw: as many connections as the client made. Their bytes where the origin counts them.
fn served(stage: &mut Stage, target: &Target, times: usize) -> Vec<Exchange> {
    if target.is_tls {
        assert_eq!(stage.served_over_tls(&target.path), times, "{}", target.url);
        return Vec::new();
    }
    let origin = &stage.http[usize::from(target.address.is_ipv6())];
    let mut exchanges = Vec::new();
    until("the origin to see the connections' ends", || {
        exchanges = origin.served();
        exchanges.retain(|exchange| exchange.path == target.path);
        (exchanges.len() >= times).then_some(())
    });
    assert!(origin.served().iter().all(|exchange| !exchange.path.is_empty()), "no connection was for nothing");
    assert_eq!(exchanges.len(), times, "{}", target.url);
    exchanges
}
