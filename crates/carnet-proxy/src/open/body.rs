//! Bodies on their way: nothing goes on before a scan has said so, and what goes on is written down.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep, timeout};

use crate::{
    har::Recording,
    scan::{Part, ScanBody, Scanning, Verdict},
};

/// A body. It holds no more than its scan has not decided on: without one, a piece goes on before the next is read.
pub(super) struct Body {
    source: Option<Incoming>,
    /// What may go on.
    released: VecDeque<Frame<Bytes>>,
    /// What may not yet.
    held: VecDeque<Frame<Bytes>>,
    held_bytes: usize,
    /// Until it is said that nothing comes for a while.
    quiet: Option<Pin<Box<Sleep>>>,
    scan: State,
    stopped: Stopped,
    recording: Option<Recording>,
    told: Option<Told>,
}

type Told = Box<dyn FnOnce(&str) + Send>;

/// Why a body was stopped, once it is; also for those who do not have the body any more.
pub(super) type Stopped = Arc<OnceLock<String>>;

enum State {
    /// There is none, or it has ended.
    None,
    Waits(Box<dyn ScanBody>),
    Looks {
        scanning: Scanning,
        at_end: bool,
    },
}

/// A body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("stopped: {0}")]
    Stopped(String),
    #[error(transparent)]
    Source(#[from] hyper::Error),
}

impl Body {
    pub(super) fn new(source: Incoming, scan: Option<Box<dyn ScanBody>>, recording: Option<Recording>) -> Self {
        let scan = scan.map_or(State::None, State::Waits);
        Self { source: Some(source), scan, recording, ..Self::empty() }
    }

    /// Of the service's own.
    pub(super) fn of(text: String) -> Self {
        Self { released: [Frame::data(text.into())].into(), ..Self::empty() }
    }

    pub(super) fn empty() -> Self {
        Self {
            source: None,
            released: VecDeque::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            quiet: None,
            scan: State::None,
            stopped: Stopped::default(),
            recording: None,
            told: None,
        }
    }

    /// The same, and somebody is told when a scan stops it.
    pub(super) fn when_stopped(self, told: impl FnOnce(&str) + Send + 'static) -> Self {
        Self { told: Some(Box::new(told)), ..self }
    }

    pub(super) fn stopped(&self) -> Stopped {
        Arc::clone(&self.stopped)
    }

    /// Waits until the first piece may go on, where somebody decides on that: until then another answer can be given.
    /// Where no piece comes for a while, whoever waits for it is to know that there is a body.
    pub(super) async fn settle(&mut self) -> Result<(), Broken> {
        if matches!(self.scan, State::None) {
            return Ok(());
        }
        loop {
            let settled = timeout(A_WHILE, std::future::poll_fn(|cx| self.poll_advance(cx))).await;
            match settled {
                Ok(settled) => return settled,
                Err(_) if self.held.is_empty() => return Ok(()),
                Err(_) => {}
            }
        }
    }

    /// Ready when there is something that may go on, or nothing more.
    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if let Some(reason) = self.stopped.get() {
                return Poll::Ready(Err(Broken::Stopped(reason.clone())));
            }
            if !self.released.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let State::Looks { scanning, at_end } = &mut self.scan {
                let (verdict, scan) = ready!(scanning.as_mut().poll(cx));
                let at_end = *at_end;
                self.scan = if at_end { State::None } else { State::Waits(scan) };
                self.heed(verdict, at_end);
                continue;
            }
            let Some(source) = &mut self.source else { return Poll::Ready(Ok(())) };
            let Poll::Ready(frame) = Pin::new(source).poll_frame(cx) else {
                ready!(self.poll_quiet(cx));
                self.ask(Part::Quiet);
                continue;
            };
            self.quiet = None;
            let part = match frame.transpose()? {
                Some(frame) => match frame.data_ref() {
                    Some(data) if matches!(self.scan, State::Waits(_)) => {
                        let part = Part::Data(data.clone());
                        self.held_bytes += data.len();
                        self.held.push_back(frame);
                        part
                    }
                    // Trailers come behind all data: they wait as long as that does.
                    None if matches!(self.scan, State::Waits(_)) => {
                        self.held.push_back(frame);
                        continue;
                    }
                    _ => {
                        self.released.push_back(frame);
                        continue;
                    }
                },
                None => {
                    self.source = None;
                    Part::End
                }
            };
            self.ask(part);
        }
    }

    fn ask(&mut self, part: Part) {
        if let State::Waits(scan) = std::mem::replace(&mut self.scan, State::None) {
            let at_end = matches!(part, Part::End);
            self.scan = State::Looks { scanning: scan.next(part), at_end };
        }
    }

    /// Ready when something waits for its scan, and nothing has come for a while.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held_bytes == 0 {
            return Poll::Pending;
        }
        ready!(self.quiet.get_or_insert_with(|| Box::pin(sleep(A_WHILE))).as_mut().poll(cx));
        self.quiet = None;
        Poll::Ready(())
    }

    fn heed(&mut self, verdict: Verdict, at_end: bool) {
        match verdict {
            Verdict::Hold if !at_end && self.held_bytes > MOST_HELD => {
                self.stop("it is too long to be looked at".into())
            }
            Verdict::Hold if !at_end => {}
            Verdict::Hold | Verdict::Pass => {
                self.held_bytes = 0;
                self.released.append(&mut self.held);
            }
            Verdict::Block { reason } => self.stop(reason),
        }
    }

    fn stop(&mut self, reason: String) {
        self.held.clear();
        (self.source, self.scan) = (None, State::None);
        if let Some(told) = self.told.take() {
            told(&reason);
        }
        let _ = self.stopped.set(reason);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        ready!(self.poll_advance(cx))?;
        let frame = self.released.pop_front();
        if let (Some(recording), Some(data)) = (&self.recording, frame.as_ref().and_then(Frame::data_ref)) {
            recording.data(data);
        }
        // Who knows that this was the last one does not ask again.
        if (frame.is_none() || self.is_end_stream())
            && let Some(recording) = self.recording.take()
        {
            recording.end();
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.released.is_empty()
            && self.held.is_empty()
            && matches!(self.scan, State::None)
            && self.stopped.get().is_none()
            && self.source.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let here =
            self.released.iter().chain(&self.held).filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>() as u64;
        let rest = self.source.as_ref().map_or(SizeHint::with_exact(0), http_body::Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(here));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(here)) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// After this long a silence a scan is told that it may be a long one.
const A_WHILE: Duration = Duration::from_secs(1);

/// Most bytes of a body that wait for a scan.
const MOST_HELD: usize = 64 << 20;
