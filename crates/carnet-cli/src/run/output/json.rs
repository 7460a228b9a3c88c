//! One object for each flow, one line for each object.

use serde::Serialize;

use super::{Clock, Summary, errno_symbol, reason, sockets};
use crate::run::flows::{Decision, End, Flow, Place, Protocol, UnseenSocket};

/// A flow, over or open.
pub fn flow(flow: &Flow, clock: &Clock) -> String {
    let mut end = EndFields { ended: None, at: None, error: None, reason: None };
    match &flow.end {
        End::Untold => {}
        End::Closed => end.ended = Some("closed"),
        End::Aborted => end.ended = Some("aborted"),
        End::Open => end.ended = Some("open"),
        End::Reset(place, error) => {
            end = EndFields { ended: Some("reset"), at: at(place), error: errno_symbol(*error), reason: None };
        }
        End::Failed(place, error) => {
            end = EndFields { ended: Some("failed"), at: at(place), error: errno_symbol(*error), reason: None };
        }
        End::Refused { reason: why, service, error } => {
            end = EndFields {
                ended: Some("refused"),
                at: service.as_ref().map(|service| At::Service { service }),
                error: errno_symbol(*error),
                reason: Some(reason(*why).0),
            };
        }
    }
    let (decision, left_alone) = match flow.decision {
        Decision::Redirected => ("redirected", None),
        Decision::Direct => ("direct", None),
        Decision::LeftAlone(why) => ("left-alone", Some(reason(why).0)),
        Decision::NotInspected => (NOT_INSPECTED, None),
        Decision::Refused => (REFUSED, None),
    };
    let chain = flow.chain.iter().map(|link| LinkObject { service: &link.service, inferred: link.inferred }).collect();
    line(&Object::Flow(Box::new(FlowObject {
        flow: format!("{:032x}", flow.id),
        protocol: match flow.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        },
        time: clock.timestamp(flow.begun).to_string(),
        pid: flow.pid,
        uid: flow.uid,
        program: &flow.program,
        source: flow.source.map(|source| source.to_string()),
        destination: flow.destination.to_string(),
        name: flow.name.as_ref().map(|name| &name.text[..]),
        name_from: flow.name.as_ref().map(|name| &name.from[..]),
        sent: flow.bytes.map(|bytes| bytes.sent),
        received: flow.bytes.map(|bytes| bytes.received),
        duration_ms: flow.duration.map(|duration| duration.as_micros() as f64 / 1000.0),
        decision,
        left_alone,
        chain,
        ambiguous: flow.ambiguous,
        end,
    })))
}

/// A socket that cannot be inspected.
pub fn socket(socket: &UnseenSocket, clock: &Clock) -> String {
    let UnseenSocket { time, pid, uid, program, kind, refused } = socket;
    line(&Object::Socket {
        time: clock.timestamp(*time).to_string(),
        pid: *pid,
        uid: *uid,
        program,
        family: sockets::family(kind).0,
        kind: sockets::kind(kind).0,
        protocol: kind.protocol,
        decision: if refused.is_some() { REFUSED } else { NOT_INSPECTED },
        error: refused.and_then(errno_symbol),
    })
}

/// Something that people should know.
pub fn warning(warning: &str) -> String {
    line(&Object::Warning { message: warning })
}

pub(super) fn summary(summary: &Summary) -> String {
    let &Summary { flows, refused, failed, open, not_inspected, sent, received, events_lost } = summary;
    line(&Object::Summary { flows, refused, failed, open, not_inspected, sent, received, events_lost })
}

fn line(object: &Object<'_>) -> String {
    // Only maps with keys that are not strings fail, and there are none.
    serde_json::to_string(object).unwrap_or_default()
}

fn at(place: &Place) -> Option<At<'_>> {
    Some(match place {
        Place::Destination => At::Destination,
        Place::Service(service) => At::Service { service },
    })
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Object<'a> {
    Flow(Box<FlowObject<'a>>),
    Socket {
        time: String,
        pid: u32,
        uid: u32,
        program: &'a str,
        family: &'static str,
        kind: &'static str,
        protocol: u32,
        decision: &'static str,
        error: Option<String>,
    },
    Warning {
        message: &'a str,
    },
    Summary {
        flows: u64,
        refused: u64,
        failed: u64,
        open: u64,
        not_inspected: u64,
        sent: u64,
        received: u64,
        events_lost: u64,
    },
}

#[derive(Serialize)]
struct FlowObject<'a> {
    flow: String,
    protocol: &'static str,
    time: String,
    pid: u32,
    uid: u32,
    program: &'a str,
    source: Option<String>,
    destination: String,
    name: Option<&'a str>,
    name_from: Option<&'a str>,
    sent: Option<u64>,
    received: Option<u64>,
    duration_ms: Option<f64>,
    decision: &'static str,
    left_alone: Option<&'static str>,
    chain: Vec<LinkObject<'a>>,
    ambiguous: bool,
    #[serde(flatten)]
    end: EndFields<'a>,
}

#[derive(Serialize)]
struct LinkObject<'a> {
    service: &'a str,
    inferred: bool,
}

#[derive(Serialize)]
struct EndFields<'a> {
    ended: Option<&'static str>,
    at: Option<At<'a>>,
    error: Option<String>,
    reason: Option<&'static str>,
}

/// `"destination"`, or `{"service": NAME}`: a service may be called "destination".
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum At<'a> {
    Destination,
    #[serde(untagged)]
    Service {
        service: &'a str,
    },
}

/// Said of flows and of sockets.
const NOT_INSPECTED: &str = "not-inspected";
const REFUSED: &str = "refused";
