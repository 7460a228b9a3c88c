//! Makes a sequence with a difference as short as it gets, and keeps those that were found.

use std::path::PathBuf;

use crate::check::{Difference, run};
use crate::op::Op;
use crate::world::World;

/// Leaves out what is not needed: large parts first, then single steps, until nothing can go.
pub fn shrink(world: &mut World, ops: &[Op], difference: Difference) -> (Vec<Op>, Difference) {
    let (mut ops, mut difference) = (ops[..ops.len().min(difference.step.wrapping_add(1))].to_vec(), difference);
    let mut part = ops.len().div_ceil(2);
    while part > 0 && !ops.is_empty() {
        let mut at = 0;
        let mut shorter = false;
        while at < ops.len() {
            let without = [&ops[..at], &ops[(at + part).min(ops.len())..]].concat();
            match run(world, &without) {
                Some(other) => (ops, difference, shorter) = (without, other, true),
                None => at += part,
            }
        }
        if !(shorter && part == 1) {
            part /= 2;
        }
    }
    (ops, difference)
}

/// Sequences in which there once was a difference, each on a line of its own.
pub fn regressions() -> Vec<Vec<Op>> {
    // Built in, because the tests also run where the sources are not.
    let lines = include_str!("regressions.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| serde_json::from_str(line).expect("a sequence")).collect()
}

pub fn line(ops: &[Op]) -> String {
    serde_json::to_string(ops).expect("steps are text")
}

pub fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "model", "regressions.txt"].iter().collect()
}
