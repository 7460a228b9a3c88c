//! The rules as `nft -j list ruleset` prints them: libnftables-json(5).

use serde::Deserialize;
use serde_json::Value;

use super::ruleset::{Act, Chain, Hook, Rule, Ruleset};

/// Reads what matters. Objects and expressions that are not known are passed over, for there will be new ones.
pub fn parse(text: &str) -> Result<Ruleset, serde_json::Error> {
    let mut ruleset = Ruleset::default();
    // nft prints nothing at all where there is no rule in the kernel.
    if text.trim().is_empty() {
        return Ok(ruleset);
    }
    let top: Top = serde_json::from_str(text)?;
    for object in top.nftables {
        if let Some(chain) = object.get("chain").and_then(read_chain) {
            ruleset.chains.push(chain);
        } else if let Some(rule) = object.get("rule") {
            add_rule(&mut ruleset, rule);
        }
    }
    Ok(ruleset)
}

#[derive(Deserialize)]
struct Top {
    nftables: Vec<Value>,
}

fn read_chain(chain: &Value) -> Option<Chain> {
    Some(Chain {
        source: "nft",
        table: table_of(chain)?,
        name: chain.get("name")?.as_str()?.to_owned(),
        hook: chain.get("hook").and_then(Value::as_str).and_then(Hook::from_name),
        rules: Vec::new(),
    })
}

fn add_rule(ruleset: &mut Ruleset, rule: &Value) {
    let name = rule.get("chain").and_then(Value::as_str).unwrap_or_default();
    let table = table_of(rule).unwrap_or_default();
    let Some(chain) = ruleset.chains.iter_mut().find(|chain| chain.name == name && chain.table == table) else {
        return;
    };
    let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default();
    let mut read = Rule { name: format!("handle {handle}"), ..Rule::default() };
    for expression in rule.get("expr").and_then(Value::as_array).into_iter().flatten() {
        read_expression(expression, &mut read);
    }
    chain.rules.push(read);
}

/// Family and name.
fn table_of(object: &Value) -> Option<String> {
    Some(format!("{} {}", object.get("family")?.as_str()?, object.get("table")?.as_str()?))
}

/// One member, named after its kind.
fn read_expression(expression: &Value, rule: &mut Rule) {
    let Some((kind, value)) = expression.as_object().and_then(|object| object.iter().next()) else { return };
    match &kind[..] {
        "redirect" => {
            rule.acts.push(Act::Redirect(port_of(value).map_or_else(String::new, |port| format!("port {port}"))))
        }
        "dnat" => rule.acts.push(Act::Dnat(target_of(value))),
        "tproxy" => rule.acts.push(Act::Tproxy(target_of(value))),
        // iptables-nft keeps what it cannot say in nftables' words in iptables' own.
        "xt" if value.get("type").and_then(Value::as_str) == Some("target") => {
            match value.get("name").and_then(Value::as_str) {
                Some("REDIRECT") => rule.acts.push(Act::Redirect(String::new())),
                Some("DNAT") => rule.acts.push(Act::Dnat(String::new())),
                Some("TPROXY") => rule.acts.push(Act::Tproxy(String::new())),
                _ => {}
            }
        }
        "jump" | "goto" => rule.targets.extend(value.get("target").and_then(Value::as_str).map(str::to_owned)),
        "vmap" => read_map(value, rule),
        "match" => rule.is_for_others |= excludes_tcp(value),
        _ => {}
    }
}

/// A map from what is looked up to verdicts: `[[key, {"jump": ...}], ...]`. That of a named map is not in the rule.
fn read_map(map: &Value, rule: &mut Rule) {
    let entries = map.pointer("/data/set").and_then(Value::as_array);
    for verdict in entries.into_iter().flatten().filter_map(|entry| entry.get(1)) {
        read_expression(verdict, rule);
    }
}

fn port_of(value: &Value) -> Option<String> {
    match value.get("port")? {
        Value::Number(port) => Some(port.to_string()),
        Value::String(port) => Some(port.clone()),
        // A range or a map.
        _ => None,
    }
}

fn target_of(value: &Value) -> String {
    let address = value.get("addr").and_then(Value::as_str);
    match (address, port_of(value)) {
        (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
        (Some(address), None) => address.to_owned(),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => String::new(),
    }
}

/// A match that no TCP packet passes: on the protocol, or on another protocol's header.
fn excludes_tcp(value: &Value) -> bool {
    if value.get("op").and_then(Value::as_str) != Some("==") {
        return false;
    }
    let (Some(left), Some(right)) = (value.get("left"), value.get("right")) else { return false };
    let is_protocol = left.pointer("/meta/key").and_then(Value::as_str) == Some("l4proto")
        || matches!(left.pointer("/payload/field").and_then(Value::as_str), Some("protocol" | "nexthdr"));
    if is_protocol {
        return !names_tcp(right);
    }
    let header = left.pointer("/payload/protocol").and_then(Value::as_str);
    matches!(header, Some("udp" | "udplite" | "icmp" | "icmpv6" | "sctp" | "dccp"))
}

fn names_tcp(right: &Value) -> bool {
    match right {
        Value::String(name) => name == "tcp",
        Value::Number(number) => number.as_u64() == Some(6),
        Value::Object(object) => match object.get("set") {
            Some(Value::Array(members)) => members.iter().any(names_tcp),
            // A range, a named set: it may be in there.
            _ => true,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests;
