use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    thread::available_parallelism,
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{
    BodyFacts, Matcher, Scan, ScanBody, ScanReport,
    body::{Look, OneBody},
    budget::Budget,
    sink::How,
    window::Sizes,
};

/// Looks at bodies by rules, on threads of their own.
pub struct Scanner {
    matcher: RwLock<Arc<dyn Matcher>>,
    shared: Arc<Shared>,
}

/// How bodies are looked at.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions {
    /// What becomes of a body that matches.
    pub on_match: Act,
    /// What becomes of a body that cannot be looked at; where [`on_match`](Self::on_match) is [`Act::Log`], the same.
    pub on_unscanned: Act,
    /// A body up to this long is held back until all of it was looked at, as one piece.
    pub hold: usize,
    /// Of a longer one, this much at a time.
    pub step: usize,
    /// And with it this much of what came before: what is found in a long body is found where it is no longer than
    /// this.
    pub overlap: usize,
    /// How long a body may become when its `Content-Encoding` is undone. What comes after is not looked at.
    pub decoded: u64,
    /// How long the rules may take for one piece.
    pub time: Duration,
    /// Memory for all bodies together. Where it is used up, bodies are looked at like those longer than
    /// [`hold`](Self::hold).
    pub memory: usize,
    /// Pieces that are looked at at the same time.
    pub threads: usize,
}

/// What becomes of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Act {
    /// It is stopped.
    Block,
    /// It goes on, and is told of.
    Log,
}

/// What all bodies share.
pub(super) struct Shared {
    pub(super) options: ScanOptions,
    pub(super) memory: Arc<Budget>,
    pub(super) threads: Arc<Semaphore>,
    pub(super) tell: Box<dyn Fn(ScanReport) + Send + Sync>,
}

impl Scanner {
    /// Looks at bodies by `matcher`, and tells `tell` what it finds. That is called where scans wait for it, so it must
    /// not block.
    pub fn new(
        matcher: Arc<dyn Matcher>,
        options: ScanOptions,
        tell: impl Fn(ScanReport) + Send + Sync + 'static,
    ) -> Self {
        let options = options.sane();
        let (memory, threads) = (Budget::new(options.memory), Arc::new(Semaphore::new(options.threads)));
        let shared = Arc::new(Shared { options, memory, threads, tell: Box::new(tell) });
        Self { matcher: RwLock::new(matcher), shared }
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Other rules hold for bodies that begin from now on.
    pub fn replace(&self, matcher: Arc<dyn Matcher>) {
        *self.matcher.write().unwrap_or_else(PoisonError::into_inner) = matcher;
    }
}

impl Scan for Scanner {
    fn begin(&self, facts: &BodyFacts<'_>) -> Option<Box<dyn ScanBody>> {
        let matcher = Arc::clone(&self.matcher.read().unwrap_or_else(PoisonError::into_inner));
        Some(Box::new(OneBody::new(Look::new(matcher, facts, Arc::clone(&self.shared)))))
    }
}

impl fmt::Debug for Scanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner")
            .field("matcher", &self.matcher)
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl ScanOptions {
    /// Lengths with which windows move on.
    fn sane(self) -> Self {
        let threads = self.threads.clamp(1, Semaphore::MAX_PERMITS);
        Self { hold: self.hold.max(1), step: self.step.max(1), threads, ..self }
    }

    pub(super) fn how(&self) -> How {
        let sizes = Sizes { first: self.hold, step: self.step, overlap: self.overlap };
        How { sizes, limit: self.time, goes_on: self.on_match == Act::Log }
    }
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            on_match: Act::Block,
            on_unscanned: Act::Block,
            hold: 8 << 20,
            step: 1 << 20,
            overlap: 64 << 10,
            decoded: 256 << 20,
            time: Duration::from_secs(10),
            memory: 512 << 20,
            threads: available_parallelism().map_or(1, usize::from),
        }
    }
}
