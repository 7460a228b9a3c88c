use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn rules_are_found_over_jumps_and_maps() {
    let text = json!({"nftables": [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"table": {"family": "ip", "name": "nat", "handle": 1}},
        {"chain": {"family": "ip", "table": "nat", "name": "OUTPUT", "handle": 1, "type": "nat", "hook": "output", "prio": -100,
            "policy": "accept"}},
        {"chain": {"family": "ip", "table": "nat", "name": "PROXY", "handle": 2}},
        {"chain": {"family": "ip", "table": "nat", "name": "BY_PORT", "handle": 3}},
        {"chain": {"family": "ip", "table": "nat", "name": "UNUSED", "handle": 4}},
        {"rule": {"family": "ip", "table": "nat", "chain": "OUTPUT", "handle": 5, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 80}},
            {"jump": {"target": "PROXY"}}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "OUTPUT", "handle": 6, "expr": [
            {"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}},
                "data": {"set": [[443, {"goto": {"target": "BY_PORT"}}], [22, {"accept": null}]]}}}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "OUTPUT", "handle": 7, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 53}},
            {"redirect": {"port": 5353}}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "PROXY", "handle": 8, "expr": [
            {"counter": {"packets": 0, "bytes": 0}}, {"redirect": {"port": 15001}}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "BY_PORT", "handle": 9, "expr": [
            {"dnat": {"addr": "10.0.0.1", "port": 8443}}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "UNUSED", "handle": 10, "expr": [{"redirect": null}]}},
    ]});
    let caught = parse(&text.to_string()).unwrap().caught();
    let mut seen: Vec<_> = caught.iter().map(|caught| (&caught.rule[..], caught.act.to_string())).collect();
    seen.sort();
    assert_eq!(
        seen,
        [("handle 8", "redirect to port 15001".to_owned()), ("handle 9", "dnat to 10.0.0.1:8443".to_owned())]
    );
    assert_eq!(caught[0].hook, Hook::Output);
}

#[test]
fn iptables_nft_and_tproxy() {
    let text = json!({"nftables": [
        {"chain": {"family": "inet", "table": "t", "name": "pre", "hook": "prerouting", "type": "filter", "prio": -150}},
        {"rule": {"family": "inet", "table": "t", "chain": "pre", "handle": 1, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": {"set": ["tcp", "udp"]}}},
            {"tproxy": {"family": "ip6", "addr": "::1", "port": 1234}}]}},
        {"rule": {"family": "inet", "table": "t", "chain": "pre", "handle": 2, "expr": [
            {"xt": {"type": "target", "name": "REDIRECT"}}]}},
        {"rule": {"family": "inet", "table": "t", "chain": "pre", "handle": 3, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}}, {"xt": {"type": "target", "name": "DNAT"}}]}},
        {"rule": {"family": "inet", "table": "t", "chain": "pre", "handle": 4, "expr": [
            {"match": {"op": "!=", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}}, {"xt": {"type": "match", "name": "DNAT"}}]}},
    ]});
    let acts: Vec<_> = parse(&text.to_string()).unwrap().caught().into_iter().map(|caught| caught.act).collect();
    assert_eq!(acts, [Act::Tproxy("[::1]:1234".into()), Act::Redirect(String::new())]);
}

#[test]
fn no_rules_and_no_json() {
    assert_eq!(parse("").unwrap(), Ruleset::default());
    assert_eq!(parse("{\"nftables\": []}").unwrap(), Ruleset::default());
    parse("Error: syntax error").unwrap_err();
    parse("{\"nftables\": 3}").unwrap_err();
}

/// JSON whose words are nft's, in any arrangement.
fn arrangements() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "nftables", "chain", "rule", "family", "table", "name", "hook", "output", "expr", "match", "op", "==", "left",
        "right", "payload", "meta", "key", "l4proto", "protocol", "field", "set", "jump", "goto", "target", "vmap",
        "data", "redirect", "dnat", "tproxy", "xt", "type", "addr", "port", "ip",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 80, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|members| Value::Object(
                members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read(objects in prop::collection::vec(arrangements(), 0..6), expressions in prop::collection::vec(arrangements(), 0..6)) {
        let place = json!({"family": "ip", "table": "t", "name": "c", "hook": "output"});
        let rule = json!({"family": "ip", "table": "t", "chain": "c", "handle": 1, "expr": expressions});
        let mut all = vec![json!({"chain": place}), json!({"rule": rule})];
        all.extend(objects);
        let ruleset = parse(&json!({"nftables": all}).to_string()).unwrap();
        prop_assert!(!ruleset.chains.is_empty());
        ruleset.caught();
    }

    #[test]
    fn any_text_is_refused_or_read(text in ".*") {
        let _ = parse(&text);
    }
}
