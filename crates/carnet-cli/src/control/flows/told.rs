//! What the daemon tells of a flow, as what the flow log writes.

use std::net::SocketAddr;
use std::time::Duration;

use carnet_control::{At, Decision as Decided, Ended, Flow as Told, Protocol as Kind, Socket};

use crate::run::flows::{Bytes, Decision, End, Flow, Link, Name, Place, Protocol, UnseenSocket};
use crate::run::output::{Clock, errno_of, reason_of, socket_kind_of};

/// `None`: its destination is no address, so that it is of another version.
pub fn flow(told: &Told, clock: &Clock) -> Option<Flow> {
    let destination = told.destination.parse::<SocketAddr>().ok()?;
    let error = told.error.as_deref().map_or(0, errno_of);
    let reason = told.reason.as_deref().map_or(0, reason_of);
    let place = || match &told.at {
        Some(At::Service { service }) => Place::Service(service.clone()),
        Some(At::Destination) | None => Place::Destination,
    };
    let name = |text: &String| Name { text: text.clone(), from: told.name_from.clone().unwrap_or_default() };
    Some(Flow {
        id: u128::from_str_radix(&told.flow, 16).unwrap_or_default(),
        protocol: match told.protocol {
            Kind::Tcp => Protocol::Tcp,
            Kind::Udp => Protocol::Udp,
        },
        begun: clock.boottime(&told.time),
        pid: told.pid,
        uid: told.uid,
        program: told.program.clone(),
        source: told.source.as_ref().and_then(|source| source.parse().ok()),
        destination,
        name: told.name.as_ref().map(name),
        bytes: told.sent.zip(told.received).map(|(sent, received)| Bytes { sent, received }),
        duration: told.duration_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()),
        decision: match told.decision {
            Decided::Redirected => Decision::Redirected,
            Decided::Direct => Decision::Direct,
            Decided::LeftAlone => Decision::LeftAlone(told.left_alone.as_deref().map_or(0, reason_of)),
            Decided::NotInspected => Decision::NotInspected,
            Decided::Refused => Decision::Refused,
        },
        chain: told.chain.iter().map(|link| Link { service: link.service.clone(), inferred: link.inferred }).collect(),
        ambiguous: told.ambiguous,
        end: match told.ended {
            None => End::Untold,
            Some(Ended::Closed) => End::Closed,
            Some(Ended::Aborted) => End::Aborted,
            Some(Ended::Open) => End::Open,
            Some(Ended::Reset) => End::Reset(place(), error),
            Some(Ended::Failed) => End::Failed(place(), error),
            Some(Ended::Refused) => {
                let service = match &told.at {
                    Some(At::Service { service }) => Some(service.clone()),
                    _ => None,
                };
                End::Refused { reason, service, error }
            }
        },
    })
}

/// A socket that cannot be inspected.
pub fn socket(told: &Socket, clock: &Clock) -> UnseenSocket {
    UnseenSocket {
        time: clock.boottime(&told.time),
        pid: told.pid,
        uid: told.uid,
        program: told.program.clone(),
        kind: socket_kind_of(&told.family, &told.kind, told.protocol),
        refused: (told.decision == Decided::Refused).then(|| told.error.as_deref().map_or(0, errno_of)),
    }
}

#[cfg(test)]
mod tests {
    use carnet_control::FlowLine;

    use super::*;
    use crate::run::output::{Format, Log};

    /// Whatever the flow log can write as an object has the same line when it has been told by the daemon.
    #[test]
    fn a_flow_that_was_told_has_the_line_that_it_has_in_the_log() {
        let clock = Clock::of_told();
        for end in ends() {
            for decision in [
                Decision::Redirected,
                Decision::Direct,
                Decision::LeftAlone(carnet_abi::REASON_SPECIAL),
                Decision::NotInspected,
                Decision::Refused,
            ] {
                let flow = Flow {
                    id: 7,
                    protocol: Protocol::Tcp,
                    begun: 1_234_567_000_000,
                    pid: 42,
                    uid: 1000,
                    program: "curl".into(),
                    source: Some(([10, 0, 0, 2], 40_000).into()),
                    destination: ([192, 0, 2, 7], 443).into(),
                    name: Some(Name { text: "example.org".into(), from: "tls".into() }),
                    bytes: Some(Bytes { sent: 517, received: 32_100 }),
                    duration: Some(Duration::from_micros(41_500)),
                    decision,
                    chain: vec![Link { service: "a".into(), inferred: true }],
                    ambiguous: true,
                    end: end.clone(),
                };
                let line: FlowLine = serde_json::from_str(&written(Format::Json, &clock, &flow)).unwrap();
                let FlowLine::Flow(told) = line else { panic!("{line:?}") };
                assert_eq!(super::flow(&told, &clock).unwrap(), flow);
            }
        }
    }

    #[test]
    fn every_kind_of_socket_has_the_words_that_it_has_in_the_log() {
        let clock = Clock::of_told();
        let words = |socket: &UnseenSocket, format| {
            let mut bytes = Vec::new();
            Log::new(format, clock.clone(), &mut bytes).socket(socket);
            String::from_utf8(bytes).unwrap()
        };
        for (family, kind, protocol) in [
            ("ipv4", "raw", 1),
            ("ipv6", "raw", 255),
            ("ipv6", "ping", 58),
            ("ipv4", "udp-lite", 136),
            ("ipv4", "sctp", 132),
            ("ipv4", "dccp", 33),
            ("ipv4", "l2tp", 115),
            ("ipv4", "smc", 256),
            ("other", "other", 300),
        ] {
            let decision = Decided::Refused;
            let told = Socket {
                time: "2026-01-01T00:00:00Z".into(),
                pid: 1,
                uid: 2,
                program: "nmap".into(),
                family: family.into(),
                kind: kind.into(),
                protocol,
                decision,
                error: Some("EACCES".into()),
            };
            let line: FlowLine = serde_json::from_str(&words(&socket(&told, &clock), Format::Json)).unwrap();
            assert_eq!(line, FlowLine::Socket(told));
        }
    }

    #[test]
    fn what_another_version_tells_is_no_flow() {
        let clock = Clock::of_told();
        let text = serde_json::json!({"flow": "x", "protocol": "tcp", "time": "?", "pid": 1, "uid": 1, "program": "x",
            "destination": "nowhere", "decision": "direct", "chain": [], "ambiguous": false, "reason": "later"});
        let told: Told = serde_json::from_value(text).unwrap();
        assert_eq!(flow(&told, &clock), None);
        let told = Told { destination: "192.0.2.7:443".into(), ended: Some(Ended::Refused), ..told };
        let text = written(Format::Text { colour: false, columns: false }, &clock, &flow(&told, &clock).unwrap());
        assert!(text.contains("a reason this version does not know"), "{text}");
    }

    fn ends() -> Vec<End> {
        let service = || Place::Service("a".into());
        let reasons = (1..=carnet_abi::REASON_ELSEWHERE).flat_map(|reason| {
            [None, Some("a".to_owned())].map(|service| End::Refused { reason, service, error: 111 })
        });
        [
            End::Untold,
            End::Closed,
            End::Aborted,
            End::Open,
            End::Reset(service(), 104),
            End::Reset(Place::Destination, 110),
            End::Failed(Place::Destination, 0),
            End::Failed(service(), 113),
        ]
        .into_iter()
        .chain(reasons)
        .collect()
    }

    fn written(format: Format, clock: &Clock, flow: &Flow) -> String {
        let mut bytes = Vec::new();
        Log::new(format, clock.clone(), &mut bytes).flow(flow);
        String::from_utf8(bytes).unwrap()
    }
}
