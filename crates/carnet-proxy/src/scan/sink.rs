//! Where bytes go to be looked at.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use super::{
    matcher::{Match, Matcher, Unscanned},
    window::{Sizes, Window},
};

/// Looks at what is written to it. Once it knows enough, writing fails.
#[derive(Debug)]
pub(super) struct Sink {
    matcher: Arc<dyn Matcher>,
    window: Window,
    /// How much may still come.
    left: u64,
    limit: Duration,
    /// It goes on when something matches.
    goes_on: bool,
    findings: Findings,
}

/// What a sink knows.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Each rule once.
    pub(super) matches: Vec<Match>,
    /// Something of it was not looked at.
    pub(super) unscanned: Option<Unscanned>,
}

/// How it looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) sizes: Sizes,
    pub(super) limit: Duration,
    pub(super) goes_on: bool,
}

impl Sink {
    /// Takes `most` bytes.
    pub(super) fn new(matcher: Arc<dyn Matcher>, how: How, most: u64) -> Self {
        let How { sizes, limit, goes_on } = how;
        Self { matcher, window: Window::new(sizes), left: most, limit, goes_on, findings: Findings::default() }
    }

    /// All that was written is looked at; at the end, as one piece with what there was before it.
    pub(super) fn look(&mut self, end: bool) {
        if self.done() {
            return;
        }
        let look = |data: &[u8]| look(&mut self.findings, &*self.matcher, self.limit, self.goes_on, data);
        // What it found is in `findings`.
        let _ = if end { self.window.end(look) } else { self.window.catch_up(look) };
    }

    /// Forgets what need not be kept to find patterns.
    pub(super) fn shed(&mut self) {
        self.window.slide();
    }

    /// How much the window lacks.
    pub(super) fn room(&self) -> usize {
        self.window.room()
    }

    pub(super) fn kept(&self) -> usize {
        self.window.kept()
    }

    /// What it knows that was not taken before.
    pub(super) fn take(&mut self) -> Findings {
        let known = self.findings.unscanned.clone();
        std::mem::replace(&mut self.findings, Findings { matches: Vec::new(), unscanned: known })
    }

    /// Nothing more comes, though there is more.
    pub(super) fn give_up(&mut self, why: Unscanned) {
        self.findings.unscanned.get_or_insert(why);
    }

    fn done(&self) -> bool {
        self.findings.unscanned.is_some() || (!self.goes_on && !self.findings.matches.is_empty())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.done() {
            return Err(io::ErrorKind::Other.into());
        }
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            self.look(false);
            self.give_up(Unscanned::Length);
            return Err(io::ErrorKind::Other.into());
        };
        self.left = left;
        let look = |data: &[u8]| look(&mut self.findings, &*self.matcher, self.limit, self.goes_on, data);
        match self.window.push(bytes, look) {
            Ok(()) => Ok(bytes.len()),
            Err(Enough) => Err(io::ErrorKind::Other.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// There is no need to look any further.
struct Enough;

fn look(
    findings: &mut Findings,
    matcher: &dyn Matcher,
    limit: Duration,
    goes_on: bool,
    data: &[u8],
) -> Result<(), Enough> {
    match matcher.matches(data, limit) {
        Ok(matches) if matches.is_empty() => Ok(()),
        Ok(matches) => {
            findings.matches.extend(matches);
            if goes_on { Ok(()) } else { Err(Enough) }
        }
        Err(unscanned) => {
            findings.unscanned = Some(unscanned);
            Err(Enough)
        }
    }
}
