//! From lists of intervals to ranges with classes.

use super::classes::Classes;
use super::conditions::Selection;
use crate::Mistake;

/// What a tree can look up.
pub trait Value: Copy + Ord {
    const LAST: Self;

    /// The next one; `None` after the last.
    fn after(self) -> Option<Self>;
    /// The one before; `None` before the first.
    fn before(self) -> Option<Self>;
}

/// First and last value.
pub type Interval<V> = (V, V);

/// Ranges that cover all values: the last value of each, rising, and its class. Neighbours have different classes.
pub type Ranges<V> = Vec<(V, u16)>;

impl Value for u32 {
    const LAST: Self = Self::MAX;

    fn after(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn before(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Value for u128 {
    const LAST: Self = Self::MAX;

    fn after(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn before(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// The same values in intervals that do not touch each other, in order.
pub fn merge<V: Value>(intervals: &mut Vec<Interval<V>>) {
    intervals.sort_unstable();
    intervals.dedup_by(|next, merged| {
        let touches = merged.1.after().is_none_or(|after| next.0 <= after);
        if touches {
            merged.1 = merged.1.max(next.1);
        }
        touches
    });
}

/// The ranges that merged `lists` make. `tick` is told how many intervals have been gone through.
pub fn ranges<V: Value>(
    lists: &[Vec<Interval<V>>],
    selection: &mut Selection<'_>,
    classes: &mut Classes,
    tick: &mut dyn FnMut(usize),
) -> Result<Ranges<V>, Mistake> {
    // Values from which on a list has them, or has them no more.
    let mut edges: Vec<(V, u32)> = Vec::with_capacity(2 * lists.iter().map(Vec::len).sum::<usize>());
    for (list, intervals) in lists.iter().enumerate() {
        for &(first, last) in intervals {
            edges.push((first, list as u32));
            edges.extend(last.after().map(|after| (after, list as u32)));
        }
    }
    // Stable, because that makes use of parts that are in order, which each list is.
    edges.sort();

    let mut ranges = Ranges::new();
    let mut class = selection.class(classes)?;
    let mut untold = 0;
    for edge in edges.chunk_by(|a, b| a.0 == b.0) {
        edge.iter().for_each(|&(_, list)| selection.toggle(list as usize));
        let next = selection.class(classes)?;
        if next != class {
            ranges.extend(edge[0].0.before().map(|last| (last, class)));
            class = next;
        }
        untold += edge.len();
        if untold >= 1 << 17 {
            tick(untold / 2);
            untold %= 2;
        }
    }
    ranges.push((V::LAST, class));
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_that_touch_become_one() {
        let mut intervals = vec![(10, 20), (0, 3), (4, 4), (6, 6), (12, 13), (20, 25), (u32::MAX, u32::MAX)];
        merge(&mut intervals);
        assert_eq!(intervals, [(0, 4), (6, 6), (10, 25), (u32::MAX, u32::MAX)]);

        let mut whole = vec![(7, 7), (0, u32::MAX), (9, u32::MAX)];
        merge(&mut whole);
        assert_eq!(whole, [(0, u32::MAX)]);
    }
}
