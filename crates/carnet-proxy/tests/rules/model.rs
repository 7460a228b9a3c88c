//! `decide` is the first rule that matches, found one by one.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use carnet_proxy::rules::{Facts, Origin, Protocol, Rules};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::stage::rules;

/// A rule, as plain as it can be.
#[derive(Clone, Debug, Default)]
struct Plain {
    names: Option<Vec<&'static str>>,
    to: Option<Vec<&'static str>>,
    ports: Option<Vec<(u16, u16)>>,
    uids: Option<Vec<u32>>,
    exes: Option<Vec<&'static str>>,
    cgroups: Option<Vec<&'static str>>,
    protocols: Option<Vec<&'static str>>,
    alpn: Option<Vec<&'static str>>,
    ech: Option<bool>,
}

#[derive(Clone, Debug)]
struct Flow {
    name: Option<String>,
    protocol: Option<Protocol>,
    alpn: Vec<String>,
    ech: bool,
    destination: SocketAddr,
    uid: Option<u32>,
    exe: Option<&'static str>,
    cgroup: Option<&'static str>,
}

impl Plain {
    fn text(&self) -> String {
        let ports = self.ports.as_ref().map(|ports| ports.iter().map(|(a, b)| format!("{a}-{b}")).collect::<Vec<_>>());
        let mut text = "[[rule]]\naction = \"allow\"\n".to_owned();
        let mut add = |key: &str, value: Option<String>| {
            text += &value.map(|value| format!("{key} = {value}\n")).unwrap_or_default();
        };
        add("name", self.names.as_ref().map(|all| format!("{all:?}")));
        add("to", self.to.as_ref().map(|all| format!("{all:?}")));
        add("ports", ports.map(|all| format!("{all:?}")));
        add("uid", self.uids.as_ref().map(|all| format!("{all:?}")));
        add("exe", self.exes.as_ref().map(|all| format!("{all:?}")));
        add("cgroup", self.cgroups.as_ref().map(|all| format!("{all:?}")));
        add("protocol", self.protocols.as_ref().map(|all| format!("{all:?}")));
        add("alpn", self.alpn.as_ref().map(|all| format!("{all:?}")));
        add("ech", self.ech.map(|ech| ech.to_string()));
        text
    }

    fn matches(&self, flow: &Flow) -> bool {
        self.matches_early(flow) && self.matches_late(flow)
    }

    fn matches_early(&self, flow: &Flow) -> bool {
        let port = flow.destination.port();
        holds(&self.to, |to| is_in(flow.destination, to))
            && holds(&self.ports, |(first, last)| (*first..=*last).contains(&port))
            && holds(&self.uids, |uid| flow.uid == Some(*uid))
            && holds(&self.exes, |exe| flow.exe == Some(exe))
            && holds(&self.cgroups, |cgroup| {
                flow.cgroup
                    .is_some_and(|own| format!("{own}/").starts_with(&format!("{}/", cgroup.trim_end_matches('/'))))
            })
    }

    fn matches_late(&self, flow: &Flow) -> bool {
        let protocol = match flow.protocol {
            Some(Protocol::Tls) => "tls",
            Some(Protocol::Http1) => "http",
            Some(Protocol::Http2) => "http2",
            Some(Protocol::Ssh) => "ssh",
            None => "unknown",
        };
        holds(&self.names, |pattern| flow.name.as_ref().is_some_and(|name| is_like(name, pattern)))
            && holds(&self.protocols, |one| *one == protocol)
            && holds(&self.alpn, |one| flow.alpn.iter().any(|offered| offered == one))
            && self.ech.is_none_or(|ech| protocol == "tls" && flow.ech == ech)
    }

    fn needs_bytes(&self) -> bool {
        self.names.is_some() || self.protocols.is_some() || self.alpn.is_some() || self.ech.is_some()
    }

    /// Whether there is anything that the client could send for it to match.
    fn can_match(&self) -> bool {
        let lists = [
            self.names.as_ref().map(Vec::len),
            self.protocols.as_ref().map(Vec::len),
            self.alpn.as_ref().map(Vec::len),
        ];
        !lists.contains(&Some(0))
    }
}

fn holds<T>(values: &Option<Vec<T>>, is_it: impl FnMut(&T) -> bool) -> bool {
    values.as_ref().is_none_or(|values| values.iter().any(is_it))
}

fn is_like(name: &str, pattern: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    match pattern.strip_prefix('*') {
        Some(suffix) => !name.is_empty() && name.ends_with(suffix),
        None => name == pattern,
    }
}

/// By the bits of the address, one by one.
fn is_in(destination: SocketAddr, prefix: &str) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => format!("4{:032b}", address.to_bits()),
        IpAddr::V6(address) => format!("6{:0128b}", address.to_bits()),
    };
    let prefix = if prefix == "::ffff:10.0.0.0/104" { "10.0.0.0/8" } else { prefix };
    let (address, length) = prefix.split_once('/').unwrap();
    let first = bits(address.parse().unwrap());
    bits(destination.ip().to_canonical()).starts_with(&first[..=length.parse().unwrap()])
}

fn facts<'f>(flow: &'f Flow, with_bytes: bool) -> Facts<'f> {
    Facts {
        name: flow.name.as_deref().filter(|_| with_bytes),
        protocol: flow.protocol.filter(|_| with_bytes),
        alpn: if with_bytes { &flow.alpn } else { &[] },
        ja4: None,
        ech: flow.ech && with_bytes,
        destination: flow.destination,
        origin: Origin { uid: flow.uid, exe: flow.exe.map(Path::new), cgroup: flow.cgroup },
    }
}

fn condition<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = Option<Vec<T>>> {
    option::weighted(0.3, vec(select(values), 0..4))
}

fn plain() -> impl Strategy<Value = Plain> {
    let names = option::weighted(0.6, vec(select(&PATTERNS[..]), 0..5));
    let late = (names, condition(&PROTOCOLS), condition(&["h2", "http/1.1"]), option::weighted(0.1, any::<bool>()));
    let ports = condition(&[(80_u16, 80_u16), (443, 443), (0, 500), (8000, 8999)]);
    let early = (condition(&PREFIXES), ports, condition(&[0_u32, 7, 1000]), condition(&EXES), condition(&CGROUPS));
    (late, early).prop_map(|((names, protocols, alpn, ech), (to, ports, uids, exes, cgroups))| Plain {
        names,
        to,
        ports,
        uids,
        exes,
        cgroups,
        protocols,
        alpn,
        ech,
    })
}

fn flow() -> impl Strategy<Value = Flow> {
    let protocol =
        select(&[Some(Protocol::Tls), Some(Protocol::Http1), Some(Protocol::Http2), Some(Protocol::Ssh), None][..]);
    let alpn = vec(select(&["h2", "http/1.1", "dot"][..]).prop_map(str::to_owned), 0..3);
    let address = select(&["10.1.2.3", "10.200.0.1", "::ffff:10.1.2.3", "192.0.2.7", "2001:db8::1", "::1"][..]);
    let destination = (address, select(&[22_u16, 80, 443, 8080][..]))
        .prop_map(|(address, port)| SocketAddr::new(address.parse().unwrap(), port));
    let origin = (
        option::of(select(&[0_u32, 7, 1000][..])),
        option::of(select(&EXES[..])),
        option::of(select(&["/", "/user.slice", "/user.slice/a", "/user.slicer"][..])),
    );
    let name = option::weighted(0.9, select(&NAMES[..]).prop_map(str::to_owned));
    (name, protocol, alpn, any::<bool>(), destination, origin).prop_map(
        |(name, protocol, alpn, ech, destination, (uid, exe, cgroup))| Flow {
            name,
            protocol,
            alpn,
            ech,
            destination,
            uid,
            exe,
            cgroup,
        },
    )
}

fn of(plain: &[Plain]) -> Rules {
    rules(&plain.iter().map(Plain::text).collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_decision_is_that_of_the_first_rule_that_matches(plain in vec(plain(), 0..12), flows in vec(flow(), 1..20)) {
        let rules = of(&plain);
        for flow in &flows {
            let expected = plain.iter().position(|rule| rule.matches(flow));
            prop_assert_eq!(rules.decide(&facts(flow, true)).rule.map(|rule| rule.index), expected, "{:?}", flow);
        }
    }

    #[test]
    fn without_a_name_that_is_decided_which_no_bytes_can_change(plain in vec(plain(), 0..12), flows in vec(flow(), 1..20)) {
        let rules = of(&plain);
        for flow in &flows {
            let decided = rules.decide_without_name(flow.destination, &facts(flow, false).origin);
            let winner = plain.iter().position(|rule| !rule.needs_bytes() && rule.matches_early(flow));
            let before = &plain[..winner.unwrap_or(plain.len())];
            let waits = before.iter().any(|rule| rule.needs_bytes() && rule.can_match() && rule.matches_early(flow));
            prop_assert_eq!(decided.is_none(), waits, "{:?}", flow);
            if let Some(decision) = decided {
                let index = decision.rule.map(|rule| rule.index);
                prop_assert_eq!(index, winner);
                prop_assert_eq!(rules.decide(&facts(flow, true)).rule.map(|rule| rule.index), index);
                prop_assert_eq!(rules.decide(&facts(flow, false)).rule.map(|rule| rule.index), index);
            }
        }
    }
}

const PATTERNS: [&str; 9] = [
    "example.org",
    "*.example.org",
    "a.example.org",
    "*.a.example.org",
    "org",
    "*.org",
    "*",
    "example.net",
    "b.example.net",
];

const NAMES: [&str; 13] = [
    "example.org",
    "EXAMPLE.org.",
    "a.example.org",
    "b.a.example.org",
    "c.b.a.example.org",
    "xexample.org",
    "org",
    "example.net",
    "b.example.net",
    "[::1]",
    "",
    ".",
    "..",
];

const PREFIXES: [&str; 6] = ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "::/0", "2001:db8::/32", "::ffff:10.0.0.0/104"];

const EXES: [&str; 2] = ["/usr/bin/curl", "/usr/bin/wget"];

const CGROUPS: [&str; 3] = ["/", "/user.slice", "/user.slice/a"];

const PROTOCOLS: [&str; 5] = ["tls", "http", "http2", "ssh", "unknown"];
