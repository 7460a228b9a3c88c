//! What the words of the language mean.

use std::{path::Path, time::Duration};

use carnet_proxy::{
    rules::{Action, Block, Facts, Origin, Protocol, Rate},
    upstream::{Credentials, Kind},
};

use crate::stage::{facts, named, rules, to};

/// The id of the rule that decides; `""`: the default.
fn decides(text: &str, facts: Facts) -> String {
    rules(text).decide(&facts).rule.map(|rule| rule.id.clone().unwrap()).unwrap_or_default()
}

/// Whether a rule with one condition matches.
fn holds(condition: &str, facts: Facts) -> bool {
    decides(&format!("[[rule]]\nid = \"it\"\n{condition}\naction = \"block\""), facts) == "it"
}

#[test]
fn a_file_without_rules_allows_everything() {
    let rules = rules("");
    let decision = rules.decide(&named("example.org"));
    assert_eq!((decision.rule.is_none(), decision.outcome.action), (true, Action::Allow));
    assert!(!rules.needs_name() && decision.admits(Duration::ZERO));
    assert_eq!(decision.to_string(), "default");
}

#[test]
fn the_first_rule_that_matches_wins_with_or_without_a_name() {
    let text = "
[[rule]]
id = \"a\"
name = \"a.example\"
ports = 80
action = \"allow\"
[[rule]]
id = \"b\"
uid = 7
action = \"allow\"
[[rule]]
id = \"c\"
name = \"*.example\"
action = \"allow\"
[[rule]]
id = \"d\"
action = \"allow\"
[[rule]]
id = \"e\"
name = \"a.example\"
action = \"allow\"
";
    let name = Some("a.example");
    let origin = Origin { uid: Some(7), ..Origin::default() };
    assert_eq!(decides(text, Facts { name, ..to("192.0.2.7:80") }), "a");
    assert_eq!(decides(text, Facts { name, origin, ..to("192.0.2.7:80") }), "a");
    assert_eq!(decides(text, Facts { name, origin, ..facts() }), "b");
    assert_eq!(decides(text, Facts { name, ..facts() }), "c");
    assert_eq!(decides(text, facts()), "d");
}

#[test]
fn a_name_matches_itself_and_a_wildcard_what_is_below_at_any_depth() {
    for (pattern, yes, no) in [
        ("example.org", &["example.org", "EXAMPLE.org", "example.org."][..], &["a.example.org", "xexample.org"][..]),
        ("*.example.org", &["a.example.org", "a.b.c.example.org"], &["example.org", "xexample.org", "org"]),
        ("*", &["example.org", "localhost", "[::1]"], &["", "."]),
    ] {
        let condition = format!("name = {pattern:?}");
        yes.iter().for_each(|name| assert!(holds(&condition, named(name)), "{pattern} {name}"));
        no.iter().for_each(|name| assert!(!holds(&condition, named(name)), "{pattern} {name}"));
        assert!(!holds(&condition, facts()), "{pattern} without a name");
    }
}

#[test]
fn a_list_of_names_is_used_by_its_name() {
    let text = |names: &str| {
        format!(
            "[[rule]]\nid = \"it\"\nname = [\"@ads\", \"more.example\"]\naction = \"block\"\n\
             [[rule]]\nid = \"next\"\nname = \"@ads\"\naction = \"block\"\n[names.ads]\n{names}"
        )
    };
    for (names, name, decided) in [
        ("file = \"ads.txt\"", "ads.example", "it"),
        ("file = \"ads.txt\"", "a.ads.example", ""),
        ("file = \"ads.txt\"", "a.banner.example", "it"),
        ("file = \"ads.txt\"\nnames = \"own.example\"", "own.example", "it"),
        ("file = \"ads.txt\"\nsubdomains = true", "a.ads.example", "it"),
        ("file = \"ads.txt\"\nsubdomains = true", "banner.example", ""),
        ("file = \"ads.txt\"", "more.example", "it"),
        ("names = []", "ads.example", ""),
    ] {
        assert_eq!(decides(&text(names), named(name)), decided, "{names} {name}");
    }
}

#[test]
fn a_condition_holds_for_any_of_its_values_and_for_none_of_no_values() {
    let condition = "to = [\"10.0.0.0/8\", \"2001:db8::/32\"]";
    for (destination, expected) in
        [("10.1.2.3:1", true), ("[::ffff:10.1.2.3]:1", true), ("[2001:db8::1]:1", true), ("11.0.0.0:1", false)]
    {
        assert_eq!(holds(condition, to(destination)), expected, "{destination}");
    }
    for (port, expected) in [(80, true), (8000, true), (8999, true), (9000, false), (443, false)] {
        assert_eq!(holds("ports = [80, \"8000-8999\"]", to(&format!("192.0.2.7:{port}"))), expected, "{port}");
    }
    for key in ["name", "to", "ports", "uid", "exe", "cgroup", "protocol", "alpn", "ja4"] {
        assert!(!holds(&format!("{key} = []"), named("example.org")), "{key}");
    }
}

#[test]
fn an_origin_is_told_by_uid_exe_and_cgroup_and_one_that_is_not_known_matches_nothing() {
    let uid = |uid| Facts { origin: Origin { uid: Some(uid), ..Origin::default() }, ..facts() };
    let condition = "uid = [\"alice\", 7, \"2000-2999\"]";
    for (number, expected) in [(1000, true), (7, true), (2000, true), (2999, true), (1001, false), (0, false)] {
        assert_eq!(holds(condition, uid(number)), expected, "{number}");
    }
    let exe = |exe| Facts { origin: Origin { exe: Some(Path::new(exe)), ..Origin::default() }, ..facts() };
    assert!(holds("exe = [\"/usr/bin/wget\", \"/usr/bin/curl\"]", exe("/usr/bin/curl")));
    assert!(!holds("exe = \"/usr/bin/curl\"", exe("/usr/bin/curl2")));
    let cgroup = |cgroup| Facts { origin: Origin { cgroup: Some(cgroup), ..Origin::default() }, ..facts() };
    for (condition, own, expected) in [
        ("/user.slice", "/user.slice", true),
        ("/user.slice/", "/user.slice/user-1000.slice/a.scope", true),
        ("/user.slice", "/user.slice2", false),
        ("/user.slice/a", "/user.slice", false),
        ("/", "/", true),
        ("/", "/user.slice", true),
    ] {
        assert_eq!(holds(&format!("cgroup = {condition:?}"), cgroup(own)), expected, "{condition} {own}");
    }
    for condition in ["uid = \"0-4294967295\"", "exe = \"/usr/bin/curl\"", "cgroup = \"/\""] {
        assert!(!holds(condition, facts()), "{condition}");
    }
}

#[test]
fn what_a_client_speaks_is_told_by_protocol_alpn_ja4_and_ech() {
    let speaks = |protocol| Facts { protocol, ..facts() };
    for (word, protocol) in [
        ("tls", Some(Protocol::Tls)),
        ("http", Some(Protocol::Http1)),
        ("http2", Some(Protocol::Http2)),
        ("ssh", Some(Protocol::Ssh)),
        ("unknown", None),
    ] {
        let condition = format!("protocol = {word:?}");
        for other in [Some(Protocol::Tls), Some(Protocol::Http1), Some(Protocol::Http2), Some(Protocol::Ssh), None] {
            assert_eq!(holds(&condition, speaks(other)), other == protocol, "{word} {other:?}");
        }
    }
    let offered = ["h2".to_owned(), "http/1.1".to_owned()];
    let tls =
        Facts { alpn: &offered, ja4: Some("t13d1516h2_8daaf6152771_b186095e22b6"), ..speaks(Some(Protocol::Tls)) };
    assert!(holds("alpn = [\"dot\", \"http/1.1\"]", tls) && !holds("alpn = \"dot\"", tls));
    assert!(!holds("alpn = \"h2\"", facts()));
    assert!(holds("ja4 = \"t13d1516h2_8daaf6152771_b186095e22b6\"", tls));
    assert!(!holds("ja4 = \"t13d1516h2_8daaf6152771_b186095e22b7\"", tls));
    assert!(holds("ech = false", tls) && !holds("ech = true", tls));
    assert!(holds("ech = true", Facts { ech: true, ..tls }));
    assert!(!holds("ech = false", speaks(Some(Protocol::Ssh))), "what is not TLS has no hello");
}

#[test]
fn an_outcome_has_what_the_rule_says() {
    let text = "
[[rule]]
id = \"ads\"
name = \"ads.example\"
action = \"block\"
block = \"403\"
reason = \"no ads\"
log = true

[[rule]]
name = \"slow.example\"
action = \"allow\"
tap = true
rate = \"120/m\"
burst = 3
block = \"alert\"
upstream = \"corp\"

[default]
action = \"block\"
log = true

[upstream.corp]
kind = \"http-connect\"
address = \"[2001:db8::7]:3128\"
user = \"alice\"
password-file = \"/etc/password\"
by-name = true

[upstream.other]
kind = \"proxy-v2\"
address = \"Proxy.example:1\"
";
    let rules = rules(text);
    let ads = rules.decide(&named("ads.example"));
    assert_eq!(ads.to_string(), "rule \"ads\" (line 2)");
    assert_eq!((ads.outcome.action, ads.outcome.log, ads.outcome.tap), (Action::Block, true, false));
    assert_eq!((ads.outcome.refusal.block, ads.outcome.refusal.reason.as_deref()), (Block::Forbidden, Some("no ads")));

    let slow = rules.decide(&named("slow.example"));
    assert_eq!(slow.to_string(), "rule 2 (line 10)");
    assert_eq!((slow.outcome.action, slow.outcome.log, slow.outcome.tap), (Action::Allow, false, true));
    let rate = slow.outcome.rate.as_ref().unwrap().rate();
    assert_eq!(rate, Rate { flows: 120, period: Duration::from_secs(60), burst: 3 });
    let admitted = |now| (0..10).filter(|_| slow.admits(Duration::from_millis(now))).count();
    assert_eq!((admitted(0), admitted(400), admitted(500)), (3, 0, 1));
    let corp = slow.outcome.upstream.as_ref().unwrap();
    assert_eq!((&*corp.name, corp.kind, &*corp.host, corp.port), ("corp", Kind::HttpConnect, "2001:db8::7", 3128));
    assert_eq!(corp.credentials, Some(Credentials::new("alice", "open sesame")));
    assert!(corp.by_name && rules.upstreams().iter().any(|other| other.credentials.is_none() && !other.by_name));
    assert!(!format!("{rules:?}").contains("sesame"));

    let default = rules.decide(&facts());
    assert_eq!((default.outcome.action, default.outcome.log), (Action::Block, true));
    let hosts: Vec<_> = rules.upstreams().iter().map(|upstream| &*upstream.host).collect();
    assert_eq!((hosts, rules.rules().len()), (vec!["2001:db8::7", "proxy.example"], 2));
}

#[test]
fn a_refusal_is_said_in_the_clients_protocol_or_is_a_reset() {
    for (block, protocol, said) in [
        (Block::Alert, Some(Protocol::Tls), Block::Alert),
        (Block::Alert, Some(Protocol::Http1), Block::Reset),
        (Block::Forbidden, Some(Protocol::Http1), Block::Forbidden),
        (Block::Forbidden, Some(Protocol::Http2), Block::Forbidden),
        (Block::Forbidden, Some(Protocol::Tls), Block::Reset),
        (Block::Forbidden, None, Block::Reset),
        (Block::Reset, Some(Protocol::Tls), Block::Reset),
    ] {
        assert_eq!(block.in_protocol(protocol), said, "{block:?} {protocol:?}");
    }
}

#[test]
fn a_client_is_waited_for_only_where_its_bytes_could_make_another_rule_win() {
    let text = "
[[rule]]
id = \"backup\"
to = \"10.0.0.0/8\"
action = \"allow\"
[[rule]]
id = \"ads\"
name = \"ads.example\"
ports = 443
action = \"block\"
[[rule]]
id = \"ssh\"
protocol = \"ssh\"
ports = 22
uid = 7
action = \"block\"
[[rule]]
id = \"never\"
name = []
action = \"block\"
[[rule]]
id = \"web\"
ports = [80, 443]
action = \"allow\"
[[rule]]
id = \"late\"
name = \"*\"
ports = 80
action = \"block\"
";
    let rules = rules(text);
    assert!(rules.needs_name());
    let origin = Origin { uid: Some(7), ..Origin::default() };
    for (destination, origin, expected) in [
        ("10.0.0.1:443", origin, Some("backup")),
        ("192.0.2.7:443", origin, None),
        ("192.0.2.7:80", origin, Some("web")),
        ("192.0.2.7:22", origin, None),
        ("192.0.2.7:22", Origin::default(), Some("default")),
        ("192.0.2.7:25", origin, Some("default")),
    ] {
        let decision = rules.decide_without_name(destination.parse().unwrap(), &origin);
        let by = decision.map(|decision| match decision.rule {
            Some(rule) => rule.id.clone().unwrap(),
            None => decision.to_string(),
        });
        assert_eq!(by.as_deref(), expected, "{destination}");
    }
}

#[test]
fn what_no_rule_asks_for_need_not_be_looked_up() {
    let asks = |condition: &str| {
        let rules = rules(&format!("[[rule]]\naction = \"allow\"\n[[rule]]\n{condition}\naction = \"allow\""));
        (rules.ask_for_exe(), rules.ask_for_cgroup(), rules.needs_name())
    };
    assert_eq!(asks("uid = 7"), (false, false, false));
    assert_eq!(asks("exe = \"/usr/bin/curl\""), (true, false, false));
    assert_eq!(asks("cgroup = \"/\""), (false, true, false));
    assert_eq!(asks("ech = true"), (false, false, true));
}
