//! Which programs do not accept the authority's certificates for which names, and which servers ask for one of the
//! client's.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lru::LruCache;

use super::Why;

/// What was learnt of flows that cannot be opened, for a while. Of [`MOST`], the one that was unused for longest goes.
#[derive(Debug)]
pub(super) struct Pins(Mutex<LruCache<Pin, Known>>);

/// Whose flows, and to whom.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Pin {
    /// The name asked for, or the address where there is none.
    pub(crate) name: String,
    pub(crate) uid: Option<u32>,
    pub(crate) exe: Option<PathBuf>,
}

#[derive(Debug)]
struct Known {
    why: Why,
    until: Instant,
}

impl Pins {
    pub(super) fn remember(&self, pin: Pin, why: Why) {
        self.remember_at(pin, why, Instant::now());
    }

    pub(super) fn why(&self, pin: &Pin) -> Option<Why> {
        self.why_at(pin, Instant::now())
    }

    fn remember_at(&self, pin: Pin, why: Why, now: Instant) {
        self.with(|pins| pins.put(pin, Known { why, until: now + REMEMBERED }));
    }

    fn why_at(&self, pin: &Pin, now: Instant) -> Option<Why> {
        self.with(|pins| {
            let Known { why, until } = *pins.get(pin)?;
            if now < until {
                return Some(why);
            }
            pins.pop(pin);
            None
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut LruCache<Pin, Known>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Pins {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

/// Of about 200 bytes each.
const MOST: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not 0");

/// A program that was given the authority since then is opened again after this.
const REMEMBERED: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_forgotten_in_time() {
        let (pins, now) = (Pins::default(), Instant::now());
        pins.remember_at(pin("a.example", 1), Why::Pinned, now);
        assert_eq!(pins.why_at(&pin("a.example", 1), now + REMEMBERED - Duration::from_secs(1)), Some(Why::Pinned));
        assert_eq!(pins.why_at(&pin("a.example", 2), now), None, "another user's");
        assert_eq!(pins.why_at(&pin("b.example", 1), now), None, "another name");
        assert_eq!(pins.why_at(&pin("a.example", 1), now + REMEMBERED), None);
        assert_eq!(pins.with(|pins| pins.len()), 0);
    }

    #[test]
    fn there_are_no_more_than_there_is_room_for() {
        let (pins, now) = (Pins::default(), Instant::now());
        for uid in 0..2 * MOST.get() as u32 {
            pins.remember_at(pin("a.example", uid), Why::ClientCertificate, now);
        }
        assert_eq!(pins.with(|pins| pins.len()), MOST.get());
    }

    fn pin(name: &str, uid: u32) -> Pin {
        Pin { name: name.into(), uid: Some(uid), exe: None }
    }
}
