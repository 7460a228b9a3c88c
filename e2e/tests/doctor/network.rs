//! Rules, routes and limits of a network namespace.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use carnet_e2e::command::{carnet, carnet_run, finish};
use carnet_e2e::netns::{alone, ip, with_neighbour};
use carnet_e2e::programs::{Scratch, program, require, succeed};
use nix::sched::{CloneFlags, unshare};

use crate::{asked, doctor};

#[test]
fn a_redirect_of_local_connections_is_named() {
    require(&["nft"]);
    alone(|| {
        let before = doctor(&[]);
        before.assert_says("nat-none", "ok", &[]);
        assert_eq!(before.all("nat-output").len(), 0);

        nft("add table ip carnet");
        nft("add chain ip carnet local { type nat hook output priority -100 ; }");
        nft("add chain ip carnet proxy");
        nft("add chain ip carnet unused");
        nft("add rule ip carnet local tcp dport 80 jump proxy");
        nft("add rule ip carnet local udp dport 53 redirect to :5353");
        nft("add rule ip carnet proxy meta l4proto tcp redirect to :15001");
        nft("add rule ip carnet unused tcp dport 81 redirect to :15002");
        let answer = doctor(&[]);
        let finding =
            answer.assert_says("nat-output", "warning", &["ip carnet", "chain proxy", "redirect to port 15001"]);
        let details = &finding["details"];
        assert_eq!(
            (&details["hook"], &details["action"], &details["source"]),
            (&"output".into(), &"redirect".into(), &"nft".into())
        );
        assert_eq!((answer.code, answer.all("nat-none").len()), (0, 0));
    });
}

#[test]
fn what_a_tool_does_not_show_is_told() {
    let scratch = Scratch::new();
    let path = format!("{}:{}", scratch.file("").display(), std::env::var("PATH").unwrap());
    let ask = || asked(Command::new(carnet()).arg("doctor").env("PATH", &path));
    let tool = |name: &str, script: &str| {
        let file = scratch.file(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    };
    tool("nft", "echo 'Error: JSON support not compiled-in' >&2; exit 1");
    for name in ["iptables-save", "ip6tables-save"] {
        tool(name, "printf '*nat\\n:OUTPUT ACCEPT [0:0]\\n-A OUTPUT -p tcp -j REDIRECT --to-ports 15001\\nCOMMIT\\n'");
    }
    tool("ip", "echo 'ip: unrecognized option: j' >&2; exit 1");
    let answer = ask();
    answer.assert_says("nat-hidden", "warning", &["nft: Error: JSON support", "only what iptables-save"]);
    let tools: Vec<_> = answer.all("nat-output").iter().map(|finding| &finding["details"]["source"]).collect();
    assert_eq!(tools, ["iptables", "ip6tables"], "what was seen is told, too");
    answer.assert_says("marks-hidden", "warning", &["unrecognized option"]);
    assert_eq!((answer.all("nat-none").len(), answer.all("mark-routing").len(), answer.code), (0, 0, 0));

    for (name, said) in [("nft", "nft: its JSON"), ("ip", "ip: its JSON")] {
        tool(name, "echo something else");
        let id = if name == "ip" { "marks-hidden" } else { "nat-hidden" };
        ask().assert_says(id, "warning", &[said]);
    }
    for name in ["iptables-save", "ip6tables-save"] {
        tool(name, "exit 1");
    }
    let answer = ask();
    answer.assert_says("nat-hidden", "warning", &["nft: its JSON"]);
    assert_eq!((answer.all("nat-none").len(), answer.all("nat-output").len(), answer.code), (0, 0, 0));
}

#[test]
fn a_redirect_takes_the_way_to_a_service_until_loopback_is_let_pass() {
    require(&["nft"]);
    alone(|| {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = connecting_to(&server);
        let connects = || finish(&mut carnet_run(&["--", "bash", "-c", &client])).code == 0;
        assert!(connects());
        nft("add table ip carnet");
        nft("add chain ip carnet local { type nat hook output priority -100 ; }");
        nft("add rule ip carnet local meta l4proto tcp redirect to :1");
        let answer = doctor(&[]);
        let finding = answer.assert_says("nat-output", "warning", &["redirect to port 1 "]);
        assert!(!connects(), "as the finding says");
        assert!(finding["do"].as_str().unwrap().contains("oifname lo accept"), "{finding:#}");
        nft("insert rule ip carnet local oifname lo accept");
        assert!(connects(), "that helps, as the finding says");
    });
}

#[test]
fn rules_of_both_kinds_of_iptables_are_named() {
    require(&["nft", "iptables", "iptables-legacy"]);
    alone(|| {
        for (tool, port) in [("iptables", "15003"), ("iptables-legacy", "15004")] {
            let arguments = ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "REDIRECT", "--to-ports", port];
            succeed(program(tool).args(arguments));
        }
        let answer = doctor(&[]);
        let findings = answer.all("nat-output");
        let said = |words: &[&str]| {
            findings.iter().any(|finding| words.iter().all(|word| finding["what"].as_str().unwrap().contains(word)))
        };
        assert!(said(&["nft table ip nat, chain OUTPUT", "redirect"]), "{findings:#?}");
        assert!(said(&["iptables table nat, chain OUTPUT", "redirect to port 15004"]), "{findings:#?}");
        assert_eq!(findings.len(), 2, "{findings:#?}");
    });
}

#[test]
fn transparent_proxies_and_what_comes_from_outside() {
    require(&["nft"]);
    alone(|| {
        nft("add table inet carnet");
        nft("add chain inet carnet before { type filter hook prerouting priority -150 ; }");
        nft("add rule inet carnet before meta l4proto tcp tproxy ip to 127.0.0.1:15005 meta mark set 1");
        nft("add table ip carnet");
        nft("add chain ip carnet incoming { type nat hook prerouting priority -100 ; }");
        nft("add rule ip carnet incoming tcp dport 8080 dnat to 10.0.0.1:80");
        ip("rule add fwmark 1 lookup 100");
        let answer = doctor(&[]);
        answer.assert_says("tproxy", "warning", &["chain before", "tproxy to 127.0.0.1:15005"]);
        answer.assert_says("nat-prerouting", "note", &["chain incoming", "dnat to 10.0.0.1:80"]);
        answer.assert_says("mark-routing", "note", &["fwmark 0x1", "lookup 100"]);
        assert_eq!(answer.all("nat-output").len(), 0);
    });
}

#[test]
fn families_without_a_way_out() {
    with_neighbour(there, |_there| {
        let answer = doctor(&[]);
        answer.assert_says("ipv4-no-route", "note", &["IPv4 has no default route", "os error 101"]);
        answer.assert_says("ipv6-no-route", "note", &["IPv6 has no default route", "os error 101"]);
        assert_eq!(answer.all("routes").len(), 0);

        ip("route add default via 10.99.0.2");
        let answer = doctor(&[]);
        answer.assert_says("routes", "ok", &["IPv4 by carnet0"]);
        answer.one("ipv6-no-route");
        assert_eq!((answer.all("ipv4-no-route").len(), answer.code), (0, 0));
    });
}

#[test]
fn a_default_route_of_another_table_is_one() {
    with_neighbour(there, |_there| {
        ip("rule add priority 100 lookup 77");
        ip("route add default via 10.99.0.2 table 77");
        doctor(&[]).assert_says("routes", "ok", &["IPv4 by a table other than main"]);
    });
}

#[test]
fn without_loopback_nothing_can_be_redirected() {
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; needs root");
            let answer = doctor(&[]);
            answer.assert_says("ipv4-no-loopback", "problem", &["127.0.0.1"]);
            answer.assert_says("ipv6-no-loopback", "note", &["::1"]);
            assert_eq!(answer.code, 1);
            ip("link set lo up");
            let answer = doctor(&[]);
            assert_eq!((answer.code, answer.all("ipv4-no-loopback").len()), (0, 0));
        });
        there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn without_memory_for_sockets_there_is_no_record() {
    alone(|| {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = connecting_to(&server);
        let connects = || finish(&mut carnet_run(&["--", "bash", "-c", &client]));
        let memory = |bytes: u64| fs::write("/proc/sys/net/core/optmem_max", bytes.to_string()).expect("Linux 6.9");

        let needed = doctor(&[]).one("socket-memory")["details"]["needed"].as_u64().unwrap();
        memory(needed);
        doctor(&[]).assert_says("socket-memory", "warning", &[&needed.to_string()]);
        let enough = connects();
        assert_eq!(enough.code, 0, "{enough:?}");

        memory(needed / 2);
        let answer = doctor(&[]);
        answer.assert_says("socket-memory", "problem", &[&(needed / 2).to_string()]);
        assert_eq!(answer.code, 1);
        let too_little = connects();
        assert!(too_little.code != 0 && too_little.errors.contains("no memory for its record"), "{too_little:?}");
    });
}

#[test]
fn few_ports_and_a_short_backlog() {
    alone(|| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50999").unwrap();
        fs::write("/proc/sys/net/core/somaxconn", "128").unwrap();
        let answer = doctor(&[]);
        answer.assert_says("port-range", "note", &["1000 local ports", "50000 to 50999"]);
        answer.assert_says("backlog", "note", &["128"]);
        assert_eq!(answer.code, 0);
    });
}

#[test]
fn mptcp_switched_off() {
    alone(|| {
        doctor(&[]).assert_says("mptcp-on", "ok", &[]);
        fs::write("/proc/sys/net/mptcp/enabled", "0").unwrap();
        doctor(&[]).assert_says("mptcp-off", "note", &["net.mptcp.enabled"]);
    });
}

/// Keeps the neighbour's namespace, and with it the interface that leads there.
fn there() -> TcpListener {
    TcpListener::bind("10.99.0.2:0").unwrap()
}

/// A script for bash.
fn connecting_to(server: &TcpListener) -> String {
    format!("exec 3<>/dev/tcp/127.0.0.1/{}", server.local_addr().unwrap().port())
}

fn nft(rule: &str) {
    succeed(Command::new("nft").env("PATH", carnet_e2e::programs::path()).args(rule.split(' ')));
}
