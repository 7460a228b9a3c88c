//! How long compiling takes: a small policy, all filters there can be, and a million prefixes, in the two shapes that
//! are hardest: sets that all filters share, and a list of its own for each filter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use carnet_abi::{MAX_PROVIDERS, MAX_RULES};
use carnet_policy::testing::{Random, plain_provider};
use carnet_policy::{Action, Condition, Executable, Filter, Line, Match, OnDead, Policy, Prefix, Provider};
use criterion::{Criterion, criterion_group, criterion_main};

const V4: usize = 1_000_000;
const V6: usize = 100_000;

fn compile(c: &mut Criterion) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let policies = [
        ("ten filters", policy(3, 10, narrow)),
        ("4,096 filters", policy(MAX_PROVIDERS, MAX_RULES, narrow)),
        ("4,096 filters, 1,100,000 prefixes in shared sets", shared(&mut random)),
        ("4,096 filters, 1,100,000 prefixes of their own", own(&mut random)),
    ];
    let mut group = c.benchmark_group("compile");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (name, policy) in policies {
        let image = policy.compile(1).expect("a sound policy");
        let bytes = image.bytes();
        println!("{name}: {} classes, {bytes:?}, {} bytes in all", image.classes.len(), bytes.total());
        group.bench_function(name, |bencher| bencher.iter(|| policy.compile(1)));
    }
    group.finish();
}

/// Sixteen sets. Each filter is for two of them, but not for a third.
fn shared(random: &mut Random) -> Policy {
    let sets: Vec<Arc<[Prefix]>> = (0..16).map(|_| prefixes(random, V4 / 16, V6 / 16)).collect();
    policy(MAX_PROVIDERS, MAX_RULES, |filter| {
        let set = |nth: usize| sets[(filter * (2 * nth + 1) + nth) % sets.len()].clone();
        Match { remote: Condition { only: Some(vec![set(0), set(1)]), except: vec![set(2)] }, ..narrow(filter) }
    })
}

fn own(random: &mut Random) -> Policy {
    policy(MAX_PROVIDERS, MAX_RULES, |filter| {
        let list = prefixes(random, V4 / MAX_RULES, V6 / MAX_RULES);
        Match { remote: Condition { only: Some(vec![list]), except: Vec::new() }, ..narrow(filter) }
    })
}

/// One prefix and one other condition.
fn narrow(filter: usize) -> Match {
    let id = 1000 + filter as u32;
    let any = Match::default().to(IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + 7 * id)));
    match filter % 5 {
        0 => Match { uids: Condition::only([id..=id]), ..any },
        1 => Match { exes: Condition::only([Executable { dev: 8 << 20, ino: id.into() }]), ..any },
        2 => Match { cgroups: Condition::only([line(id.into())]), ..any },
        3 => Match { gids: Condition::only([id..=id + 3]), ..any },
        _ => any.on_ports(443..=443),
    }
}

/// Four levels deep.
fn line(id: u64) -> Line {
    let mut line = Line::default();
    line.0[..4].copy_from_slice(&[2, 3, 4, id]);
    line
}

fn policy(providers: usize, filters: usize, mut matches: impl FnMut(usize) -> Match) -> Policy {
    let mut policy = Policy { providers: (0..providers).map(provider).collect(), ..Policy::default() };
    for filter in 0..filters {
        policy.providers[filter % providers].filters.push(Filter {
            name: format!("filter {filter}"),
            weight: 1,
            matches: matches(filter),
            action: Action::Redirect { context: Vec::new() },
        });
    }
    policy
}

fn provider(index: usize) -> Provider {
    Provider { on_dead: OnDead::Open, ..plain_provider(index as u16) }
}

fn prefixes(random: &mut Random, v4: usize, v6: usize) -> Arc<[Prefix]> {
    let mut prefixes = Vec::with_capacity(v4 + v6);
    for _ in 0..v4 {
        let address = Ipv4Addr::from_bits((random.next() >> 32) as u32).into();
        prefixes.push(Prefix { address, length: [24, 28, 32][random.next() as usize % 3] });
    }
    for _ in 0..v6 {
        let address = Ipv6Addr::from_bits(0x2001 << 112 | u128::from(random.next()) << 48).into();
        prefixes.push(Prefix { address, length: [48, 64, 128][random.next() as usize % 3] });
    }
    prefixes.into()
}

criterion_group!(benches, compile);
criterion_main!(benches);
