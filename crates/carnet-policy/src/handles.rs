//! Redirect handles by providers' names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Policy;

/// The handles that providers have, by their names. Records of flows name a provider by its handle, so one that has
/// been given is never given to another provider: whoever gives them keeps this for as long as there are such flows.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Stored")]
pub struct Handles {
    by_name: BTreeMap<String, u32>,
    newest: u32,
}

impl Handles {
    /// Gives every provider its handle: the one it had, where a provider of its name has been there before. Once there
    /// is no handle left, two providers get one, and [`Policy::validate`] says so.
    pub fn give(&mut self, policy: &mut Policy) {
        for provider in &mut policy.providers {
            provider.handle = *self.by_name.entry(provider.name.clone()).or_insert_with(|| {
                self.newest = self.newest.saturating_add(1);
                self.newest
            });
        }
    }

    /// Gives none up to this one any more: it is not known whose they are.
    pub fn begin_after(&mut self, handle: u32) {
        self.newest = self.newest.max(handle);
    }

    /// How many names are remembered.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether no name is.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whose a handle is.
    pub fn name(&self, handle: u32) -> Option<&str> {
        self.by_name.iter().find(|(_, own)| **own == handle).map(|(name, _)| &**name)
    }

    /// Names by handle: that of handle 1 is the first. Of one that is forgotten, it is empty.
    pub fn names(&self) -> Vec<&str> {
        let mut names = vec![""; self.newest as usize];
        for (name, handle) in &self.by_name {
            if let Some(place) = (*handle as usize).checked_sub(1).and_then(|at| names.get_mut(at)) {
                *place = name;
            }
        }
        names
    }

    /// Forgets the names of which this is false. Their handles are not given again: a provider that comes back by such
    /// a name is another one.
    pub fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.by_name.retain(|name, _| is_kept(name));
    }
}

/// As they are kept.
#[derive(Deserialize)]
struct Stored {
    by_name: BTreeMap<String, u32>,
    newest: u32,
}

impl TryFrom<Stored> for Handles {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored { by_name, newest } = stored;
        let mut given: Vec<_> = by_name.values().copied().collect();
        given.sort_unstable();
        if given.windows(2).any(|two| two[0] == two[1]) {
            return Err("two providers have one handle");
        }
        if given.first() == Some(&0) || given.last().is_some_and(|last| *last > newest) {
            return Err("a provider has a handle that has not been given");
        }
        Ok(Self { by_name, newest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plain_provider;
    use crate::{Policy, Provider};

    fn given(handles: &mut Handles, names: &[&str]) -> Vec<u32> {
        let provider = |(at, name): (usize, &&str)| Provider { name: (*name).to_owned(), ..plain_provider(at as u16) };
        let mut policy = Policy { providers: names.iter().enumerate().map(provider).collect(), ..Policy::default() };
        handles.give(&mut policy);
        policy.compile(1).unwrap();
        policy.providers.iter().map(|provider| provider.handle).collect()
    }

    #[test]
    fn handles_of_nobody_knows_whom_are_not_given() {
        let mut handles = Handles::default();
        handles.begin_after(7);
        handles.begin_after(3);
        assert_eq!(given(&mut handles, &["a", "b"]), [8, 9]);
        assert_eq!((handles.len(), handles.is_empty()), (2, false));
    }

    #[test]
    fn a_name_keeps_its_handle_and_no_handle_gets_another_name() {
        let mut handles = Handles::default();
        assert_eq!(given(&mut handles, &["a", "b"]), [1, 2]);
        assert_eq!(given(&mut handles, &["c", "a"]), [3, 1]);
        assert_eq!(given(&mut handles, &["b"]), [2]);
        assert_eq!(handles.names(), ["a", "b", "c"]);
        assert_eq!([0, 1, 3, 4].map(|handle| handles.name(handle)), [None, Some("a"), Some("c"), None]);
    }

    #[test]
    fn the_handle_of_a_name_that_is_forgotten_is_not_given_again() {
        let mut handles = Handles::default();
        given(&mut handles, &["a", "b"]);
        handles.retain(|name| name == "a");
        assert_eq!((handles.names(), handles.name(2)), (vec!["a", ""], None));
        assert_eq!(given(&mut handles, &["b", "a"]), [3, 1]);
    }

    #[test]
    fn they_are_the_same_after_they_have_been_kept_as_text() {
        let mut handles = Handles::default();
        given(&mut handles, &["a", "\"b\" \u{e4}"]);
        let text = serde_json::to_string(&handles).unwrap();
        let mut read: Handles = serde_json::from_str(&text).unwrap();
        assert_eq!(read, handles);
        assert_eq!(given(&mut read, &["c", "a"]), [3, 1]);
    }

    #[test]
    fn what_cannot_have_been_given_is_not_read() {
        for (text, error) in [
            (r#"{"by_name":{"a":1,"b":1},"newest":1}"#, "two providers have one handle"),
            (r#"{"by_name":{"a":0},"newest":1}"#, "not been given"),
            (r#"{"by_name":{"a":2},"newest":1}"#, "not been given"),
            (r#"{"by_name":{}}"#, "newest"),
        ] {
            let found = serde_json::from_str::<Handles>(text).unwrap_err().to_string();
            assert!(found.contains(error), "{text}: {found}");
        }
    }
}
