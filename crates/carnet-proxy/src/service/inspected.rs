//! A flow to which rules apply, from its first bytes to its end.

use std::{io, sync::Arc, time::Duration};

use tokio::net::TcpStream;

use super::{
    Desk,
    flow::dial,
    opened::{Verdict, no_opener, open, subject},
    opening::{Opening, Waited},
    refusal::refuse,
    route::{Route, Routes},
    through::through,
    whose::Whose,
};
use crate::{
    End, FlowReport, Found, Inspection, Name, NameReader, Report, Reporter,
    inspection::Held,
    open::OpenFlow,
    relay::{broken, relay_after},
    rules::{Action, Decision, Facts, Outcome},
    tap::TapFlow,
    upstream::Target,
};

/// A flow that passes, connected on both sides.
pub(super) enum Inspected {
    /// As it is.
    Untouched(Untouched),
    /// And what is in it is read.
    Open {
        flow: OpenFlow,
        /// What the client has sent, and nobody has got.
        early: Vec<u8>,
    },
}

/// A flow of which every byte passes as it came.
pub(super) struct Untouched {
    server: TcpStream,
    /// What the client has sent, and the server has not got.
    early: Vec<u8>,
    reader: NameReader,
    /// Until it is said.
    report: Option<Box<FlowReport>>,
    tap: Option<Box<TapFlow>>,
}

/// What the rules say of a flow is done. `None`: it is over, and its client is to be reset, or has had its answer.
pub(super) async fn inspect<T: Routes, R: Reporter>(
    client: &mut TcpStream,
    route: Route,
    inspection: &Inspection,
    desk: &Desk<T, R>,
) -> Option<Inspected> {
    let held = inspection.held();
    // Who pins is remembered by program.
    let asks_for_exe = inspection.taps() || held.rules.open();
    let whose = Arc::new(Whose::of(desk.routes.flow(client), &held.rules, asks_for_exe));
    let mut opening = Opening::default();
    let mut server = None;

    let early = held.rules.decide_without_name(route.destination, &whose.facts());
    // What is to be opened is looked at first, whatever decides.
    if early.is_none_or(|decision| decision.outcome.action == Action::Open) {
        match wait(&mut opening, client, &mut server, &route, &held, desk).await {
            Ok(Waited::Gone) => return None,
            Ok(Waited::Read | Waited::Nothing) => {}
            Err(error) => return refused(desk, &route, error),
        }
    }
    let decision = early.unwrap_or_else(|| held.rules.decide(&facts(opening.found.as_ref(), &route, &whose)));
    let admitted = decision.admits(held.now());
    let mut report = Some(report(&route, &whose, &decision, admitted));

    let Opening { bytes, reader, found } = opening;
    if !admitted || decision.outcome.action == Action::Block {
        say(&desk.reporter, &mut report, found.as_ref());
        refuse(client, found.map(|found| found.protocol), &decision.outcome.refusal).await;
        return None;
    }
    if reader.is_done() {
        say(&desk.reporter, &mut report, found.as_ref());
    }
    let name = found.as_ref().and_then(|found| found.name.as_ref()).map(Name::as_str);
    let target = Target {
        address: route.destination,
        name,
        alpn: found.as_ref().map_or(&[], |found| &found.alpn),
        flow: whose.flow.as_ref(),
        executable: whose.exe.as_deref(),
    };
    let mut server = match connect(server, &target, decision.outcome, client, desk).await {
        Some(Ok(server)) => server,
        Some(Err(error)) => return refused(desk, &route, error),
        None => return None,
    };
    let tap = |client: &TcpStream, name| {
        inspection.tap_for(&held, decision.outcome).map(|tap| Box::new(whose.tapped(tap, client, &route, name)))
    };
    if decision.outcome.action == Action::Open {
        let Some(opener) = inspection.opener() else { return refused(desk, &route, no_opener()) };
        let subject = subject(opener, &held, route, &whose, found.clone(), decision.outcome.unread);
        let verdict = tokio::select! {
            biased;
            verdict = open(subject, server, desk) => verdict,
            _ = broken(client) => return None,
        };
        server = match verdict {
            Verdict::Open(flow) => {
                let tap = tap(client, name);
                return Some(Inspected::Open { flow: OpenFlow { tap, ..flow }, early: bytes });
            }
            Verdict::Pass(Some(server)) => server,
            Verdict::Pass(None) => match connect(None, &target, decision.outcome, client, desk).await {
                Some(Ok(server)) => server,
                Some(Err(error)) => return refused(desk, &route, error),
                None => return None,
            },
            Verdict::Refuse => {
                say(&desk.reporter, &mut report, found.as_ref());
                refuse(client, found.map(|found| found.protocol), &decision.outcome.refusal).await;
                return None;
            }
        };
    }
    let tap = tap(client, name);
    Some(Inspected::Untouched(Untouched { server, early: bytes, reader, report, tap }))
}

/// A connection to the server, the one that is there or a new one. `None`: the client has gone meanwhile.
async fn connect<T: Routes, R: Reporter>(
    server: Option<TcpStream>,
    target: &Target<'_>,
    outcome: &Outcome,
    client: &TcpStream,
    desk: &Desk<T, R>,
) -> Option<io::Result<TcpStream>> {
    let dialling = async {
        match (server, &outcome.upstream) {
            (Some(server), _) => Ok(server),
            (None, Some(upstream)) => through(upstream, target, client, desk).await,
            (None, None) => dial(client, target.address, &desk.routes, &desk.options).await,
        }
    };
    tokio::select! {
        biased;
        result = dialling => Some(result),
        _ = broken(client) => None,
    }
}

impl Inspected {
    /// Serves until both sides have ended.
    pub(super) async fn relay(self, client: TcpStream, reporter: &impl Reporter) {
        match self {
            Self::Untouched(untouched) => untouched.relay(client, reporter).await,
            // Boxed: flows that are not opened are not to have room for it.
            Self::Open { flow, early } => Box::pin(flow.run(client, early, reporter)).await,
        }
    }
}

impl Untouched {
    /// Passes bytes until both sides have ended.
    async fn relay(self, client: TcpStream, reporter: &impl Reporter) {
        let Self { server, early, mut reader, mut report, tap } = self;
        let tap = tap.as_deref();
        if let Some(tap) = tap {
            tap.client_sent(&early);
        }
        let from_client = |bytes: &[u8]| {
            let found = reader.read(bytes);
            if let (Some(tap), Some(name)) = (tap, found.as_ref().and_then(|found| found.name.as_ref())) {
                tap.name(name.as_str());
            }
            if reader.is_done() || bytes.is_empty() {
                say(reporter, &mut report, found.as_ref());
            }
            match tap {
                Some(tap) if bytes.is_empty() => tap.client_closed(),
                Some(tap) => tap.client_sent(bytes),
                None => {}
            }
        };
        let from_server = |bytes: &[u8]| match tap {
            Some(tap) if bytes.is_empty() => tap.server_closed(),
            Some(tap) => tap.server_sent(bytes),
            None => {}
        };
        let relayed = relay_after(early, client, server, from_client, from_server).await;
        if let (Some(tap), End::Reset { by, .. }) = (tap, relayed.end) {
            tap.reset(by);
        }
        say(reporter, &mut report, None);
    }
}

/// Waits for what the client says first, and meanwhile connects: a server that speaks first is not to wait. Where a rule
/// may send the flow another way, the server is not dialled before that is known.
async fn wait<T: Routes, R: Reporter>(
    opening: &mut Opening,
    client: &TcpStream,
    server: &mut Option<TcpStream>,
    route: &Route,
    held: &Held,
    desk: &Desk<T, R>,
) -> io::Result<Waited> {
    if !held.rules.upstreams().is_empty() {
        return opening.wait(client, Some(PATIENCE), std::future::pending()).await;
    }
    let spoke = async {
        let server = server.insert(dial(client, route.destination, &desk.routes, &desk.options).await?);
        server.readable().await
    };
    opening.wait(client, None, spoke).await
}

pub(super) fn facts<'f>(found: Option<&'f Found>, route: &Route, whose: &'f Whose) -> Facts<'f> {
    Facts {
        name: found.and_then(|found| found.name.as_ref()).map(|name| name.as_str()),
        protocol: found.map(|found| found.protocol),
        alpn: found.map_or(&[], |found| &found.alpn),
        ja4: found.and_then(|found| found.ja4.as_deref()),
        ech: found.is_some_and(|found| found.ech),
        destination: route.destination,
        origin: whose.facts(),
    }
}

fn report(route: &Route, whose: &Whose, decision: &Decision, admitted: bool) -> Box<FlowReport> {
    Box::new(FlowReport {
        flow_id: route.flow_id,
        depth: route.depth,
        destination: route.destination,
        origin: whose.origin().cloned(),
        found: None,
        action: if admitted { decision.outcome.action } else { Action::Block },
        too_many: !admitted,
        rule: decision.rule.map(|_| decision.to_string()),
        reason: decision.outcome.refusal.reason.clone(),
        log: decision.outcome.log,
    })
}

/// Once a flow.
fn say(reporter: &impl Reporter, report: &mut Option<Box<FlowReport>>, found: Option<&Found>) {
    if let Some(mut report) = report.take() {
        report.found = found.cloned();
        reporter.report(Report::Flow(report));
    }
}

fn refused<T, R: Reporter>(desk: &Desk<T, R>, route: &Route, error: io::Error) -> Option<Inspected> {
    let Route { flow_id, depth, destination, .. } = *route;
    desk.reporter.report(Report::Refused { flow_id, depth, destination, error });
    None
}

/// How long a client may take to say something before a rule that may send it another way goes without.
const PATIENCE: Duration = Duration::from_secs(1);
