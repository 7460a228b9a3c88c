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
mod seen;
mod shrink;
mod world;

use std::env;
use std::time::{Duration, Instant};

use carnet_e2e::netns;

use crate::check::Difference;
use crate::model::Model;
use crate::op::Op;
use crate::seen::TO_BE_SEEN;
use crate::world::World;

#[test]
fn random_calls_are_answered_as_the_model_says() {
    netns::alone(|| {
        let mut world = World::new();
        if let Ok(steps) = env::var("CARNET_MODEL_STEPS") {
            return assert_same(&mut world, &serde_json::from_str::<Vec<Op>>(&steps).unwrap(), "CARNET_MODEL_STEPS");
        }
        for (line, ops) in (1..).zip(shrink::regressions()) {
            assert_same(&mut world, &ops, &format!("regression {line}"));
        }
        let first = number("CARNET_MODEL_SEED").unwrap_or(1);
        let end = Instant::now() + Duration::from_secs(number("CARNET_MODEL_SECONDS").unwrap_or(10));
        let model = Model::new(&world.base);
        let (mut sequences, mut steps, mut passing) = (0, 0, Vec::new());
        while sequences < FEWEST || Instant::now() < end || (sequences < ENOUGH && unseen(&world).is_some()) {
            let seed = first.wrapping_add(sequences);
            let ops = generate::sequence(&model, seed);
            passing.extend(try_out(&mut world, &ops, &format!("seed {seed}")));
            assert!(passing.len() <= MOST_PASSING, "{NOT_AGAIN}\n{}", passing.join("\n"));
            sequences += 1;
            steps += ops.len();
        }
        println!("{sequences} sequences, {steps} steps, from seed {first} on. Seen: {:?}", world.seen);
        passing.iter().for_each(|passing| println!("{NOT_AGAIN} {passing}"));
        assert_eq!(unseen(&world), None, "not once in {sequences} sequences");
    });
}

/// The first of what is to be seen that was not.
fn unseen(world: &World) -> Option<&'static str> {
    TO_BE_SEEN.iter().find(|(_, seen)| !world.seen.contains(seen)).map(|(name, _)| *name)
}

/// So many sequences from seed 1 on show everything,
const FEWEST: u64 = 400;
/// and so many from any other.
const ENOUGH: u64 = 4 * FEWEST;

/// So many differences of a run may not come again: on a machine that is busy the network stack may take its time. What
/// is wrong is wrong again, but for a race, and that is more than one in a run.
const MOST_PASSING: usize = 1;

const NOT_AGAIN: &str = "a difference that did not come again:";

/// A sequence that is known is to have no difference, not even once.
fn assert_same(world: &mut World, ops: &[Op], name: &str) {
    let passing = try_out(world, ops, name);
    assert!(passing.is_none(), "{NOT_AGAIN} {}", passing.unwrap());
}

/// Returns a difference that does not come again. Panics with one that does.
fn try_out(world: &mut World, ops: &[Op], name: &str) -> Option<String> {
    let once = check::run(world, ops)?;
    let Some(again) = check::run(world, ops) else {
        let Difference { step, what } = once;
        return Some(format!("{name}, after step {step}: {what}\nAs a line: {}", shrink::line(ops)));
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
