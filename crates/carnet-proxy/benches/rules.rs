//! What a decision costs with ten names and with 100,000, in one list and spread over a thousand rules; and how long
//! reading them takes.

use std::{
    fmt::Write,
    hint::black_box,
    io,
    path::Path,
    time::{Duration, Instant},
};

use carnet_proxy::rules::{Facts, Host, Origin, Protocol, Rules};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const FEW: usize = 10;
const MANY: usize = 100_000;
const RULES: usize = 1000;

fn decide(c: &mut Criterion) {
    ratios();
    let mut group = c.benchmark_group("decide");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    for (what, text) in [("in a list", list as fn(usize) -> String), ("in many rules", spread)] {
        for count in [FEW, MANY] {
            let rules = read(&text(count));
            let mut names = asked(count).into_iter().cycle();
            group.bench_function(BenchmarkId::new(what, count), |bencher| {
                bencher.iter(|| black_box(rules.decide(&flow(names.next().as_deref()))).rule.is_some());
            });
        }
    }
    group.finish();
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    group.sample_size(10);
    for count in [FEW, MANY] {
        let text = list(count);
        group.bench_function(BenchmarkId::new("in a list", count), |bencher| bencher.iter(|| read(&text)));
    }
    group.finish();
}

/// Both in turns, since a machine is faster at one time than at another; the best of each.
fn ratios() {
    for (what, text) in [("in a list", list as fn(usize) -> String), ("in many rules", spread)] {
        let sides = [FEW, MANY].map(|count| (read(&text(count)), asked(count)));
        let mut best = [Duration::MAX; 2];
        for _ in 0..20 {
            for ((rules, names), best) in sides.iter().zip(&mut best) {
                let start = Instant::now();
                let found = names.iter().filter(|name| rules.decide(&flow(Some(name))).rule.is_some()).count();
                *best = start.elapsed().min(*best);
                assert_eq!(found, names.len() / 2);
            }
        }
        let [few, many] = best.map(|best| best.as_nanos() as f64 / ASKED as f64);
        println!("{what}: {few:.0} ns with {FEW} names, {many:.0} ns with {MANY}: {:.2} times as long", many / few);
    }
}

fn flow(name: Option<&str>) -> Facts<'_> {
    Facts {
        name,
        protocol: Some(Protocol::Tls),
        alpn: &[],
        ja4: None,
        ech: false,
        destination: ([192, 0, 2, 7], 443).into(),
        origin: Origin::default(),
    }
}

/// Names of which half are there, in no order.
fn asked(count: usize) -> Vec<String> {
    (0..ASKED).map(|at| name(at * 7919 % count) + if at % 2 == 0 { "" } else { ".not" }).collect()
}

fn name(at: usize) -> String {
    format!("host{at}.area{}.example", at % 100)
}

/// All names in one list of one rule.
fn list(count: usize) -> String {
    let names: Vec<_> = (0..count).map(name).collect();
    format!("[names.all]\nnames = {names:?}\n[[rule]]\nname = \"@all\"\naction = \"block\"\n")
}

/// As many in each of a thousand rules.
fn spread(count: usize) -> String {
    let mut text = String::new();
    for rule in 0..RULES.min(count) {
        let names: Vec<_> = (rule..count).step_by(RULES).map(name).collect();
        let _ = write!(text, "[[rule]]\nname = {names:?}\nports = 443\naction = \"block\"\n");
    }
    text
}

fn read(text: &str) -> Rules {
    Rules::parse(text, Path::new("rules.toml"), &Nowhere).expect("sound rules")
}

struct Nowhere;

impl Host for Nowhere {
    fn read(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn uid(&self, _: &str) -> io::Result<Option<u32>> {
        Ok(None)
    }
}

const ASKED: usize = 65_536;

criterion_group!(benches, decide, parse);
criterion_main!(benches);
