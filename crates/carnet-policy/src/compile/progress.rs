//! How far compiling is.

use crate::matching::Part;

/// How much of a policy is compiled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Which conditions are being worked on.
    pub part: Part,
    /// How much is done, the same or more each time.
    pub done: usize,
    /// Of how much: each prefix, port range and so on counts twice, once for its list and once among all lists.
    pub of: usize,
}

/// The work on one policy.
pub struct Work<'a> {
    report: Option<&'a mut dyn FnMut(Progress)>,
    progress: Progress,
    /// What will be done when the part is.
    limit: usize,
    /// Done since the last report.
    untold: usize,
}

impl<'a> Work<'a> {
    /// On so many values of conditions.
    pub fn new(values: usize, report: &'a mut dyn FnMut(Progress)) -> Self {
        let progress = Progress { part: Part::Remote, done: 0, of: 2 * values };
        Self { report: Some(report), progress, limit: 0, untold: 0 }
    }

    /// That nobody hears of.
    pub fn untold() -> Self {
        let progress = Progress { part: Part::Remote, done: 0, of: 0 };
        Self { report: None, progress, limit: 0, untold: 0 }
    }

    pub fn begin(&mut self, part: Part, values: usize) {
        self.progress.part = part;
        self.limit = self.progress.done + 2 * values;
        self.tell();
    }

    pub fn tick(&mut self, values: usize) {
        self.progress.done = (self.progress.done + values).min(self.limit);
        self.untold += values;
        if self.untold >= STEP {
            self.tell();
        }
    }

    pub fn end(&mut self) {
        self.progress.done = self.limit;
        self.tell();
    }

    fn tell(&mut self) {
        self.untold = 0;
        if let Some(report) = &mut self.report {
            report(self.progress);
        }
    }
}

/// Values from one report to the next, some milliseconds.
const STEP: usize = 1 << 16;
