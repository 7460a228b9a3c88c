//! All rules' conditions on one dimension, and which rules they leave for a value.
//!
//! What a value is asked is which lists it is in. Lists are shared by rules, and a list may be long, so the way from a
//! value to its class has two steps: the set of the lists that have it, which is followed by a hash that changes with
//! each list; and the class of such a set, which is worked out once.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use carnet_abi as abi;

use super::classes::{Classes, set};
use super::layout::Rule;
use crate::{Condition, Match, Mistake};

/// Conditions of rules on a `T`.
pub struct Conditions<'p, T> {
    /// Each once, wherever it is used.
    pub lists: Vec<&'p [T]>,
    places: HashMap<(*const T, usize), usize>,
    uses: Vec<Uses>,
    /// Rules with an `only`.
    narrowed: Vec<usize>,
}

/// Rules that have a list among their conditions.
#[derive(Default)]
struct Uses {
    only: Vec<usize>,
    except: Vec<usize>,
}

/// Which rules a set of lists leaves.
pub struct Selection<'c> {
    uses: &'c [Uses],
    /// Of each list, a number that stands for it in the hash.
    numbers: Vec<u128>,
    /// Of the set.
    hash: u128,
    known: HashMap<u128, u16, BuildHasherDefault<Low>>,
    is_in: Vec<bool>,
    /// As `is_in` was when `rules` was made.
    was_in: Vec<bool>,
    /// Lists that may be different now.
    changed: Vec<usize>,
    /// Of each rule, how many of the lists in the set it has.
    only: Vec<u32>,
    except: Vec<u32>,
    is_narrowed: Vec<bool>,
    rules: abi::Class,
}

impl<'p, T> Conditions<'p, T> {
    /// Of each rule the condition that `of` takes from its match.
    pub fn new(rules: &[Rule<'p>], of: impl Fn(&'p Match) -> &'p Condition<T>) -> Self {
        let mut all = Self { lists: Vec::new(), places: HashMap::new(), uses: Vec::new(), narrowed: Vec::new() };
        for (rule, Rule { matches, .. }) in rules.iter().enumerate() {
            let condition = of(matches);
            if !condition.is_any() {
                all.add(rule, condition);
            }
        }
        all
    }

    fn add(&mut self, rule: usize, condition: &'p Condition<T>) {
        if let Some(only) = &condition.only {
            self.narrowed.push(rule);
            for list in only {
                let list = self.list(list);
                self.uses[list].only.push(rule);
            }
        }
        for list in &condition.except {
            let list = self.list(list);
            self.uses[list].except.push(rule);
        }
    }

    /// A list that no condition has.
    pub fn extra(&mut self) -> usize {
        self.lists.push(&[]);
        self.uses.push(Uses::default());
        self.lists.len() - 1
    }

    pub fn except(&mut self, rule: usize, list: usize) {
        self.uses[list].except.push(rule);
    }

    /// Whether no rule has any condition here.
    pub fn is_empty(&self) -> bool {
        self.narrowed.is_empty() && self.uses.iter().all(|uses| uses.except.is_empty())
    }

    /// How many values all lists have.
    pub fn values(&self) -> usize {
        self.lists.iter().map(|list| list.len()).sum()
    }

    /// Of the empty set, with so many rules in all.
    pub fn selection(&self, rules: usize) -> Selection<'_> {
        let mut class = abi::Class::default();
        (0..rules).for_each(|rule| set(&mut class, rule, true));
        let mut is_narrowed = vec![false; rules];
        for &rule in &self.narrowed {
            is_narrowed[rule] = true;
            set(&mut class, rule, false);
        }
        let random = RandomState::new();
        let half = |list: usize, half: u8| u128::from(random.hash_one((list, half)));
        let lists = self.uses.len();
        Selection {
            numbers: (0..lists).map(|list| half(list, 0) << 64 | half(list, 1)).collect(),
            hash: 0,
            known: HashMap::default(),
            is_in: vec![false; lists],
            was_in: vec![false; lists],
            changed: Vec::new(),
            only: vec![0; rules],
            except: vec![0; rules],
            is_narrowed,
            rules: class,
            uses: &self.uses,
        }
    }

    fn list(&mut self, list: &'p Arc<[T]>) -> usize {
        *self.places.entry((list.as_ptr(), list.len())).or_insert_with(|| {
            self.lists.push(list);
            self.uses.push(Uses::default());
            self.lists.len() - 1
        })
    }
}

impl Selection<'_> {
    /// Puts the list into the set, or takes it out.
    pub fn toggle(&mut self, list: usize) {
        self.is_in[list] ^= true;
        self.hash ^= self.numbers[list];
        self.changed.push(list);
    }

    /// The class of the set.
    pub fn class(&mut self, classes: &mut Classes) -> Result<u16, Mistake> {
        // Two sets with one hash of 128 random bits are not to be expected in the lifetime of anything.
        if let Some(&class) = self.known.get(&self.hash) {
            if self.changed.len() > 2 * self.is_in.len() + 64 {
                self.forget_unchanged();
            }
            return Ok(class);
        }
        let class = classes.class(self.rules())?;
        self.known.insert(self.hash, class);
        Ok(class)
    }

    /// The rules whose conditions hold for a value that these lists have.
    pub fn rules(&mut self) -> &abi::Class {
        for list in std::mem::take(&mut self.changed) {
            let is_in = self.is_in[list];
            if self.was_in[list] != is_in {
                self.was_in[list] = is_in;
                let Uses { only, except } = &self.uses[list];
                for &rule in only {
                    count(&mut self.only[rule], is_in);
                }
                for &rule in except {
                    count(&mut self.except[rule], is_in);
                }
                for &rule in only.iter().chain(except) {
                    let holds = (self.only[rule] > 0 || !self.is_narrowed[rule]) && self.except[rule] == 0;
                    set(&mut self.rules, rule, holds);
                }
            }
        }
        &self.rules
    }

    fn forget_unchanged(&mut self) {
        self.changed.sort_unstable();
        self.changed.dedup();
        self.changed.retain(|&list| self.is_in[list] != self.was_in[list]);
    }
}

fn count(counter: &mut u32, up: bool) {
    *counter = if up { *counter + 1 } else { counter.saturating_sub(1) };
}

/// A hash of what is random already.
#[derive(Default)]
struct Low(u64);

impl Hasher for Low {
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| hash.rotate_left(8) ^ u64::from(byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
