//! Every mistake is found, all of them at once, and a policy without one is accepted.

use std::net::SocketAddr;
use std::sync::Arc;

use carnet_abi as abi;
use carnet_policy::testing::plain_provider;
use carnet_policy::{
    Action, Condition, Filter, FilterName, HostAction, HostFilter, Line, Match, Mistake, Owner, Policy, Prefix,
    Protocol, Provider, testing,
};
use proptest::prelude::*;

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "the mistake under test")]
fn each_mistake_is_found() {
    let name = |provider: Option<&str>, filter: &str| FilterName {
        provider: provider.map(str::to_owned),
        filter: filter.to_owned(),
    };
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let cases: Vec<(Spoil, Mistake)> = vec![
        (
            |policy| policy.providers.extend((3..=256).map(|number| provider(&format!("p{number}"), number))),
            Mistake::TooManyProviders { count: 256 },
        ),
        (|policy| policy.filters = vec![policy.filters[0].clone(); 4095], Mistake::TooManyFilters { count: 4097 }),
        (|policy| policy.providers[1].name = String::new(), Mistake::NoName { number: 2 }),
        (|policy| policy.providers[1].name = "a".into(), Mistake::DuplicateName { name: a.clone() }),
        (
            |policy| policy.providers[1].rank = 1,
            Mistake::DuplicateRank { rank: 1, first: a.clone(), second: b.clone() },
        ),
        (|policy| policy.providers[1].handle = 0, Mistake::ZeroHandle { provider: b.clone() }),
        (
            |policy| policy.providers[1].handle = 1,
            Mistake::DuplicateHandle { handle: 1, first: a.clone(), second: b.clone() },
        ),
        (|policy| policy.providers[0].listeners.clear(), Mistake::NoListener { provider: a.clone() }),
        (
            |policy| policy.providers[0].listeners = (1..=5).map(|port| addr(&format!("[::1]:{port}"))).collect(),
            Mistake::TooManyListeners { provider: a.clone(), count: 5 },
        ),
        (
            |policy| policy.providers[0].listeners.push(addr("0.0.0.0:1")),
            Mistake::WildcardListener { provider: a.clone(), listener: addr("0.0.0.0:1") },
        ),
        (
            |policy| policy.providers[0].listeners.push(addr("[::]:1")),
            Mistake::WildcardListener { provider: a.clone(), listener: addr("[::]:1") },
        ),
        (
            |policy| policy.providers[0].listeners.push(addr("[::ffff:0.0.0.0]:1")),
            Mistake::WildcardListener { provider: a.clone(), listener: addr("[::ffff:0.0.0.0]:1") },
        ),
        (
            |policy| policy.providers[0].listeners.push(addr("[ff02::1]:1")),
            Mistake::UndialableListener { provider: a.clone(), listener: addr("[ff02::1]:1") },
        ),
        (
            |policy| policy.providers[0].listeners.push(addr("255.255.255.255:1")),
            Mistake::UndialableListener { provider: a.clone(), listener: addr("255.255.255.255:1") },
        ),
        (
            |policy| policy.providers[0].listeners.push(addr("127.0.0.1:0")),
            Mistake::NoPort { provider: a.clone(), listener: addr("127.0.0.1:0") },
        ),
        (
            |policy| policy.providers[1].listeners.push(addr("[::ffff:127.0.0.1]:15001")),
            Mistake::DuplicateListener { listener: addr("127.0.0.1:15001"), first: a.clone(), second: b.clone() },
        ),
        (|policy| policy.providers[0].owners.clear(), Mistake::NoOwner { provider: a.clone() }),
        (
            |policy| policy.providers[0].owners = (10..15).map(Owner::Uid).collect(),
            Mistake::TooManyOwners { provider: a.clone(), count: 5 },
        ),
        (
            |policy| policy.providers[0].owners.push(Owner::Cgroup { id: 1, level: 0 }),
            Mistake::RootOwner { provider: a.clone() },
        ),
        (
            |policy| policy.providers[1].owners.push(Owner::Uid(1)),
            Mistake::DuplicateOwner { owner: Owner::Uid(1), first: a.clone(), second: b.clone() },
        ),
        (
            |policy| policy.providers[0].filters[0].action = Action::Redirect { context: vec![0; 2049] },
            Mistake::ContextTooLong { filter: name(Some("a"), "web"), size: 2049 },
        ),
        (
            |policy| policy.filters[0].matches = Match::default().to(prefix("10.0.0.0", 33)),
            Mistake::PrefixTooLong { filter: name(None, "host"), prefix: prefix("10.0.0.0", 33) },
        ),
        (
            |policy| policy.providers[1].filters[0].matches = Match::default().to(prefix("::", 129)),
            Mistake::PrefixTooLong { filter: name(Some("b"), "web"), prefix: prefix("::", 129) },
        ),
        (
            |policy| policy.filters[0].matches = Match::default().on_ports(81..=80),
            Mistake::NoPorts { filter: name(None, "host"), ports: 81..=80 },
        ),
        (
            |policy| policy.filters[0].matches.uids = Condition::except([5..=4]),
            Mistake::NoUids { filter: name(None, "host"), uids: 5..=4 },
        ),
        (
            |policy| policy.filters[0].matches.gids = Condition::only([5..=4]),
            Mistake::NoGids { filter: name(None, "host"), gids: 5..=4 },
        ),
        (
            |policy| policy.filters[0].matches.cgroups = Condition::only([line(&[1, 0, 3])]),
            Mistake::BrokenLine { filter: name(None, "host"), id: 3 },
        ),
        (
            |policy| policy.filters[0].matches.cgroups = Condition::only([line(&[1, 3]), line(&[1]), line(&[2, 3])]),
            Mistake::MovedCgroup { filter: name(None, "host"), id: 3 },
        ),
        (
            |policy| policy.filters[0].matches.via = Condition::only([0, 1, 2]),
            Mistake::UnknownVia { filter: name(None, "host"), provider: 2 },
        ),
        (
            |policy| policy.providers[1].filters[0].matches.via = Condition::except([usize::MAX]),
            Mistake::UnknownVia { filter: name(Some("b"), "web"), provider: usize::MAX },
        ),
        (
            |policy| policy.providers[0].filters[0].matches.via = Condition::only([1]),
            Mistake::LateVia { filter: name(Some("a"), "web"), via: b.clone() },
        ),
        (
            |policy| policy.providers[1].filters[0].matches.via = Condition::only([0, 1]),
            Mistake::LateVia { filter: name(Some("b"), "web"), via: b.clone() },
        ),
        (
            |policy| policy.providers[1].filters[0].matches.protocol = Some(Protocol::Udp),
            Mistake::NoUdp { filter: name(Some("b"), "web") },
        ),
    ];
    for (spoil, expected) in cases {
        let mut policy = sound();
        spoil(&mut policy);
        let error = policy.validate().expect_err("the policy has a mistake");
        assert_eq!(error.mistakes(), [expected]);
        assert_eq!(policy.compile(1).map(|_| ()).expect_err("the policy has a mistake"), error);
    }
}

#[test]
fn the_limits_themselves_are_allowed() {
    let mut policy = sound();
    policy.providers[0].filters[0].action = Action::Redirect { context: vec![0; 2048] };
    policy.providers[0].listeners = (1..=4).map(|port| addr(&format!("[::1]:{port}"))).collect();
    policy.providers[0].owners = (1000..1004).map(Owner::Uid).collect();
    policy.providers.extend((3..=255).map(|number| provider(&format!("p{number}"), number)));
    policy.filters = vec![policy.filters[0].clone(); 3841];
    let image = policy.compile(1).unwrap();
    assert_eq!((image.policy.providers, image.policy.rules), (255, 4096));
}

/// The same range in a list that two filters have is one mistake.
#[test]
fn a_shared_list_is_wrong_once() {
    let list: Arc<[Prefix]> = [prefix("10.0.0.0", 33), prefix("192.0.2.0", 24)].into();
    let mut policy = sound();
    let matches = Match { remote: Condition { only: Some(vec![list]), except: Vec::new() }, ..Match::default() };
    policy.filters[0].matches = matches.clone();
    policy.providers[0].filters[0].matches = matches;
    let error = policy.validate().expect_err("a prefix is too long");
    assert_eq!(error.mistakes().len(), 1, "{error}");
}

#[test]
fn what_only_looks_like_a_mistake_is_allowed() {
    let mut policy = sound();
    policy.filters[0].matches = Match {
        protocol: Some(Protocol::Udp),
        via: Condition::only([0, 1]),
        remote: Condition { only: Some(Vec::new()), except: Vec::new() },
        ..Match::default()
    };
    policy.providers[0].filters[0].matches.via = Condition::except([0, 1]);
    policy.providers[1].filters[0].matches = Match {
        protocol: Some(Protocol::Udp),
        via: Condition::only([0]),
        cgroups: Condition::only([line(&[]), line(&[1]), line(&[1, 3]), line(&[1, 3])]),
        ..Match::default()
    };
    policy.providers[1].filters[0].action = Action::Block;
    policy.compile(1).expect("no mistake");
}

#[test]
fn conditions_that_overlap_in_too_many_ways_are_a_mistake() {
    let mut policy = sound();
    // Filter number b is for those addresses that have bit b, so each address has a class of its own.
    let with_bit = |bit: u32| -> Arc<[Prefix]> {
        (0..1_u32 << 16)
            .filter(|address| address >> bit & 1 == 1)
            .map(|address| Prefix { address: std::net::Ipv4Addr::from_bits(address).into(), length: 32 })
            .collect()
    };
    policy.filters = (0..16)
        .map(|bit| HostFilter {
            matches: Match {
                remote: Condition { only: Some(vec![with_bit(bit)]), except: Vec::new() },
                ..Match::default()
            },
            ..policy.filters[0].clone()
        })
        .collect();
    policy.providers.clear();
    let image = policy.compile(1).unwrap();
    assert_eq!(image.classes.len(), abi::MAX_CLASSES, "there is room for exactly so many");

    // A filter that all connections match is in every class, so that now none of them is the empty one.
    policy.filters.push(HostFilter { matches: Match::default(), ..policy.filters[0].clone() });
    let error = policy.compile(1).map(|image| image.classes.len()).expect_err("one class more");
    assert_eq!(error.mistakes(), [Mistake::TooManyClasses]);
    let text = "the policy cannot be used: the filters' conditions overlap in more than 65534 ways: \
                use fewer and larger sets of prefixes, shared by filters";
    assert_eq!(error.to_string(), text);
}

#[test]
fn all_mistakes_are_told_in_one_line() {
    let mut policy = sound();
    policy.providers[1].rank = 1;
    policy.providers[0].owners.clear();
    policy.filters[0].matches = Match::default().to(prefix("192.0.2.0", 40));
    assert_eq!(
        policy.validate().expect_err("three mistakes").to_string(),
        "the policy cannot be used: \
         providers \"a\" and \"b\" both have rank 1: ranks are unique, change one; \
         provider \"a\" has no owner: name its cgroup or a uid that nothing else uses; \
         host filter \"host\": 192.0.2.0/40 is longer than its address, at most /32 is possible"
    );
}

proptest! {
    #[test]
    fn generated_policies_are_sound(policy in testing::policy()) {
        prop_assert_eq!(policy.validate(), Ok(()));
    }
}

/// Puts one mistake into a policy.
type Spoil = fn(&mut Policy);

/// Two providers and three filters, no mistake.
fn sound() -> Policy {
    let host = HostFilter { name: "host".into(), weight: 1, matches: Match::default(), action: HostAction::Permit };
    Policy {
        default: HostAction::Permit,
        providers: vec![provider("a", 1), provider("b", 2)],
        filters: vec![host],
        ..Policy::default()
    }
}

fn provider(name: &str, number: u16) -> Provider {
    let web = Filter {
        name: "web".into(),
        weight: 1,
        matches: Match::default(),
        action: Action::Redirect { context: b"site=hq".to_vec() },
    };
    Provider {
        name: name.into(),
        handle: number.into(),
        rank: number,
        owners: vec![Owner::Uid(number.into())],
        filters: vec![web],
        ..plain_provider(number)
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn prefix(address: &str, length: u8) -> Prefix {
    Prefix { address: address.parse().expect("an address"), length }
}

fn line(ids: &[u64]) -> Line {
    Line(std::array::from_fn(|level| ids.get(level).copied().unwrap_or(0)))
}
