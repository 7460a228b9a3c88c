//! From a name to the rules that have it.

use std::collections::HashMap;

use super::pattern::{Pattern, normal};

/// Finds the rules that have a name in as many steps as the name has labels, however many names and rules there are.
#[derive(Debug, Default)]
pub(super) struct NameIndex {
    by_suffix: HashMap<Box<str>, Entry>,
    /// Each once: lists that a name is in, by the rule that they are first in.
    sets: Vec<Box<[u32]>>,
    /// Rules that have each list, in their order.
    rules: Vec<Box<[u32]>>,
    /// Length of the longest suffix.
    longest: usize,
}

/// What is gathered for an index: lists of patterns, and which rules have them.
#[derive(Debug, Default)]
pub(super) struct Lists {
    rules: Vec<Vec<u32>>,
    patterns: Vec<(Pattern, u32)>,
}

/// Positions in [`NameIndex::sets`].
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    itself: u32,
    below: u32,
}

impl NameIndex {
    /// The first rule with this name of which `holds` is true, if it is before `end`.
    pub(super) fn first(&self, name: &str, end: u32, mut holds: impl FnMut(u32) -> bool) -> u32 {
        let name = normal(name);
        if name.is_empty() {
            return end;
        }
        let mut first = end;
        let mut look_at = |set: u32| {
            for &list in &self.sets[set as usize] {
                let rules = &self.rules[list as usize];
                if rules.first().is_none_or(|&rule| rule >= first) {
                    break; // as all lists behind it
                }
                let before = rules.iter().copied().take_while(|&rule| rule < first);
                first = before.into_iter().find(|&rule| holds(rule)).unwrap_or(first);
            }
        };
        if let Some(entry) = self.entry(&name) {
            look_at(entry.itself);
        }
        for (at, _) in name.match_indices('.') {
            if let Some(entry) = self.entry(&name[at + 1..]) {
                look_at(entry.below);
            }
        }
        if let Some(entry) = self.by_suffix.get("") {
            look_at(entry.below);
        }
        first
    }

    /// Nothing is looked at that is too long to be there: names are a stranger's, and may have thousands of labels.
    fn entry(&self, suffix: &str) -> Option<Entry> {
        if suffix.len() > self.longest || suffix.is_empty() {
            return None;
        }
        self.by_suffix.get(suffix).copied()
    }
}

impl Lists {
    /// Of these patterns; whether names below each count, too.
    pub(super) fn add(&mut self, patterns: impl IntoIterator<Item = Pattern>, with_below: bool) -> u32 {
        let list = self.rules.len() as u32;
        for pattern in patterns {
            if with_below && !pattern.is_below {
                self.patterns.push((Pattern { is_below: true, ..pattern.clone() }, list));
            }
            self.patterns.push((pattern, list));
        }
        self.rules.push(Vec::new());
        list
    }

    /// Rules come in their order.
    pub(super) fn used(&mut self, list: u32, rule: u32) {
        let rules = &mut self.rules[list as usize];
        if rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }

    pub(super) fn index(mut self) -> NameIndex {
        // Lists are sorted by the rule they are first in; those of no rule are left out.
        let first = |list: &u32| self.rules[*list as usize].first().copied();
        self.patterns.retain(|(_, list)| first(list).is_some());
        self.patterns.sort_unstable_by(|(a, in_a), (b, in_b)| {
            (&a.suffix, a.is_below, first(in_a), in_a).cmp(&(&b.suffix, b.is_below, first(in_b), in_b))
        });
        self.patterns.dedup();

        let mut numbers: HashMap<Vec<u32>, u32> = HashMap::from([(Vec::new(), 0)]);
        let mut by_suffix: HashMap<Box<str>, Entry> = HashMap::new();
        for same in self.patterns.chunk_by(|(a, _), (b, _)| a == b) {
            let lists: Vec<u32> = same.iter().map(|(_, list)| *list).collect();
            let next = numbers.len() as u32;
            let set = *numbers.entry(lists).or_insert(next);
            let Some((pattern, _)) = same.first() else { continue };
            let entry = by_suffix.entry(pattern.suffix.clone()).or_default();
            *(if pattern.is_below { &mut entry.below } else { &mut entry.itself }) = set;
        }
        by_suffix.shrink_to_fit();

        let mut sets: Vec<(u32, Vec<u32>)> = numbers.into_iter().map(|(set, number)| (number, set)).collect();
        sets.sort_unstable();
        NameIndex {
            longest: by_suffix.keys().map(|suffix| suffix.len()).max().unwrap_or(0),
            by_suffix,
            sets: sets.into_iter().map(|(_, set)| set.into()).collect(),
            rules: self.rules.into_iter().map(Into::into).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(rules: &[&[&str]]) -> NameIndex {
        let mut lists = Lists::default();
        for (rule, names) in rules.iter().enumerate() {
            let list = lists.add(names.iter().map(|name| Pattern::parse(name).unwrap()), false);
            lists.used(list, rule as u32);
        }
        lists.index()
    }

    #[test]
    fn the_first_rule_that_has_the_name_and_holds_is_found() {
        let index = index(&[&["*.a.b"], &["x.a.b", "b"], &["*"], &["*.b", "x.a.b"]]);
        let all = |name| {
            let mut rules = Vec::new();
            let mut skipped = Vec::new();
            loop {
                match index.first(name, 9, |rule| !skipped.contains(&rule)) {
                    9 => return rules,
                    rule => {
                        skipped.push(rule);
                        rules.push(rule);
                    }
                }
            }
        };
        assert_eq!(all("x.a.b"), [0, 1, 2, 3]);
        assert_eq!(all("X.A.B."), [0, 1, 2, 3]);
        assert_eq!(all("a.b"), [2, 3]);
        assert_eq!(all("b"), [1, 2]);
        assert_eq!(all("y.x.a.b"), [0, 2, 3]);
        assert_eq!(all("ab"), [2]);
        assert_eq!(all(""), [0_u32; 0]);
        assert_eq!(all("."), [0_u32; 0]);
    }

    #[test]
    fn a_name_of_thousands_of_labels_is_only_looked_at_near_its_end() {
        let index = index(&[&["*.example.org"]]);
        let mut name = "a.".repeat(100_000);
        assert_eq!(index.first(&name, 1, |_| true), 1);
        name += "example.org";
        assert_eq!(index.first(&name, 1, |_| true), 0);
    }

    #[test]
    fn names_in_the_same_lists_share_a_set() {
        let mut lists = Lists::default();
        let names = (0..1000).map(|at| Pattern::parse(&format!("n{at}.example")).unwrap());
        let list = lists.add(names, true);
        (0..50).for_each(|rule| lists.used(list, rule));
        let index = lists.index();
        assert_eq!((index.by_suffix.len(), index.sets.len(), index.rules.len()), (1000, 2, 1));
        assert_eq!(index.first("a.n7.example", 99, |rule| rule == 49), 49);
    }

    #[test]
    fn a_rule_without_the_name_is_not_looked_at() {
        let names: Vec<String> = (0..2000).map(|rule| format!("n{rule}.example")).collect();
        let rules: Vec<&[&str]> = names.iter().map(|_| &["x.example"][..]).collect();
        let index = index(&rules);
        let mut asked = 0;
        assert_eq!(
            index.first("x.example", 2000, |rule| rule == 7 || {
                asked += 1;
                false
            }),
            7
        );
        assert_eq!(asked, 7, "up to the first that holds");
        let one_each: Vec<[&str; 1]> = names.iter().map(|name| [&**name]).collect();
        let one_each: Vec<&[&str]> = one_each.iter().map(|names| &names[..]).collect();
        let index = self::index(&one_each);
        let mut asked = Vec::new();
        index.first("n1999.example", 2000, |rule| {
            asked.push(rule);
            false
        });
        assert_eq!(asked, [1999]);
    }
}
