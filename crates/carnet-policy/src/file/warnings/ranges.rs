//! Sets of numbers as ranges.

use std::cell::Cell;

/// Rising ranges, none of which touches another. Both ends are in them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ranges(Vec<(u128, u128)>);

/// How much may still be compared. Where nothing is left, answers are on the safe side.
pub struct Budget(Cell<u64>);

impl Ranges {
    /// All numbers.
    pub fn all() -> Self {
        Self(vec![(0, u128::MAX)])
    }

    /// Of any ranges; those that end before they begin are none.
    pub fn of(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// What is in this one and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut cuts = other.0.iter().peekable();
        for &(mut first, last) in &self.0 {
            let mut is_left = true;
            while let Some(&&(cut, end)) = cuts.peek() {
                if end < first {
                    cuts.next();
                    continue;
                }
                if cut > last {
                    break;
                }
                if cut > first {
                    left.push((first, cut - 1));
                }
                if end >= last {
                    is_left = false;
                    break;
                }
                first = end + 1;
                cuts.next();
            }
            if is_left {
                left.push((first, last));
            }
        }
        Self(left)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn is_all(&self) -> bool {
        self.0 == [(0, u128::MAX)]
    }

    /// Whether everything in `other` is in this one; also false where the budget is used up.
    pub fn covers(&self, other: &Self, budget: &Budget) -> bool {
        self.is_all()
            || other.0.iter().all(|&(first, last)| {
                let at = self.0.partition_point(|&(_, end)| end < first);
                budget.spend(1) && self.0.get(at).is_some_and(|&(start, end)| start <= first && last <= end)
            })
    }

    /// Whether anything is in both.
    pub fn meets(&self, other: &Self) -> bool {
        let (mut own, mut others) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(&&(first, last)), Some(&&(start, end))) = (own.peek(), others.peek()) {
            if first <= end && start <= last {
                return true;
            }
            if last < end {
                own.next()
            } else {
                others.next()
            };
        }
        false
    }

    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.0.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Budget {
    pub fn new(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    /// Whether so much was left.
    pub fn spend(&self, steps: u64) -> bool {
        let left = self.0.get().checked_sub(steps);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(ranges: &Ranges, number: u128) -> bool {
        ranges.iter().any(|(first, last)| first <= number && number <= last)
    }

    fn few() -> impl Strategy<Value = Vec<(u128, u128)>> {
        let edge = prop_oneof![8 => 0..24_u128, 1 => Just(u128::MAX), 1 => Just(u128::MAX - 1)];
        prop::collection::vec((edge.clone(), edge), 0..6)
    }

    proptest! {
        #[test]
        fn sets_are_what_their_numbers_say(a in few(), b in few()) {
            let (x, y) = (Ranges::of(a.clone()), Ranges::of(b.clone()));
            let left = x.without(&y);
            let mut covers = true;
            for number in (0..26).chain([u128::MAX - 2, u128::MAX - 1, u128::MAX]) {
                let is_in = |ranges: &[(u128, u128)]| ranges.iter().any(|(first, last)| *first <= number && number <= *last);
                prop_assert_eq!(contains(&x, number), is_in(&a));
                prop_assert_eq!(contains(&left, number), is_in(&a) && !is_in(&b), "{} in {:?} - {:?} = {:?}", number, x, y, left);
                covers &= is_in(&a) || !is_in(&b);
            }
            prop_assert_eq!(x.covers(&y, &Budget::new(1000)), covers);
            prop_assert_eq!(x.meets(&y), left != x);
            prop_assert_eq!(left.is_empty(), y.covers(&x, &Budget::new(1000)));
            prop_assert!(left.0.windows(2).all(|pair| pair[0].1.checked_add(1).is_some_and(|end| end < pair[1].0)), "{:?}", left);
        }
    }

    #[test]
    fn without_a_budget_nothing_is_covered() {
        let one = Ranges::of(vec![(1, 2)]);
        assert!(one.covers(&one, &Budget::new(1)) && !one.covers(&one, &Budget::new(0)));
    }
}
