//! The thread that reads events and names, and writes the flow log.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use carnet_abi::Event;
use carnet_engine::EventReader;

use crate::inspect::Message;
use crate::run::flows::{Joiner, Known, Name, Output};
use crate::run::output::{Log, Summary};
use crate::run::reports::Reports;

/// Where lines go.
pub type Lines = Log<Box<dyn Write + Send>>;

/// The running thread.
pub struct FlowLog {
    thread: JoinHandle<Result<(Lines, Summary)>>,
    requests: Sender<Request>,
}

/// What the thread is asked to do.
pub enum Request {
    /// Write a line that is no flow.
    Warn(String),
    /// Write what is left.
    Finish,
}

impl FlowLog {
    /// Starts it: events are the engine's, reports the built-in services', services all of them by handle.
    pub fn start(
        events: EventReader,
        reports: Vec<Reports>,
        services: HashMap<u32, Known>,
        lines: Lines,
    ) -> Result<Self> {
        let summary = Summary::default();
        let joiner = Joiner::new(services);
        let write = |requested| Writer { events, reports, joiner, lines, summary, requested, end_by: None }.write();
        Self::by(write)
    }

    /// Starts one that gets its requests and writes.
    pub fn by(write: impl FnOnce(Receiver<Request>) -> Result<(Lines, Summary)> + Send + 'static) -> Result<Self> {
        let (requests, requested) = channel();
        let thread = thread::Builder::new().name("flow log".into()).spawn(move || write(requested));
        Ok(Self { thread: thread.context("cannot start a thread")?, requests })
    }

    /// Writes a line that is no flow.
    pub fn warn(&self, text: String) {
        // Where the thread has failed, `finish` says so.
        let _ = self.requests.send(Request::Warn(text));
    }

    /// Has it write what is left, flows that are still open too.
    pub fn finish(self) -> Result<(Lines, Summary)> {
        let _ = self.requests.send(Request::Finish);
        self.thread.join().map_err(|_| anyhow!("the thread of the flow log failed"))?
    }
}

struct Writer {
    events: EventReader,
    reports: Vec<Reports>,
    joiner: Joiner,
    lines: Lines,
    summary: Summary,
    requested: Receiver<Request>,
    /// Set once the end is asked for.
    end_by: Option<Instant>,
}

impl Writer {
    fn write(mut self) -> Result<(Lines, Summary)> {
        let mut waiting = VecDeque::new();
        loop {
            // The kernel's buffer is small, and lines take longer than events: it is emptied between a few lines and
            // the next ones, or thousands of flows that end together would not fit.
            if waiting.len() < MOST_WAITING {
                let patience = if waiting.is_empty() { POLL } else { Duration::ZERO };
                let polled = self.events.poll(patience, &mut |event| waiting.push_back(*event));
                polled.context("the flow log is not complete")?;
            }
            // Names after the events, but before what those say is used: a name is reported before its bytes go on, so
            // the names of flows whose ends are waiting are here by now.
            self.read_reports();
            let over = self.is_over(waiting.is_empty());
            for event in waiting.drain(..waiting.len().min(EVENTS_AT_ONCE)) {
                self.event(&event);
            }
            if over {
                break;
            }
            self.take_requests();
        }
        for flow in self.joiner.finish() {
            self.summary.add(&flow);
            self.lines.flow(&flow);
        }
        Ok((self.lines, self.summary))
    }

    fn event(&mut self, event: &Event) {
        match self.joiner.event(event) {
            Some(Output::Flow(flow)) => {
                self.summary.add(&flow);
                self.lines.flow(&flow);
            }
            Some(Output::Socket(socket)) => self.lines.socket(&socket),
            Some(Output::Warning(text)) => self.lines.warning(&text),
            None => {}
        }
    }

    /// Whether the log has its end. A service that ran before may have connections of its own, and so events without
    /// end.
    fn is_over(&self, idle: bool) -> bool {
        let now = Instant::now();
        self.end_by.is_some_and(|end| idle && (self.joiner.open() == 0 || now > end) || now > end + DRAINING)
    }

    fn read_reports(&mut self) {
        for reports in &mut self.reports {
            reports.read(&mut |message| match message {
                Message::Name { flow, name, from } => {
                    if let Ok(id) = u128::from_str_radix(&flow, 16) {
                        self.joiner.name(id, Name { text: name, from });
                    }
                }
                Message::Warning(text) => self.lines.warning(&text),
                Message::Ready(_) => {}
            });
        }
    }

    fn take_requests(&mut self) {
        while let Ok(request) = self.requested.try_recv() {
            match request {
                Request::Warn(text) => self.lines.warning(&text),
                Request::Finish => self.end_by = Some(Instant::now() + SETTLING),
            }
        }
    }
}

/// The longest a request waits.
pub const POLL: Duration = Duration::from_millis(20);

/// How long connections of a command that has ended may take to close.
pub const SETTLING: Duration = Duration::from_millis(500);

/// How long events that have come by then may take to be written.
pub const DRAINING: Duration = Duration::from_secs(10);

/// Some 40 MB. More stay with the kernel, which counts what it has no room for.
const MOST_WAITING: usize = 65536;
const EVENTS_AT_ONCE: usize = 64;
