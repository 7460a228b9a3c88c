//! The policies between which a sequence changes. Each is the sandbox's own, with something different.

use carnet_policy::{
    Action, Filter, HostAction, HostFilter, Match, OnDead, Policy, Prefix, Provider, Reach, Service as Kind,
};
use std::ops::RangeInclusive;

use crate::op::Port;

pub const VARIANTS: u8 = 11;

/// `base` has three providers in the order of their handles.
pub fn variant(base: &Policy, variant: u8) -> Policy {
    let mut policy = Policy { providers: base.providers.iter().map(usual).collect(), ..Policy::default() };
    let server = Port::Server.number()..=Port::Server.number();
    let helper = Port::Helper.number()..=Port::Helper.number();
    let providers = &mut policy.providers;
    match variant {
        1 => policy.filters.push(host(server, HostAction::Permit)),
        2 => policy.filters.push(host(server, HostAction::Block)),
        3 => {
            providers[0].filters = vec![filter(2, server.clone(), Action::Skip), filter(1, helper, Action::Block)];
            providers[1].filters.push(filter(3, server, redirect("")));
        }
        4 => drop(providers.remove(0)),
        5 => (providers[0].rank, providers[2].rank) = (30, 10),
        6 => {
            policy.default = HostAction::Block;
            for provider in providers {
                provider.filters = vec![filter(1, server.clone(), redirect("blocked else"))];
            }
        }
        7 => providers.iter_mut().for_each(|provider| provider.in_flight_limit = 1),
        8 => (providers[0].on_dead, providers[1].on_dead) = (OnDead::Open, OnDead::Closed),
        9 => {
            (providers[0].service, providers[1].service) = (Kind::Unaware, Kind::Aware);
            providers[0].direct = true;
        }
        10 => providers.clear(),
        _ => {}
    }
    policy
}

fn usual(provider: &Provider) -> Provider {
    let (service, on_dead, direct) = match provider.handle {
        1 => (Kind::Aware, OnDead::Closed, false),
        2 => (Kind::Unaware, OnDead::Open, false),
        _ => (Kind::Aware, OnDead::Closed, true),
    };
    let any = 0..=u16::MAX;
    let server = Port::Server.number()..=Port::Server.number();
    let filters = match provider.handle {
        1 => vec![filter(1, any, redirect("")), filter(2, server, redirect("first"))],
        2 => vec![filter(1, any, redirect("second")), filter(2, server, redirect(""))],
        _ => vec![filter(1, Port::Server.number()..=Port::Closed.number(), redirect("third"))],
    };
    Provider { service, on_dead, direct, filters, reach: Reach::Anywhere, ..provider.clone() }
}

fn filter(weight: u32, ports: RangeInclusive<u16>, action: Action) -> Filter {
    Filter { name: format!("f{weight}"), weight, matches: Match::default().on_ports(ports), action }
}

fn host(ports: RangeInclusive<u16>, action: HostAction) -> HostFilter {
    // IPv4 alone, so that the two families differ.
    let matches = Match::default().to(Prefix { address: [0, 0, 0, 0].into(), length: 0 }).on_ports(ports);
    HostFilter { name: "host".into(), weight: 1, matches, action }
}

fn redirect(context: &str) -> Action {
    Action::Redirect { context: context.into() }
}
