use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;

use crate::{
    Found, Limit,
    open::OpenReport,
    rules::{Action, Rate},
    scan::ScanReport,
};

/// What the service has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report {
    /// A client's first bytes were understood. At most once a flow.
    Name {
        /// [`carnet::Flow::id`].
        flow_id: u128,
        /// Redirects the flow has had, the one to this service included.
        depth: usize,
        /// The name, and what came with it.
        found: Found,
    },
    /// What became of a flow, where rules apply. Once a flow: when its client has said what it wants, or at its end.
    Flow(Box<FlowReport>),
    /// What happens where a flow is to be opened; any number of times.
    Open(Box<OpenReport>),
    /// Something was found in a body, where bodies are scanned; any number of times.
    Scan(Box<ScanReport>),
    /// A connection came without a usable record, so it has no destination. It was reset.
    Unredirected {
        /// Who connected.
        peer: SocketAddr,
        /// [`NotRedirected`](carnet::ErrorKind::NotRedirected), [`ContextLost`](carnet::ErrorKind::ContextLost),
        /// [`NoEngine`](carnet::ErrorKind::NoEngine).
        error: carnet::Error,
    },
    /// There is no connection to the destination. The client's was reset.
    Refused {
        /// [`carnet::Flow::id`].
        flow_id: u128,
        /// Redirects the flow has had, the one to this service included.
        depth: usize,
        /// Where it was going.
        destination: SocketAddr,
        /// The cause; a [`carnet::Error`] inside where the record could not be set.
        error: io::Error,
    },
    /// As many flows are open as may be ([`Options::max_flows`](crate::Options::max_flows)): new ones wait until others
    /// end. Said once.
    Full {
        /// Flows that are open.
        flows: usize,
    },
    /// A user is over a limit of their own ([`Limits`](crate::Limits)): such connections are reset. Said again after ten
    /// seconds at the earliest, where there are more.
    OverLimit {
        /// Which one.
        limit: Limit,
        /// The user; `None` where that is not known.
        uid: Option<u32>,
        /// Connections that were reset since it was said last, the one that is over the limit now included.
        connections: u64,
    },
    /// New flows come faster than they may ([`Limits::rate`](crate::Limits::rate)): they wait. Said once.
    RateReached {
        /// As many as may.
        rate: Rate,
    },
    /// `accept()` failed, for want of files or memory most likely: new flows wait, and it is tried again. Said once.
    AcceptFailed {
        /// Flows that are open.
        flows: usize,
        /// The cause.
        error: io::Error,
    },
}

/// A flow, and what rules said of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FlowReport {
    /// [`carnet::Flow::id`].
    pub flow_id: u128,
    /// Redirects the flow has had, the one to this service included.
    pub depth: usize,
    /// Where it is going.
    pub destination: SocketAddr,
    /// Whose it is.
    pub origin: Option<carnet::Origin>,
    /// What the client said first, where that was understood.
    pub found: Option<Found>,
    /// Whether it passed.
    pub action: Action,
    /// It was blocked because there were too many for the rule's rate.
    pub too_many: bool,
    /// The rule that decided, such as `rule "ads" (line 7)`; `None`: the default.
    pub rule: Option<String>,
    /// The rule's reason.
    pub reason: Option<String>,
    /// The rule wants it logged.
    pub log: bool,
}

/// Takes reports. Called in the middle of a relay: it must not block.
pub trait Reporter: Send + Sync + 'static {
    /// Takes one.
    fn report(&self, report: Report);
}

/// A [`Reporter`] with a queue behind it; what the queue has no room for is lost and counted ([`Sender::lost`]).
pub fn channel(capacity: usize) -> (Sender, mpsc::Receiver<Report>) {
    let (queue, reports) = mpsc::channel(capacity.max(1));
    (Sender { queue, lost: Arc::default() }, reports)
}

/// The service's end of a [`channel`].
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<Report>,
    lost: Arc<AtomicU64>,
}

impl Sender {
    /// Reports which nobody will see: the queue was full, or its receiver gone.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Reporter for Sender {
    fn report(&self, report: Report) {
        if self.queue.try_send(report).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_counted() {
        let (sender, mut reports) = channel(2);
        for flows in 0..5 {
            sender.report(Report::Full { flows });
        }
        assert_eq!(sender.lost(), 3);
        assert!(matches!(reports.try_recv(), Ok(Report::Full { flows: 0 })));
        assert!(matches!(reports.try_recv(), Ok(Report::Full { flows: 1 })));
        drop(reports);
        sender.report(Report::Full { flows: 5 });
        assert_eq!(sender.lost(), 4);
    }
}
