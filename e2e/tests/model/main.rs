//! Random sequences of socket calls, in the running kernel and in a model that is written after the documents. The first
//! difference fails the test, with the shortest sequence that shows it.
//!
//! `CARNET_MODEL_SEED` and `CARNET_MODEL_SECONDS` choose where it begins and how long it goes on; `CARNET_MODEL_STEPS`,
//! a line of `regressions.txt`, has that sequence run alone.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod check;
mod foreign;
mod found;
mod generate;
mod model;
mod op;
mod policies;
mod shrink;
mod world;

use std::env;
use std::time::{Duration, Instant};

use carnet_e2e::netns;

use crate::model::Model;
use crate::op::Op;
use crate::world::World;

#[test]
fn random_calls_are_answered_as_the_model_says() {
    netns::alone(|| {
        let mut world = World::new();
        if let Ok(steps) = env::var("CARNET_MODEL_STEPS") {
            return try_out(&mut world, &serde_json::from_str::<Vec<Op>>(&steps).unwrap(), "CARNET_MODEL_STEPS");
        }
        for (line, ops) in (1..).zip(shrink::regressions()) {
            try_out(&mut world, &ops, &format!("regression {line}"));
        }
        let first = number("CARNET_MODEL_SEED").unwrap_or(1);
        let end = Instant::now() + Duration::from_secs(number("CARNET_MODEL_SECONDS").unwrap_or(10));
        let model = Model::new(&world.base);
        let (mut sequences, mut steps) = (0, 0);
        while sequences < FEWEST || Instant::now() < end {
            let seed = first.wrapping_add(sequences);
            let ops = generate::sequence(&model, seed);
            try_out(&mut world, &ops, &format!("seed {seed}"));
            sequences += 1;
            steps += ops.len();
        }
        println!("{sequences} sequences, {steps} steps, from seed {first} on. Seen: {:#?}", world.seen);
        for kind in TO_BE_SEEN {
            assert!(world.seen.contains(*kind), "not once in {sequences} sequences: {kind}");
        }
    });
}

/// So many sequences show everything below.
const FEWEST: u64 = 400;

/// What the steps must have led to, or they go nowhere.
const TO_BE_SEEN: &[&str] = &[
    "RECORDS 43",
    "RECORDS 61",
    "RECORDS 90",
    "SET 0",
    "SET 106",
    "SET 116",
    "SET 13",
    "SET 22",
    "SET 74",
    "SET 92",
    "STATE 0",
    "STATE 1",
    "STATE 2",
    "STATE 3",
    "a context",
    "a record",
    "a set",
    "an ambiguous origin",
    "an inferred record",
    "an original destination",
    "end 1",
    "end 2",
    "end 3",
    "end 4",
    "lost",
    "verdict 1 for reason 1",
    "verdict 1 for reason 12",
    "verdict 1 for reason 2",
    "verdict 1 for reason 9",
    "verdict 2 for reason 1",
    "verdict 3 for reason 1",
    "verdict 4 for reason 10",
    "verdict 4 for reason 3",
    "verdict 4 for reason 4",
    "verdict 4 for reason 5",
    "verdict 4 for reason 6",
    "verdict 4 for reason 7",
    "verdict 4 for reason 8",
];

fn try_out(world: &mut World, ops: &[Op], name: &str) {
    let Some(difference) = check::run(world, ops) else { return };
    // On a machine that is busy the network stack may take its time. What is wrong is wrong again.
    let Some(again) = check::run(world, ops) else {
        println!("{name}: a difference that did not come again: {}", difference.what);
        return;
    };
    let (ops, difference) = shrink::shrink(world, ops, again);
    let steps: Vec<String> = ops.iter().map(|op| format!("  {op:?}")).collect();
    panic!(
        "{name}, after step {}: {}\n{}\nAs a line of {}:\n{}",
        difference.step,
        difference.what,
        steps.join("\n"),
        shrink::path().display(),
        shrink::line(&ops)
    );
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
