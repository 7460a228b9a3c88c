//! Rules of nftables and iptables that change where TCP connections of this host go, and routing by marks.
//!
//! They are read with the tools they were made with: the kernel's own form of them is nobody's interface.

mod iptables;
mod nft;
mod ruleset;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use self::ruleset::{Act, Caught, Hook, Ruleset};
use crate::doctor::finding::{Finding, Id};
use crate::doctor::report::Report;

/// Rules of the caller's network namespace.
pub fn look(report: &mut Report) {
    let mut caught = Vec::new();
    let mut hidden = Vec::new();
    let legacy4 = legacy("/proc/net/ip_tables_names", "iptables");
    let legacy6 = legacy("/proc/net/ip6_tables_names", "ip6tables");
    for ruleset in [nftables(&mut hidden), legacy4, legacy6] {
        match ruleset {
            Ok(ruleset) => caught.extend(ruleset.caught()),
            Err(why) => hidden.push(why),
        }
    }
    if caught.is_empty() && hidden.is_empty() {
        report.add(Finding::ok(Id::NatNone, "no nftables or iptables rule changes where connections of this host go"));
    }
    for why in hidden {
        report.add(Finding::warning(
            Id::NatHidden,
            format!("rules of nftables and iptables could not be looked at: {why}"),
            "Run it as root, with nft (or iptables-save) installed; or look yourself: nft list ruleset",
        ));
    }
    for caught in &caught {
        report.add(finding(caught));
    }
    marks(report);
}

fn finding(caught: &Caught) -> Finding {
    let rule = &caught.rule;
    let (id, means, action) = match (caught.hook, &caught.act) {
        (_, Act::Tproxy(_)) => (
            Id::Tproxy,
            "hands connections to a transparent proxy that they were not made to. It acts after Carnet: on the \
             connections of services, and on those that Carnet lets pass",
            "If its proxy is to be one of the services, run it with --through and take the rule away; else let it pass by \
             connections to loopback and those of the proxy itself",
        ),
        (Hook::Output, _) => (
            Id::NatOutput,
            "changes where connections of this host go. It acts after Carnet, which sees the address before: on the \
             connection to the service's listener, if the rule takes loopback, which then does not arrive; and on the \
             last service's to the destination",
            "Let it pass by loopback (oifname lo accept, before it). If it leads to a proxy, run that with --through instead",
        ),
        (Hook::Prerouting, _) => (
            Id::NatPrerouting,
            "changes where connections go that come from outside or from containers; those of this host's own programs \
             do not meet it",
            "Nothing",
        ),
    };
    let what = format!("{}: {} {means}", caught.place, caught.act);
    let finding = match id {
        Id::NatPrerouting => Finding::note(id, what, action),
        _ => Finding::warning(id, what, action),
    };
    finding
        .with("source", caught.source)
        .with("hook", caught.hook.name())
        .with("table", caught.table.clone())
        .with("chain", caught.chain.clone())
        .with("rule", rule.clone())
        .with("action", caught.act.name())
        .with("to", caught.act.target())
}

/// nft shows its own rules and those of iptables-nft. Without it the latter are seen and its own are `hidden`.
fn nftables(hidden: &mut Vec<String>) -> Result<Ruleset, String> {
    let listed = output("nft", &["-j", "list", "ruleset"]);
    let parsed =
        listed.and_then(|text| nft::parse(&text).map_err(|error| format!("nft: its JSON is not understood: {error}")));
    let why = match parsed {
        Ok(ruleset) => return Ok(ruleset),
        Err(why) => why,
    };
    let mut seen = Ruleset::default();
    for tool in ["iptables", "ip6tables"] {
        let Ok(text) = output(&format!("{tool}-save"), &[]) else { return Err(why) };
        seen = seen.and(iptables::parse(tool, &text));
    }
    hidden.push(format!("{why}; only what iptables-save and ip6tables-save show was seen"));
    Ok(seen)
}

/// Tables of the older iptables, which nft does not show. The kernel says whether there are any.
fn legacy(names: &str, tool: &'static str) -> Result<Ruleset, String> {
    // No such file: the kernel has no such tables. Not readable: nft has been refused, too, and that is said.
    let names = fs::read_to_string(names).unwrap_or_default();
    if !names.lines().any(|name| ["nat", "mangle"].contains(&name)) {
        return Ok(Ruleset::default());
    }
    let save = output(&format!("{tool}-legacy-save"), &[]).or_else(|_| output(&format!("{tool}-save"), &[]));
    save.map(|text| iptables::parse(tool, &text))
}

/// Rules for routing by a packet's mark, as transparent proxies and VPNs have them.
fn marks(report: &mut Report) {
    let mut rules = Vec::new();
    let mut hidden = Vec::new();
    // A kernel without IPv6 has no such file, and no rules.
    let six = Path::new("/proc/net/if_inet6").exists().then_some("-6");
    for family in ["-4"].into_iter().chain(six) {
        match routing_rules(family) {
            Ok(all) => rules.extend(all.iter().filter_map(|rule| mark_rule(family, rule))),
            Err(why) => hidden.push(why),
        }
    }
    if !hidden.is_empty() {
        hidden.dedup();
        report.add(Finding::warning(
            Id::MarksHidden,
            format!("whether packets are routed by their mark could not be looked at: {}", hidden.join("; ")),
            "Run it with iproute2's ip installed; or look yourself: ip rule",
        ));
    }
    if rules.is_empty() {
        return;
    }
    let shown: Vec<_> = rules.iter().filter_map(|rule| rule["rule"].as_str()).collect();
    report.add(
        Finding::note(
            Id::MarkRouting,
            format!(
                "packets are routed by their mark: {}. A mark that an application sets (SO_MARK) is on its connection to the \
                 first service, not on those that services make",
                shown.join("; ")
            ),
            "If the mark is to lead connections past a VPN or to an interface, have the services set it, too, or except those \
             connections with a filter",
        )
        .with("rules", rules),
    );
}

fn routing_rules(family: &str) -> Result<Vec<Value>, String> {
    let text = output("ip", &["-j", family, "rule", "list"])?;
    serde_json::from_str(&text).map_err(|error| format!("ip: its JSON is not understood: {error}"))
}

fn mark_rule(family: &str, rule: &Value) -> Option<Value> {
    let mark = rule.get("fwmark")?.as_str()?;
    let mask = rule.get("fwmask").and_then(Value::as_str).map_or_else(String::new, |mask| format!("/{mask}"));
    let not = if rule.get("not").is_some() { "not " } else { "" };
    let table = rule.get("table").map_or_else(String::new, |table| match table {
        Value::String(table) => table.clone(),
        other => other.to_string(),
    });
    let text = format!("ip {family} rule: {not}fwmark {mark}{mask} lookup {table}");
    Some(json!({ "family": if family == "-6" { "ipv6" } else { "ipv4" }, "rule": text, "mark": mark, "table": table }))
}

/// What a tool prints. Fails with its own words.
fn output(tool: &str, arguments: &[&str]) -> Result<String, String> {
    // Where an ordinary user's path does not lead.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(tool).args(arguments).env("PATH", path).env("LC_ALL", "C").output();
    let output = output.map_err(|error| format!("{tool} does not start: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{tool}: {}", words.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed")))
}
