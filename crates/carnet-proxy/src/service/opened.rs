//! From a rule that says `open` to a flow that is opened, or one that cannot be.

use std::{io, sync::Arc};

use tokio::net::TcpStream;

use super::{Desk, route::Route, whose::Whose};
use crate::{
    Found, Name, Reporter,
    inspection::Held,
    open::{Begun, Dialled, Event, OpenFlow, Opener, Subject, Why},
    rules::{Action, Facts, Unread},
};

/// What is to be done with a flow.
pub(super) enum Verdict {
    /// It is opened.
    Open(OpenFlow),
    /// It passes as it is, through this connection; `None`: through a new one, since that one was used up.
    Pass(Option<TcpStream>),
    /// It is refused.
    Refuse,
}

/// Asks the server, where that is of use.
pub(super) async fn open<T, R: Reporter>(subject: Arc<Subject>, server: TcpStream, desk: &Desk<T, R>) -> Verdict {
    let is_clear = subject.protocol != Some(crate::rules::Protocol::Tls);
    let (why, server) = match subject.why_not() {
        Some(why) => (why, Some(server)),
        None if is_clear => return Verdict::Open(OpenFlow { subject, begun: Begun::Clear(server), tap: None }),
        None => match subject.dial(server).await {
            Dialled::Verified(stream) => {
                return Verdict::Open(OpenFlow { subject, begun: Begun::Tls(stream), tap: None });
            }
            Dialled::Untrusted(error) => {
                return Verdict::Open(OpenFlow { subject, begun: Begun::Untrusted(error.to_string()), tap: None });
            }
            Dialled::AsksForCertificate => (Why::ClientCertificate, None),
        },
    };
    let passed = subject.unread == Unread::Pass;
    desk.reporter.report(subject.report(Event::Unread { why, passed }));
    if passed { Verdict::Pass(server) } else { Verdict::Refuse }
}

/// A flow, as far as opening it needs to know.
pub(super) fn subject(
    opener: &Arc<Opener>,
    held: &Arc<Held>,
    route: Route,
    whose: &Arc<Whose>,
    found: Option<Found>,
    unread: Unread,
) -> Arc<Subject> {
    let origin = whose.origin();
    let chain = whose.flow.as_ref().map_or(&[][..], carnet::Flow::chain);
    let name = found.as_ref().and_then(|found| found.name.as_ref()).map(Name::as_str);
    Arc::new(Subject {
        opener: Arc::clone(opener),
        flow_id: route.flow_id,
        destination: route.destination,
        protocol: found.as_ref().map(|found| found.protocol),
        name: name.map(str::to_owned),
        alpn: found.as_ref().map_or_else(Vec::new, |found| found.alpn.clone()),
        uid: origin.map(|origin| origin.uid),
        pid: origin.map(|origin| origin.pid),
        comm: origin.map(|origin| origin.comm.clone()),
        exe: whose.exe.clone(),
        chain: chain.iter().map(|hop| format!("#{}", hop.handle)).collect(),
        unread,
        judge: {
            let (held, whose) = (Arc::clone(held), Arc::clone(whose));
            Box::new(move |host| {
                let facts = Facts { name: Some(host), ..super::inspected::facts(found.as_ref(), &route, &whose) };
                let outcome = held.rules.decide(&facts).outcome;
                (outcome.action == Action::Block).then(|| outcome.refusal.clone())
            })
        },
    })
}

/// Why a flow is refused that a rule says is to be opened.
pub(super) fn no_opener() -> io::Error {
    io::Error::other("a rule says that it is to be opened, and there is no authority to do so")
}

#[cfg(test)]
mod tests;
