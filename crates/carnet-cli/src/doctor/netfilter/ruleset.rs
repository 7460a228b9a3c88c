use std::collections::BTreeSet;
use std::fmt;

/// Chains of one tool, with what matters of their rules.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ruleset {
    /// In the tool's order.
    pub chains: Vec<Chain>,
}

/// One chain.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chain {
    /// `nft` or the name of the iptables tool.
    pub source: &'static str,
    /// With its family: `ip nat`.
    pub table: String,
    /// Its name, which is unique in its table.
    pub name: String,
    /// Where packets come into it by themselves; others are jumped to.
    pub hook: Option<Hook>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rule {
    /// How the tool calls it: a handle, or its text.
    pub name: String,
    /// What it does with connections.
    pub acts: Vec<Act>,
    /// Chains of the same table to which it leads.
    pub targets: Vec<String>,
    /// It is for another protocol than TCP.
    pub is_for_others: bool,
}

/// Where a packet of a local program, or one that arrives, comes by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    Output,
    Prerouting,
}

impl Hook {
    /// From its name in lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Output, Self::Prerouting].into_iter().find(|hook| hook.name() == name)
    }

    /// As the tools call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Prerouting => "prerouting",
        }
    }
}

/// What becomes of a connection, and where it goes as far as the rule says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Act {
    Redirect(String),
    Dnat(String),
    Tproxy(String),
}

impl Act {
    /// In the tools' word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Redirect(_) => "redirect",
            Self::Dnat(_) => "dnat",
            Self::Tproxy(_) => "tproxy",
        }
    }

    /// Where to; empty where it is the same port, or more than one place.
    pub fn target(&self) -> &str {
        match self {
            Self::Redirect(to) | Self::Dnat(to) | Self::Tproxy(to) => to,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target() {
            "" => write!(f, "{}", self.name()),
            to => write!(f, "{} to {to}", self.name()),
        }
    }
}

/// A rule that TCP connections can meet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caught {
    /// The tool that showed it.
    pub source: &'static str,
    /// On the way from where.
    pub hook: Hook,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The rule.
    pub rule: String,
    /// All of that for people.
    pub place: String,
    /// What it does.
    pub act: Act,
}

impl Ruleset {
    /// This one's chains and those of another.
    pub fn and(mut self, other: Self) -> Self {
        self.chains.extend(other.chains);
        self
    }

    /// The rules which a TCP connection can come to from a hook, over any number of jumps. Conditions other than the
    /// protocol are not weighed: a rule for one port is one to know of.
    pub fn caught(&self) -> Vec<Caught> {
        let mut caught = Vec::new();
        let starts = self.chains.iter().enumerate().filter_map(|(place, chain)| Some((place, chain.hook?)));
        for (start, hook) in starts {
            let mut seen = BTreeSet::from([start]);
            let mut open = vec![start];
            while let Some(at) = open.pop() {
                let chain = &self.chains[at];
                for rule in chain.rules.iter().filter(|rule| !rule.is_for_others) {
                    caught.extend(rule.acts.iter().map(|act| chain.caught(rule, hook, act)));
                    let next = rule.targets.iter().filter_map(|name| self.position(chain, name));
                    open.extend(next.filter(|next| seen.insert(*next)));
                }
            }
        }
        caught
    }

    fn position(&self, from: &Chain, name: &str) -> Option<usize> {
        let is_it = |chain: &Chain| (chain.source, &chain.table, &chain.name[..]) == (from.source, &from.table, name);
        self.chains.iter().position(is_it)
    }
}

impl Chain {
    fn caught(&self, rule: &Rule, hook: Hook, act: &Act) -> Caught {
        Caught {
            source: self.source,
            hook,
            table: self.table.clone(),
            chain: self.name.clone(),
            rule: rule.name.clone(),
            place: format!("{} table {}, chain {}, {}", self.source, self.table, self.name, rule.name),
            act: act.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Chains 0..n; chain 0 has the hook; each leads to some others, and some have a redirect.
    fn rulesets() -> impl Strategy<Value = (Vec<Vec<usize>>, Vec<bool>)> {
        (1..8_usize).prop_flat_map(|count| {
            let leads = prop::collection::vec(prop::collection::vec(0..count, 0..4), count);
            (leads, prop::collection::vec(any::<bool>(), count))
        })
    }

    proptest! {
        #[test]
        fn what_can_be_reached_is_caught_once_and_nothing_else((leads, redirects) in rulesets()) {
            let chains = leads.iter().zip(&redirects).enumerate().map(|(place, (leads, redirects))| {
                let jump = Rule { targets: leads.iter().map(ToString::to_string).collect(), ..Rule::default() };
                let acts = redirects.then(|| Act::Redirect(place.to_string())).into_iter().collect();
                Chain {
                    name: place.to_string(),
                    hook: (place == 0).then_some(Hook::Output),
                    rules: vec![jump, Rule { acts, ..Rule::default() }],
                    ..Chain::default()
                }
            });
            let ruleset = Ruleset { chains: chains.collect() };
            // The closure, the slow way.
            let mut reached = vec![false; leads.len()];
            reached[0] = true;
            for _ in 0..leads.len() {
                for (from, to) in leads.iter().enumerate() {
                    if reached[from] {
                        to.iter().for_each(|&to| reached[to] = true);
                    }
                }
            }
            let expected: Vec<String> =
                (0..leads.len()).filter(|&place| reached[place] && redirects[place]).map(|place| place.to_string()).collect();
            let mut caught: Vec<String> = ruleset.caught().into_iter().map(|caught| caught.chain).collect();
            caught.sort_by_key(|name| name.parse::<usize>().unwrap());
            prop_assert_eq!(caught, expected);
        }
    }

    #[test]
    fn jumps_stay_in_their_table() {
        let chain = |table: &str, name: &str, hook, acts: Vec<Act>| Chain {
            table: table.into(),
            name: name.into(),
            hook,
            rules: vec![Rule { acts, targets: vec!["DOCKER".into()], ..Rule::default() }],
            ..Chain::default()
        };
        let ruleset = Ruleset {
            chains: vec![
                chain("ip nat", "OUTPUT", Some(Hook::Output), vec![]),
                chain("ip6 nat", "DOCKER", None, vec![Act::Dnat("[::2]:1".into())]),
            ],
        };
        assert_eq!(ruleset.caught(), []);
    }
}
