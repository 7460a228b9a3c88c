//! Trees of ranges, without pointers: see `carnet_image.h`.

use carnet_abi::{self as abi, TREE_FAN, TREE_GROUPS, TREE_LEVELS};

use super::ranges::Value;
use crate::Mistake;

/// A node with the values it is looked up by.
pub trait Node: Sized {
    type Value: Value;

    /// Of at most [`TREE_FAN`] children: the last value below each, and its class.
    fn of(children: &[(Self::Value, u16)]) -> Self;
}

impl Node for abi::Node32 {
    type Value = u32;

    fn of(children: &[(u32, u16)]) -> Self {
        let (last, class_of) = pad(children);
        Self { group: groups(&last), last, class_of }
    }
}

impl Node for abi::Node128 {
    type Value = u128;

    fn of(children: &[(u128, u16)]) -> Self {
        let (last, class_of) = pad(children);
        let last = last.map(value128);
        Self { group: groups(&last), last, class_of }
    }
}

/// Appends the tree of `ranges` to `nodes`.
pub fn push_tree<N: Node>(nodes: &mut Vec<N>, ranges: &[(N::Value, u16)]) -> Result<abi::Tree, Mistake> {
    let mut levels: Vec<Vec<N>> = Vec::new();
    let mut children = ranges.to_vec();
    loop {
        levels.push(children.chunks(TREE_FAN).map(N::of).collect());
        if children.len() <= TREE_FAN {
            break;
        }
        let last = |node: &[(N::Value, u16)]| (node[node.len() - 1].0, abi::CLASS_NOTHING);
        children = children.chunks(TREE_FAN).map(last).collect();
    }
    if levels.len() > TREE_LEVELS {
        return Err(Mistake::TooManyRanges { count: ranges.len() });
    }
    let mut tree = abi::Tree { levels: levels.len() as u32, ..Default::default() };
    for (place, level) in tree.level.iter_mut().zip(levels.into_iter().rev()) {
        *place = nodes.len() as u32;
        nodes.extend(level);
    }
    Ok(tree)
}

fn pad<V: Value>(children: &[(V, u16)]) -> ([V; TREE_FAN], [u16; TREE_FAN]) {
    let mut last = [V::LAST; TREE_FAN];
    let mut class_of = [children.last().map_or(abi::CLASS_NOTHING, |child| child.1); TREE_FAN];
    for (child, &(value, class)) in children.iter().enumerate() {
        last[child] = value;
        class_of[child] = class;
    }
    (last, class_of)
}

/// The last value of each group of children.
fn groups<V: Copy>(last: &[V; TREE_FAN]) -> [V; TREE_GROUPS] {
    std::array::from_fn(|group| last[(group + 1) * (TREE_FAN / TREE_GROUPS) - 1])
}

fn value128(value: u128) -> abi::Value128 {
    abi::Value128 { hi: (value >> 64) as u64, lo: value as u64 }
}
