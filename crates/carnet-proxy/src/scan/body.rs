//! One body, looked at.

use std::{
    io::Write,
    mem::{replace, take},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{
    BodyFacts, Finding, Match, Matcher, Part, ScanBody, Scanning, Unscanned, Verdict,
    budget::Share,
    content::{self, Decoder},
    report::Subject,
    scanner::{Act, Shared},
    sink::Sink,
};

/// A body whose pieces are collected until they are worth a look.
pub(super) struct OneBody {
    /// `None`: it is stopped, or nobody can look at it any more.
    look: Option<Box<Look>>,
    waiting: Vec<Bytes>,
    bytes: usize,
}

/// What was seen of a body.
pub(super) struct Look {
    shared: Arc<Shared>,
    subject: Subject,
    memory: Share,
    /// The body as it comes.
    plain: Sink,
    encoded: Option<Encoded>,
    /// What of it was told.
    told: Vec<Match>,
    told_unscanned: bool,
    /// How much of it has to be there before it is looked at.
    enough: usize,
}

/// The body as its client will read it.
struct Encoded {
    sink: Arc<Mutex<Sink>>,
    /// `None`: it could not go on.
    decoder: Option<Decoder>,
    memory: usize,
}

impl OneBody {
    pub(super) fn new(look: Look) -> Self {
        Self { look: Some(Box::new(look)), waiting: Vec::new(), bytes: 0 }
    }
}

impl ScanBody for OneBody {
    fn next(mut self: Box<Self>, part: Part) -> Scanning {
        Box::pin(async move {
            let Some(look) = &mut self.look else {
                return (failed("it was stopped before"), self as Box<dyn ScanBody>);
            };
            let end = matches!(part, Part::End);
            if let Part::Data(bytes) = part {
                self.bytes += bytes.len();
                self.waiting.push(bytes);
                if !look.worth_it(self.bytes) {
                    return (Verdict::Hold, self as Box<dyn ScanBody>);
                }
            }
            let Some(mut look) = self.look.take() else { return (failed("it was stopped before"), self) };
            let pieces = take(&mut self.waiting);
            self.bytes = 0;
            let threads = Arc::clone(&look.shared.threads);
            let Ok(turn) = threads.acquire_owned().await else { return (failed("there are no threads for it"), self) };
            let looked = spawn_blocking(move || {
                let verdict = catch_unwind(AssertUnwindSafe(|| look.look(&pieces, end)));
                let verdict = verdict.unwrap_or_else(|_| look.broke_off());
                drop(turn);
                (verdict, look)
            });
            match looked.await {
                Ok((verdict, look)) => {
                    self.look = matches!(verdict, Verdict::Pass).then_some(look);
                    (verdict, self)
                }
                // The runtime ends.
                Err(error) => (failed(&error.to_string()), self),
            }
        })
    }
}

fn failed(why: &str) -> Verdict {
    Verdict::Block { reason: Unscanned::Failed(why.into()).to_string() }
}

impl Look {
    pub(super) fn new(matcher: Arc<dyn Matcher>, facts: &BodyFacts<'_>, shared: Arc<Shared>) -> Self {
        let how = shared.options.how();
        let encoded = facts.content_encoding.and_then(|encoding| {
            let sink = Arc::new(Mutex::new(Sink::new(Arc::clone(&matcher), how, shared.options.decoded)));
            let decoder = Some(content::decoder(encoding, Arc::clone(&sink))?);
            Some(Encoded { sink, decoder, memory: content::memory(encoding) })
        });
        Self {
            subject: Subject::of(facts),
            memory: shared.memory.share(),
            plain: Sink::new(matcher, how, u64::MAX),
            encoded,
            told: Vec::new(),
            told_unscanned: false,
            enough: shared.options.hold,
            shared,
        }
    }

    /// Whether so many bytes are to be looked at now, or more are waited for.
    fn worth_it(&mut self, bytes: usize) -> bool {
        let kept = self.kept();
        bytes >= self.enough || !self.memory.resize(kept + bytes)
    }

    /// Looks at the next pieces.
    fn look(&mut self, pieces: &[Bytes], end: bool) -> Verdict {
        for piece in pieces {
            // A sink that wants no more has its reasons in its findings.
            let _ = self.plain.write_all(piece);
            if let Some(encoded) = &mut self.encoded {
                encoded.write(piece);
            }
        }
        self.plain.look(end);
        if let Some(encoded) = &mut self.encoded {
            encoded.look(end);
        }
        if !end {
            self.keep_little();
        }
        self.verdict()
    }

    /// A library has a mistake. Of what was not looked at nothing is known.
    fn broke_off(&mut self) -> Verdict {
        self.plain.give_up(Unscanned::Failed("it broke off".into()));
        if let Some(encoded) = &mut self.encoded {
            encoded.decoder = None;
        }
        self.verdict()
    }

    /// What was looked at goes on, and little of it is kept.
    fn keep_little(&mut self) {
        let kept = self.kept();
        if !self.memory.resize(kept) {
            self.keep_less();
        }
        self.enough = self.plain.room();
    }

    fn keep_less(&mut self) {
        self.plain.shed();
        if let Some(encoded) = &mut self.encoded {
            encoded.lock().shed();
        }
        let kept = self.kept();
        if !self.memory.resize(kept)
            && let Some(encoded) = &mut self.encoded
        {
            encoded.give_up();
            let kept = self.kept();
            // What is left is shorter than what was waiting before.
            self.memory.resize(kept);
        }
    }

    fn kept(&self) -> usize {
        self.plain.kept() + self.encoded.as_ref().map_or(0, Encoded::kept)
    }

    fn verdict(&mut self) -> Verdict {
        let mut findings = self.plain.take();
        if let Some(encoded) = &self.encoded {
            let inside = encoded.lock().take();
            findings.matches.extend(inside.matches);
            findings.unscanned = findings.unscanned.or(inside.unscanned);
        }
        let options = &self.shared.options;
        let mut reason = None;
        for found in findings.matches {
            if !self.told.contains(&found) {
                self.told.push(found.clone());
                self.tell(Finding::Match(found), options.on_match, &mut reason);
            }
        }
        if let Some(unscanned) = findings.unscanned
            && !replace(&mut self.told_unscanned, true)
        {
            let act = if options.on_match == Act::Log { Act::Log } else { options.on_unscanned };
            self.tell(Finding::Unscanned(unscanned), act, &mut reason);
        }
        reason.map_or(Verdict::Pass, |reason| Verdict::Block { reason })
    }

    fn tell(&self, finding: Finding, act: Act, reason: &mut Option<String>) {
        let blocked = act == Act::Block;
        if blocked {
            reason.get_or_insert_with(|| finding.to_string());
        }
        (self.shared.tell)(self.subject.report(finding, blocked));
    }
}

impl Encoded {
    fn write(&mut self, piece: &[u8]) {
        // What cannot be decoded ends here; it is looked at as it comes.
        self.decoder.take_if(|decoder| decoder.write_all(piece).is_err());
    }

    fn look(&mut self, end: bool) {
        self.decoder.take_if(|decoder| decoder.flush().is_err());
        self.lock().look(end);
    }

    fn give_up(&mut self) {
        if self.decoder.take().is_some() {
            self.lock().give_up(Unscanned::Memory);
        }
    }

    fn kept(&self) -> usize {
        self.lock().kept() + self.decoder.as_ref().map_or(0, |_| self.memory)
    }

    fn lock(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
