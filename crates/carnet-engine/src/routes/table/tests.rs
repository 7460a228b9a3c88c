use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::routes::entries::{lookup, minimal};

const NO_ROUTE: u32 = 101;
const LOCAL: u32 = 255;
const MAIN: u32 = 254;
const DEFAULT: u32 = 253;

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix::new(address.parse::<IpAddr>().unwrap(), length.parse().unwrap())
}

fn route(table: u32, text: &str, way: Way) -> Route {
    Route { table, prefix: prefix(text), metric: 0, is_conditional: false, way }
}

fn rule(priority: u32, step: Step) -> Rule {
    Rule { priority, destination: None, is_conditional: false, step }
}

fn table(priority: u32, table: u32) -> Rule {
    rule(priority, Step::Table { table, longer_than: None })
}

fn usual() -> Vec<Rule> {
    vec![table(0, LOCAL), table(32766, MAIN), table(32767, DEFAULT)]
}

/// What is found for an IPv4 address.
fn errno(rules: &[Rule], routes: &[Route], address: &str) -> u32 {
    let family = Family { rules: rules.to_vec(), routes: routes.to_vec() };
    let entries = family.entries(prefix("0.0.0.0/0"), NO_ROUTE);
    assert!(entries.is_sorted());
    lookup(&minimal(&entries), prefix(&format!("{address}/32")))
}

#[test]
fn without_routes_there_is_no_way() {
    assert_eq!(errno(&usual(), &[], "192.0.2.1"), NO_ROUTE);
    assert_eq!(errno(&[], &[], "192.0.2.1"), NO_ROUTE);
}

#[test]
fn the_longest_prefix_decides() {
    let routes = [
        route(MAIN, "0.0.0.0/0", Way::Open),
        route(MAIN, "10.0.0.0/8", Way::Closed(113)),
        route(MAIN, "10.1.0.0/16", Way::Open),
    ];
    for (address, expected) in [("192.0.2.1", 0), ("10.2.0.1", 113), ("10.1.0.1", 0)] {
        assert_eq!(errno(&usual(), &routes, address), expected, "{address}");
    }
}

#[test]
fn this_host_comes_before_what_main_says() {
    let routes = [route(LOCAL, "10.0.0.1/32", Way::Open), route(MAIN, "10.0.0.0/8", Way::Closed(13))];
    assert_eq!(errno(&usual(), &routes, "10.0.0.1"), 0);
    assert_eq!(errno(&usual(), &routes, "10.0.0.2"), 13);
}

#[test]
fn a_thrown_lookup_goes_on_at_the_next_table() {
    let routes = [route(MAIN, "0.0.0.0/0", Way::Throw), route(DEFAULT, "10.0.0.0/8", Way::Open)];
    assert_eq!(errno(&usual(), &routes, "10.0.0.1"), 0);
    assert_eq!(errno(&usual(), &routes, "192.0.2.1"), NO_ROUTE);
}

#[test]
fn a_dead_route_is_as_if_it_were_not_there() {
    let routes = [route(MAIN, "10.1.0.0/16", Way::Dead), route(MAIN, "10.0.0.0/8", Way::Closed(22))];
    assert_eq!(errno(&usual(), &routes, "10.1.0.1"), 22);
    assert_eq!(errno(&usual(), &routes[..1], "10.1.0.1"), NO_ROUTE);
}

#[test]
fn the_lowest_metric_that_is_alive_decides() {
    let with = |metric, way| Route { metric, ..route(MAIN, "10.0.0.0/8", way) };
    let closed = Way::Closed(113);
    for (routes, expected) in [
        ([with(5, closed), with(9, Way::Open)], 113),
        ([with(9, closed), with(5, Way::Open)], 0),
        ([with(5, Way::Dead), with(9, Way::Open)], 0),
        ([with(5, Way::Dead), with(9, closed)], 113),
        ([with(5, closed), with(5, Way::Open)], 0),
    ] {
        assert_eq!(errno(&usual(), &routes, "10.0.0.1"), expected, "{routes:?}");
    }
}

#[test]
fn what_a_mark_may_change_counts_as_reachable() {
    let marked = |step| Rule { is_conditional: true, ..rule(100, step) };
    let routes = [route(7, "10.0.0.0/8", Way::Open), route(7, "192.0.2.0/24", Way::Closed(113))];
    let rules = [&[marked(Step::Table { table: 7, longer_than: None })], &usual()[..]].concat();
    assert_eq!(errno(&rules, &routes, "10.0.0.1"), 0);
    assert_eq!(errno(&rules, &routes, "192.0.2.1"), NO_ROUTE, "not the errno of those with the mark");
    assert_eq!(errno(&[&[marked(Step::Fail(13))], &usual()[..]].concat(), &routes, "10.0.0.1"), NO_ROUTE);
    let tos = Route { is_conditional: true, ..route(MAIN, "10.0.0.0/8", Way::Open) };
    assert_eq!(errno(&usual(), &[tos, route(MAIN, "10.0.0.0/8", Way::Closed(113))], "10.0.0.1"), 0);
    // Thrown for some, who find a way in the next table; the others do not.
    let thrown = Route { way: Way::Throw, ..tos };
    let routes = [thrown, route(MAIN, "0.0.0.0/0", Way::Closed(113)), route(DEFAULT, "10.0.0.0/8", Way::Open)];
    assert_eq!(errno(&usual(), &routes, "10.0.0.1"), 0);
    assert_eq!(errno(&usual(), &routes, "192.0.2.1"), 113);
}

/// As wg-quick sets it up: all but the default route of `main`, then a table of its own.
#[test]
fn a_way_that_is_suppressed_does_not_count() {
    let main = Step::Table { table: MAIN, longer_than: Some(96) };
    let rules = [table(0, LOCAL), rule(32764, main), table(32765, 51820)];
    let routes = [route(MAIN, "0.0.0.0/0", Way::Open), route(MAIN, "10.0.0.0/8", Way::Open)];
    assert_eq!(errno(&rules, &routes, "10.0.0.1"), 0);
    assert_eq!(errno(&rules, &routes, "192.0.2.1"), NO_ROUTE);
}

#[test]
fn a_jump_passes_rules_by() {
    let rules = [rule(10, Step::Jump(30)), rule(20, Step::Fail(13)), table(30, MAIN)];
    let routes = [route(MAIN, "10.0.0.0/8", Way::Open)];
    assert_eq!(errno(&rules, &routes, "10.0.0.1"), 0);
    assert_eq!(errno(&rules, &routes, "192.0.2.1"), NO_ROUTE);
    let some = Rule { is_conditional: true, ..rules[0] };
    assert_eq!(errno(&[some, rules[1], rules[2]], &routes, "10.0.0.1"), 0);
    assert_eq!(errno(&[some, rules[1], rules[2]], &routes, "192.0.2.1"), 13);
}

#[test]
fn a_rule_for_a_destination_holds_only_there() {
    let some = |step| Rule { destination: Some(prefix("10.0.0.0/8")), ..rule(100, step) };
    let routes = [route(7, "0.0.0.0/0", Way::Open), route(MAIN, "192.0.2.0/24", Way::Open)];
    let rules = [&[some(Step::Table { table: 7, longer_than: None })], &usual()[..]].concat();
    for (address, expected) in [("10.0.0.1", 0), ("192.0.2.1", 0), ("198.51.100.1", NO_ROUTE)] {
        assert_eq!(errno(&rules, &routes, address), expected, "{address}");
    }
    let rules = [&[some(Step::Fail(13))], &usual()[..]].concat();
    for (address, expected) in [("10.0.0.1", 13), ("192.0.2.1", 0), ("198.51.100.1", NO_ROUTE)] {
        assert_eq!(errno(&rules, &routes, address), expected, "{address}");
    }
}

/// The kernel's own way, for one socket: bit n of `holds` says whether the nth condition holds for it.
fn straight(family: &Family, address: Prefix, holds: u64) -> u32 {
    let mut next = 0;
    while let Some((place, rule)) = family.rules.iter().enumerate().nth(next) {
        next += 1;
        let applies = rule.destination.is_none_or(|destination| destination.covers(address));
        if !applies || rule.is_conditional && holds >> place & 1 == 0 {
            continue;
        }
        match rule.step {
            Step::Pass => {}
            Step::Fail(errno) => return errno,
            Step::Jump(priority) => {
                let later = family.rules.iter().skip(next).position(|rule| rule.priority == priority);
                next += later.unwrap_or(0);
            }
            Step::Table { table, longer_than } => {
                let mut routes: Vec<(usize, &Route)> = family.routes.iter().enumerate().collect();
                routes.retain(|(place, route)| {
                    let applies = !route.is_conditional || holds >> (place + 16) & 1 == 1;
                    applies && route.table == table && route.way != Way::Dead && route.prefix.covers(address)
                });
                routes.sort_by_key(|(_, route)| {
                    let length = std::cmp::Reverse(route.prefix.length());
                    (length, !route.is_conditional, route.metric, route.way != Way::Open)
                });
                match routes.first().map(|(_, route)| (route.way, route.prefix.length())) {
                    Some((Way::Open, length)) if longer_than.is_none_or(|limit| length > limit) => return 0,
                    Some((Way::Closed(errno), _)) => return errno,
                    _ => {}
                }
            }
        }
    }
    NO_ROUTE
}

fn families(conditions: bool) -> impl Strategy<Value = Family> {
    let condition = any::<bool>().prop_map(move |holds| holds && conditions);
    let way = prop_oneof![
        4 => Just(Way::Open), 1 => Just(Way::Dead), 2 => Just(Way::Closed(113)), 1 => Just(Way::Throw)
    ];
    let route = (0..3_u32, any::<u8>(), 0..=4_u8, 0..3_u32, condition.clone(), way).prop_map(
        |(table, byte, length, metric, is_conditional, way)| {
            let prefix = Prefix::new(IpAddr::from([byte, 0, 0, 0]), length);
            Route { table, prefix, metric, is_conditional, way }
        },
    );
    let limit = prop_oneof![3 => Just(None), 1 => (96..=100_u8).prop_map(Some)];
    let step = prop_oneof![
        8 => (0..3_u32, limit).prop_map(|(table, longer_than)| Step::Table { table, longer_than }),
        1 => (0..6_u32).prop_map(Step::Jump),
        1 => Just(Step::Fail(13)),
        1 => Just(Step::Pass),
    ];
    let destination = proptest::option::weighted(0.2, any::<u8>());
    (vec((destination, condition, step), 0..6), vec(route, 0..12)).prop_map(|(rules, mut routes)| {
        let rules = (0..).zip(rules).map(|(priority, (byte, is_conditional, step))| {
            let destination = byte.map(|byte| Prefix::new(IpAddr::from([byte, 0, 0, 0]), 2));
            Rule { priority, destination, is_conditional, step }
        });
        // Of two with one metric, which comes first depends on when they were added; the kernel mostly refuses it.
        routes.sort_by_key(|route| (route.table, route.prefix, route.metric, route.is_conditional));
        routes.dedup_by_key(|route| (route.table, route.prefix, route.metric, route.is_conditional));
        Family { rules: rules.collect(), routes }
    })
}

proptest! {
    #[test]
    fn the_entries_say_what_the_kernel_would_do(family in families(false)) {
        let entries = minimal(&family.clone().entries(prefix("0.0.0.0/0"), NO_ROUTE));
        for byte in (0..=255_u8).step_by(8) {
            let address = Prefix::new(IpAddr::from([byte, 0, 0, 1]), 32);
            prop_assert_eq!(lookup(&entries, address), straight(&family, address, 0));
        }
    }

    #[test]
    fn nothing_is_refused_that_any_socket_could_reach(family in families(true), holds: u64) {
        let entries = minimal(&family.clone().entries(prefix("0.0.0.0/0"), NO_ROUTE));
        for byte in (0..=255_u8).step_by(8) {
            let address = Prefix::new(IpAddr::from([byte, 0, 0, 1]), 32);
            prop_assert!(lookup(&entries, address) == 0 || straight(&family, address, holds) != 0);
        }
    }
}
