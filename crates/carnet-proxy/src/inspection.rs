//! What a service applies to the flows that come to it.

use std::{
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use crate::{
    open::Opener,
    rules::{Outcome, Rules},
    tap::Tap,
};

/// The rules that hold, which may be replaced at any time, and where what passes is recorded.
#[derive(Debug)]
pub struct Inspection {
    rules: RwLock<Arc<Held>>,
    tap: Option<Tap>,
    opener: OnceLock<Arc<Opener>>,
}

/// Rules, and since when they hold.
pub(crate) struct Held {
    pub(crate) rules: Rules,
    begun: Instant,
    says_tap: bool,
}

impl Inspection {
    /// These rules, from now on. With a tap, the flows are recorded of which a rule says so, or all where none does.
    pub fn new(rules: Rules, tap: Option<Tap>) -> Self {
        Self { rules: RwLock::new(Arc::new(Held::new(rules))), tap, opener: OnceLock::new() }
    }

    /// Other rules hold for flows that come from now on. Those that have come keep theirs; rates begin anew.
    pub fn replace(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Held::new(rules));
    }

    /// Flows are opened with this, where rules say so. The first counts. Without one they are refused.
    pub fn open_with(&self, opener: Arc<Opener>) {
        let _ = self.opener.set(opener);
    }

    /// What flows are opened with, if there is something.
    pub fn opener(&self) -> Option<&Arc<Opener>> {
        self.opener.get()
    }

    /// What records a flow of which the rules say this.
    pub(crate) fn tap_for(&self, held: &Held, outcome: &Outcome) -> Option<&Tap> {
        self.tap.as_ref().filter(|_| outcome.tap || !held.says_tap)
    }

    /// Whether any flow may be recorded.
    pub(crate) fn taps(&self) -> bool {
        self.tap.is_some()
    }

    pub(crate) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Held {
    fn new(rules: Rules) -> Self {
        let says_tap = rules.default_outcome().tap || rules.rules().iter().any(|rule| rule.outcome.tap);
        Self { rules, begun: Instant::now(), says_tap }
    }

    /// The time, as rates count it.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("rules", &self.rules.rules().len()).finish_non_exhaustive()
    }
}
