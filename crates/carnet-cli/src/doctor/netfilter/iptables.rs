//! The rules as `iptables-save` prints them.

use super::ruleset::{Act, Chain, Hook, Rule, Ruleset};

/// Reads what matters of the tables `nat` and `mangle`; anything else is passed over.
pub fn parse(source: &'static str, text: &str) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let mut table = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = ["nat", "mangle"].contains(&name).then(|| name.to_owned());
        } else if let (Some(table), Some(chain)) = (&table, line.strip_prefix(':')) {
            let name = chain.split(' ').next().unwrap_or_default();
            ruleset.chains.push(Chain {
                source,
                table: table.clone(),
                name: name.to_owned(),
                hook: Hook::from_name(&name.to_ascii_lowercase()).filter(|_| name == name.to_ascii_uppercase()),
                rules: Vec::new(),
            });
        } else if let (Some(table), Some(rule)) = (&table, line.strip_prefix("-A ")) {
            let name = rule.split(' ').next().unwrap_or_default();
            let chain = ruleset.chains.iter_mut().find(|chain| chain.name == name && chain.table == *table);
            if let Some(chain) = chain {
                chain.rules.push(read_rule(line));
            }
        }
    }
    ruleset
}

/// Words are enough: what is in quotes are comments and names, which come before the target.
fn read_rule(line: &str) -> Rule {
    let words: Vec<&str> = line.split(' ').collect();
    let after = |option: &str| {
        let at = words.iter().rposition(|word| *word == option)?;
        words.get(at + 1).map(|word| (*word).to_owned())
    };
    let mut rule = Rule { name: line.to_owned(), ..Rule::default() };
    let protocol = after("-p");
    let is_negated = words.windows(2).any(|pair| pair == ["!", "-p"]);
    rule.is_for_others = protocol.is_some_and(|protocol| (protocol == "tcp" || protocol == "all") == is_negated);
    let target = after("-j").or_else(|| after("-g")).unwrap_or_default();
    match &target[..] {
        "REDIRECT" => {
            rule.acts.push(Act::Redirect(after("--to-ports").map_or_else(String::new, |port| format!("port {port}"))));
        }
        "DNAT" => rule.acts.push(Act::Dnat(after("--to-destination").unwrap_or_default())),
        "TPROXY" => {
            rule.acts.push(Act::Tproxy(after("--on-port").map_or_else(String::new, |port| format!("port {port}"))));
        }
        "" => {}
        chain => rule.targets.push(chain.to_owned()),
    }
    rule
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dockers_rules_and_a_proxys() {
        let text = "# Generated\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\nCOMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n\
            :OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n\
            -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
            -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n\
            -A OUTPUT -p tcp -m comment --comment \"all -j DROP\" -m owner ! --uid-owner 100 -j REDIRECT --to-ports 15001\n\
            -A OUTPUT -p udp -j REDIRECT --to-ports 53\n\
            -A OUTPUT ! -p tcp -j REDIRECT --to-ports 54\n\
            -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\n\
            -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n";
        let caught = parse("iptables", text).caught();
        let seen: Vec<_> =
            caught.iter().map(|caught| (caught.hook, &caught.chain[..], caught.act.to_string())).collect();
        let docker = "dnat to 172.17.0.2:80".to_owned();
        assert_eq!(
            seen,
            [
                (Hook::Prerouting, "DOCKER", docker.clone()),
                (Hook::Output, "OUTPUT", "redirect to port 15001".into()),
                (Hook::Output, "DOCKER", docker)
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([*:]|-A |nat|OUTPUT|-j |-p |! |REDIRECT|--to-ports|\\PC|\n| ){0,60}") {
            parse("iptables", &text).caught();
        }
    }
}
