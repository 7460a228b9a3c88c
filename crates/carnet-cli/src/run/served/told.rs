//! The thread of a session: it writes what the daemon tells of flows, and registers again where the daemon was restarted.

use std::collections::{HashMap, HashSet};
use std::io::PipeWriter;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use carnet_control::{
    ClientError, Event, EventKind, Flow, FlowLine, ProblemKind, ProviderState, Session, SessionLine, SessionRequest,
};
use carnet_engine::cgroup::Hierarchy;
use tokio::time::timeout;

use super::{Served, names, register, tell_ending};
use crate::control::flows::told;
use crate::control::{Unanswered, lost};
use crate::inspect::Message;
use crate::run::flows::Name;
use crate::run::log::{DRAINING, Lines, POLL, Request, SETTLING};
use crate::run::output::Summary;
use crate::run::reports::Reports;

/// What the thread has.
pub struct Told {
    served: Served,
    hierarchy: Hierarchy,
    request: SessionRequest,
    /// Of its providers.
    own: HashSet<String>,
    bond: Bond,
    /// The command goes on without services.
    open: bool,
    reports: Vec<Reports>,
    /// What services have read, of flows that have not ended.
    names: HashMap<u128, Name>,
    lines: Lines,
    summary: Summary,
    requested: Receiver<Request>,
    ending: Option<PipeWriter>,
    end_by: Option<Instant>,
    quiet_since: Instant,
}

/// With the daemon.
enum Bond {
    Session(Box<Session>),
    /// The kernel goes on redirecting; the daemon may come back.
    Lost {
        since: Instant,
        why: String,
    },
    Over,
}

impl Told {
    #[expect(clippy::too_many_arguments, reason = "each is handed over to the thread")]
    pub fn new(
        served: Served,
        hierarchy: Hierarchy,
        request: SessionRequest,
        session: Session,
        open: bool,
        reports: Vec<Reports>,
        lines: Lines,
        requested: Receiver<Request>,
        ending: PipeWriter,
    ) -> Self {
        Self {
            own: names(&request),
            served,
            hierarchy,
            request,
            bond: Bond::Session(Box::new(session)),
            open,
            reports,
            names: HashMap::new(),
            lines,
            summary: Summary::default(),
            requested,
            ending: Some(ending),
            end_by: None,
            quiet_since: Instant::now(),
        }
    }

    /// Until the end is asked for. Dropped at the end, the session is over.
    pub fn write(mut self) -> Result<(Lines, Summary)> {
        loop {
            let next = self.next();
            // Names after the flows, but before those are written: a name is reported before its bytes go on.
            self.read_reports();
            match next {
                Some(line) => {
                    self.quiet_since = Instant::now();
                    self.line(line);
                }
                None if self.is_over() => break,
                None => {}
            }
            self.take_requests();
        }
        self.count_lost();
        Ok((self.lines, self.summary))
    }

    /// The next line, where one comes in a moment.
    fn next(&mut self) -> Option<SessionLine> {
        let session = match &mut self.bond {
            Bond::Session(session) => session,
            Bond::Lost { .. } => {
                thread::sleep(POLL);
                self.come_back();
                return None;
            }
            Bond::Over => {
                thread::sleep(POLL);
                return None;
            }
        };
        let why = match self.served.asking.wait(async { timeout(POLL, session.next()).await }) {
            Err(_) => return None,
            Ok(Ok(Some(SessionLine::Closing { reason }))) => reason,
            Ok(Ok(Some(line))) => return Some(line),
            Ok(Ok(None)) => "the daemon has ended it".into(),
            Ok(Err(error)) => crate::one_line(&Unanswered::Client(error).into_error()),
        };
        self.bond = Bond::Lost { since: Instant::now(), why };
        None
    }

    fn come_back(&mut self) {
        let Bond::Lost { since, why } = &self.bond else { return };
        // At the end of the run nothing is to be registered again.
        if self.end_by.is_some() {
            self.bond = Bond::Over;
            return;
        }
        let (since, why) = (*since, why.clone());
        if !self.open && self.served.is_gone(&self.hierarchy) {
            return self.give_up(&format!("{why}. Its programs are not in the kernel any more"));
        }
        let again = self.served.asking.ask_for(PATIENCE, async |client| register(client, &self.request).await);
        match again {
            Ok((_, status)) if status.instance != self.served.status.instance && !self.open => {
                self.give_up(&format!("{why}. Another engine governs this host now"));
            }
            Ok((session, status)) => {
                self.lines.warning(&format!(
                    "registered again with the daemon, process {}, after {:.1} s without one; connections went through the \
                     services, and the lines of those that have ended meanwhile are missing",
                    status.pid,
                    since.elapsed().as_secs_f64()
                ));
                self.count_lost();
                self.served.status = status;
                self.bond = Bond::Session(Box::new(session));
            }
            Err(unanswered) if may_change(&unanswered) && (self.open || since.elapsed() < GRACE) => {}
            Err(unanswered) if may_change(&unanswered) => {
                self.give_up(&format!("{why}, and no daemon has come back in {} s", GRACE.as_secs()));
            }
            Err(unanswered) => self.give_up(&format!("{why}: {}", crate::one_line(&unanswered.into_error()))),
        }
    }

    fn give_up(&mut self, why: &str) {
        self.bond = Bond::Over;
        let Some(writer) = self.ending.take() else { return };
        if self.open {
            self.lines
                .warning(&format!("the session with the daemon is over, connections go past the services: {why}"));
            // It stays as it is: open, and silent.
            self.ending = Some(writer);
        } else {
            tell_ending(writer, self.served.asking.socket(), why);
        }
    }

    fn line(&mut self, line: SessionLine) {
        match line {
            SessionLine::Flow(flow) => self.flow(&flow),
            SessionLine::Socket(socket) => {
                let socket = told::socket(&socket, self.lines.clock());
                self.lines.socket(&socket);
            }
            SessionLine::Warning { message } => self.lines.warning(&message),
            SessionLine::Lost { lost: count } => {
                self.summary.events_lost += count;
                self.lines.warning(&lost(count));
            }
            SessionLine::Event(event) if should_be_known(&event) => self.lines.warning(&event.message),
            _ => {}
        }
    }

    fn flow(&mut self, flow: &Flow) {
        let Some(mut flow) = told::flow(flow, self.lines.clock()) else {
            return self.lines.warning(&format!("there is a flow that this version cannot show: {}", flow.flow));
        };
        if let Some(name) = self.names.remove(&flow.id) {
            flow.name.get_or_insert(name);
        }
        self.summary.add(&flow);
        self.lines.flow(&flow);
    }

    /// A service that ran before may have connections without end.
    fn is_over(&mut self) -> bool {
        let Some(end) = self.end_by else { return false };
        if !matches!(self.bond, Bond::Session(_)) {
            return true;
        }
        let now = Instant::now();
        if now <= end + DRAINING && now - self.quiet_since < QUIET {
            return false;
        }
        let open = self.open_flows();
        if !open.is_empty() && now <= end {
            return false;
        }
        for flow in open {
            self.flow(&flow);
        }
        true
    }

    /// Those that its providers have.
    fn open_flows(&self) -> Vec<Flow> {
        let asked = self.served.asking.ask_for(PATIENCE, async |client| {
            let mut lines = client.flows(false).await?;
            let mut flows = Vec::new();
            while let Some(line) = lines.next().await? {
                match line {
                    FlowLine::Flow(flow) if flow.chain.iter().any(|link| self.own.contains(&link.service)) => {
                        flows.push(*flow);
                    }
                    _ => {}
                }
            }
            Ok(flows)
        });
        asked.unwrap_or_default()
    }

    /// The daemon counts for all that it governs.
    fn count_lost(&mut self) {
        if let Ok(status) = self.served.asking.ask_for(PATIENCE, async |client| client.status().await)
            && status.instance == self.served.status.instance
        {
            self.summary.events_lost += status.lost.saturating_sub(self.served.status.lost);
            self.served.status = status;
        }
    }

    fn read_reports(&mut self) {
        for reports in &mut self.reports {
            reports.read(&mut |message| match message {
                Message::Name { flow, name, from } => {
                    if let Ok(id) = u128::from_str_radix(&flow, 16) {
                        // A name of a flow whose end was not told stays here, so this must not grow.
                        if self.names.len() >= MOST_NAMES {
                            self.names.clear();
                        }
                        self.names.entry(id).or_insert(Name { text: name, from });
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
                Request::Finish => {
                    self.end_by = Some(Instant::now() + SETTLING);
                    self.quiet_since = Instant::now();
                }
            }
        }
    }
}

/// Of services that were started, the run sees itself when they die.
fn should_be_known(event: &Event) -> bool {
    match event.event {
        EventKind::Stranger | EventKind::EventsLost | EventKind::Warning => true,
        _ => event.state == Some(ProviderState::Stopped),
    }
}

/// Whether it is another answer that the next daemon gives, or this one a little later.
fn may_change(unanswered: &Unanswered) -> bool {
    match unanswered {
        Unanswered::Stopped { .. } => true,
        Unanswered::Client(ClientError::Refused(problem)) => problem.kind == ProblemKind::Unavailable,
        Unanswered::Client(_) => true,
    }
}

/// So long a daemon may take to come back: the next one keeps registrations for as long.
const GRACE: Duration = Duration::from_secs(10);
/// For answers while flows are to be written.
const PATIENCE: Duration = Duration::from_secs(2);
/// The daemon reads events on another thread: it has told all where it has been silent for so long.
const QUIET: Duration = Duration::from_millis(200);
/// More than flows are open.
const MOST_NAMES: usize = 16 * 1024;
