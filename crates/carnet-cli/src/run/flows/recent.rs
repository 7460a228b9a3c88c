//! What was there lately.

use std::collections::HashSet;
use std::hash::Hash;
use std::mem;

/// A set that forgets what has not been asked for lately, so that it never grows beyond twice its size.
#[derive(Debug)]
pub(super) struct Recent<T> {
    size: usize,
    new: HashSet<T>,
    old: HashSet<T>,
}

impl<T: Eq + Hash> Recent<T> {
    /// One that remembers at least the last `size` values.
    pub(super) fn new(size: usize) -> Self {
        Self { size, new: HashSet::new(), old: HashSet::new() }
    }

    /// Puts it in. Whether it was not there.
    pub(super) fn insert(&mut self, value: T) -> bool {
        if self.new.contains(&value) {
            return false;
        }
        let is_new = !self.old.remove(&value);
        if self.new.len() >= self.size {
            self.old = mem::take(&mut self.new);
        }
        self.new.insert(value);
        is_new
    }

    /// Whether it is there. It is not kept longer for that.
    pub(super) fn contains(&self, value: &T) -> bool {
        self.new.contains(value) || self.old.contains(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_so_many_and_not_many_more() {
        let mut recent = Recent::new(100);
        for value in 0..10_000 {
            assert!(!recent.contains(&value) && recent.insert(value));
            assert!(recent.contains(&value) && !recent.insert(value));
            assert!(recent.new.len() + recent.old.len() <= 200);
        }
        for value in 9_900..10_000 {
            assert!(recent.contains(&value) && !recent.insert(value), "{value} was among the last hundred");
        }
        assert!(!recent.contains(&0) && recent.insert(0), "it was long ago");
    }

    #[test]
    fn what_is_asked_for_again_and_again_stays() {
        let mut recent = Recent::new(10);
        assert!(recent.insert(-1));
        for value in 0..1000 {
            recent.insert(value);
            assert!(!recent.insert(-1), "at {value}");
        }
    }
}
