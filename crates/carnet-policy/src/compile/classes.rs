//! Sets of rules, each kept once.

use std::collections::HashMap;

use carnet_abi as abi;

use crate::Mistake;

/// The classes of an image.
pub struct Classes {
    all: Vec<abi::Class>,
    known: HashMap<abi::Class, u16>,
}

impl Classes {
    /// The two that are always there, of an image with so many rules.
    pub fn new(rules: usize) -> Self {
        let nothing = abi::Class::default();
        let mut everything = nothing;
        (0..rules).for_each(|rule| set(&mut everything, rule, true));
        // Where there are no rules the two are equal, and either will do.
        let known = HashMap::from([(everything, abi::CLASS_EVERYTHING), (nothing, abi::CLASS_NOTHING)]);
        Self { all: vec![nothing, everything], known }
    }

    /// The class that has these rules.
    pub fn class(&mut self, rules: &abi::Class) -> Result<u16, Mistake> {
        match self.known.get(rules) {
            Some(&class) => Ok(class),
            None => {
                let class = self.push(*rules)?;
                self.known.insert(*rules, class);
                Ok(class)
            }
        }
    }

    /// The class with these rules alone.
    pub fn class_of(&mut self, rules: impl Iterator<Item = usize>) -> Result<u16, Mistake> {
        let mut class = abi::Class::default();
        rules.for_each(|rule| set(&mut class, rule, true));
        self.class(&class)
    }

    pub fn into_vec(self) -> Vec<abi::Class> {
        self.all
    }

    fn push(&mut self, rules: abi::Class) -> Result<u16, Mistake> {
        let class = u16::try_from(self.all.len()).map_err(|_| Mistake::TooManyClasses)?;
        self.all.push(rules);
        Ok(class)
    }
}

/// Puts a rule into a class or takes it out.
pub fn set(class: &mut abi::Class, rule: usize, holds: bool) {
    let (word, bit) = (rule / 64, 1 << (rule % 64));
    if holds {
        class.word[word] |= bit;
    } else {
        class.word[word] &= !bit;
    }
    let summary = 1 << word;
    if class.word[word] == 0 {
        class.words &= !summary;
    } else {
        class.words |= summary;
    }
}

const _: () = assert!(abi::MAX_CLASSES == u16::MAX as usize + 1);
