use std::time::Duration;

use carnet_abi as abi;
use serde_json::Value;

use super::*;
use crate::run::flows::{Bytes, Decision, Link, Name, Place, Protocol, SocketKind, UnseenSocket};

const PLAIN: Format = Format::Text { colour: false, columns: false };
const ALIGNED: Format = Format::Text { colour: false, columns: true };
const COLOURED: Format = Format::Text { colour: true, columns: true };

fn flow() -> Flow {
    Flow {
        id: 0xab,
        protocol: Protocol::Tcp,
        begun: 1_234_000_000,
        pid: 42,
        uid: 1000,
        program: "curl".into(),
        source: Some("10.0.0.2:40000".parse().unwrap()),
        destination: "192.0.2.7:443".parse().unwrap(),
        name: Some(Name { text: "example.org".into(), from: "tls".into() }),
        bytes: Some(Bytes { sent: 517, received: 32_100 }),
        duration: Some(Duration::from_micros(41_500)),
        decision: Decision::Redirected,
        chain: vec![link("inspect", false), link("redsocks", true)],
        ambiguous: false,
        end: End::Closed,
    }
}

fn link(service: &str, inferred: bool) -> Link {
    Link { service: service.into(), inferred }
}

fn direct(end: End) -> Flow {
    Flow { name: None, decision: Decision::Direct, chain: Vec::new(), end, ..flow() }
}

fn datagrams(decision: Decision, end: End) -> Flow {
    Flow { protocol: Protocol::Udp, bytes: None, duration: None, decision, ..direct(end) }
}

fn not_inspected() -> Flow {
    datagrams(Decision::NotInspected, End::Untold)
}

fn quic() -> Flow {
    datagrams(Decision::Refused, End::Refused { reason: abi::REASON_QUIC, service: None, error: 111 })
}

fn raw_socket(refused: Option<i32>) -> UnseenSocket {
    let kind = SocketKind { family: 2, sock_type: 3, protocol: 1 };
    UnseenSocket { time: 1_234_000_000, pid: 42, uid: 1000, program: "nmap".into(), kind, refused }
}

fn written(format: Format, write: impl FnOnce(&mut Log<&mut Vec<u8>>)) -> String {
    let mut bytes = Vec::new();
    write(&mut Log::new(format, Clock::fixed(), &mut bytes));
    String::from_utf8(bytes).unwrap()
}

fn line(format: Format, flow: &Flow) -> String {
    written(format, |log| log.flow(flow))
}

#[test]
fn plain_lines() {
    let refused = End::Refused { reason: abi::REASON_DEAD, service: Some("redsocks".into()), error: 111 };
    let left_alone = Flow { decision: Decision::LeftAlone(abi::REASON_SPECIAL), ..direct(End::Aborted) };
    for (flow, expected) in [
        (
            flow(),
            "22:13:21.234  curl[42]  example.org 192.0.2.7:443  517 B up, 32.1 kB down  42 ms  closed  inspect > redsocks (inferred)\n",
        ),
        (
            direct(End::Failed(Place::Destination, 111)),
            "22:13:21.234  curl[42]  192.0.2.7:443  517 B up, 32.1 kB down  42 ms  refused  direct\n",
        ),
        (
            Flow { duration: None, decision: Decision::Refused, bytes: Some(Bytes::default()), ..direct(refused) },
            "22:13:21.234  curl[42]  192.0.2.7:443  0 B up, 0 B down  -  refused by carnet (redsocks: nobody listens there)  -\n",
        ),
        (not_inspected(), "22:13:21.234  curl[42]  192.0.2.7:443  -  -  udp  not inspected\n"),
        (
            quic(),
            "22:13:21.234  curl[42]  192.0.2.7:443  -  -  refused by carnet (QUIC is to be replaced by TCP: block-quic)  -\n",
        ),
        (
            left_alone,
            "22:13:21.234  curl[42]  192.0.2.7:443  517 B up, 32.1 kB down  42 ms  aborted  direct (broadcast, multicast or link-local)\n",
        ),
    ] {
        assert_eq!(line(PLAIN, &flow), expected);
    }
}

#[test]
fn a_name_that_is_the_address_is_not_said_twice() {
    let named = |text: &str, destination: &str| {
        let name = Some(Name { text: text.into(), from: "http".into() });
        line(PLAIN, &Flow { name, destination: destination.parse().unwrap(), ..flow() })
    };
    assert!(named("192.0.2.7", "192.0.2.7:443").contains("  192.0.2.7:443  "));
    assert!(named("[2001:db8::1]", "[2001:db8::1]:443").contains("  [2001:db8::1]:443  "));
    assert!(named("192.0.2.8", "192.0.2.7:443").contains("  192.0.2.8 192.0.2.7:443  "));
}

#[test]
fn how_a_flow_ended_in_words() {
    for (end, expected) in [
        (End::Closed, "closed"),
        (End::Aborted, "aborted"),
        (End::Open, "open"),
        (End::Reset(Place::Destination, 104), "reset"),
        (End::Reset(Place::Service("a".into()), 104), "reset by a"),
        (End::Reset(Place::Destination, 110), "timed out"),
        (End::Failed(Place::Destination, 113), "unreachable"),
        (End::Failed(Place::Destination, 0), "failed"),
        (End::Failed(Place::Service("a".into()), 111), "refused by a"),
        (
            End::Refused { reason: abi::REASON_NO_ROOM, service: None, error: 105 },
            "refused by carnet (no memory for its record)",
        ),
    ] {
        let line = line(PLAIN, &direct(end));
        assert_eq!(line.split("  ").nth(5), Some(expected), "{line}");
    }
}

#[test]
fn columns_stand_below_each_other() {
    let short = Flow { pid: 1, name: None, ..flow() };
    let (long, short) = (line(ALIGNED, &flow()), line(ALIGNED, &short));
    assert_eq!(long.find("inspect >"), short.find("inspect >"));
    assert_eq!(
        short,
        "22:13:21.234  curl[1]             192.0.2.7:443                       517 B up, 32.1 kB down  42 ms      closed    inspect > redsocks (inferred)\n"
    );
}

#[test]
fn colour_adds_escapes_and_nothing_else() {
    let coloured = line(COLOURED, &flow());
    assert!(coloured.contains("\x1b[32mclosed\x1b[0m"), "{coloured:?}");
    let mut bare = String::new();
    let mut rest = &coloured[..];
    while let Some(at) = rest.find('\x1b') {
        bare.push_str(&rest[..at]);
        rest = &rest[at + rest[at..].find('m').unwrap() + 1..];
    }
    bare.push_str(rest);
    assert_eq!(bare, line(ALIGNED, &flow()));
}

#[test]
fn names_that_others_chose_do_not_steer_the_terminal() {
    let name = Name { text: "a\x1b[2Jb\u{202e}c\n".into(), from: "http".into() };
    for format in [PLAIN, Format::Json] {
        let line = line(format, &Flow { program: "x\ry".into(), name: Some(name.clone()), ..flow() });
        let body = line.strip_suffix('\n').unwrap();
        assert!(!body.contains(char::is_control), "{body:?}");
    }
    let warning = written(PLAIN, |log| log.warning("a\x1bb"));
    assert_eq!(warning, "carnet: a\\u{1b}b\n");
}

#[test]
fn json_has_the_documented_fields() {
    let expected = concat!(
        r#"{"type":"flow","flow":"000000000000000000000000000000ab","protocol":"tcp","time":"2023-11-14T22:13:21.234Z","pid":42,"uid":1000,"#,
        r#""program":"curl","source":"10.0.0.2:40000","destination":"192.0.2.7:443","name":"example.org","name_from":"tls","#,
        r#""sent":517,"received":32100,"duration_ms":41.5,"decision":"redirected","left_alone":null,"#,
        r#""chain":[{"service":"inspect","inferred":false},{"service":"redsocks","inferred":true}],"ambiguous":false,"#,
        r#""ended":"closed","at":null,"error":null,"reason":null}"#,
        "\n"
    );
    assert_eq!(line(Format::Json, &flow()), expected);
}

#[test]
fn json_of_datagrams() {
    for (flow, decision, ended, reason) in [
        (not_inspected(), "not-inspected", Value::Null, Value::Null),
        (quic(), "refused", "refused".into(), "quic".into()),
    ] {
        let object: Value = serde_json::from_str(&line(Format::Json, &flow)).unwrap();
        assert_eq!((&object["type"], &object["protocol"]), (&"flow".into(), &"udp".into()));
        assert_eq!(object["decision"], decision);
        assert_eq!((&object["ended"], &object["reason"]), (&ended, &reason));
        for nothing in ["sent", "received", "duration_ms", "left_alone", "name"] {
            assert_eq!(object.get(nothing), Some(&Value::Null), "{nothing}");
        }
    }
}

#[test]
fn sockets_that_cannot_be_inspected() {
    for (socket, text, json) in [
        (
            raw_socket(None),
            "carnet: nmap[42] made a socket that cannot be inspected (IPv4 raw socket, protocol 1, ICMP); `strict` refuses these\n",
            r#""decision":"not-inspected","error":null}"#,
        ),
        (
            raw_socket(Some(13)),
            "carnet: nmap[42] was refused a socket that cannot be inspected (IPv4 raw socket, protocol 1, ICMP)\n",
            r#""decision":"refused","error":"EACCES"}"#,
        ),
    ] {
        assert_eq!(written(PLAIN, |log| log.socket(&socket)), text);
        let expected = concat!(
            r#"{"type":"socket","time":"2023-11-14T22:13:21.234Z","pid":42,"uid":1000,"program":"nmap","#,
            r#""family":"ipv4","kind":"raw","protocol":1,"#,
        );
        assert_eq!(written(Format::Json, |log| log.socket(&socket)), format!("{expected}{json}\n"));
    }
    for (kind, words) in [
        ((10, 3, 58), "IPv6 raw socket, protocol 58, ICMPv6"),
        ((10, 2, 136), "IPv6 UDP-Lite socket, protocol 136"),
        ((2, 5, 132), "IPv4 SCTP socket, protocol 132"),
        ((2, 6, 33), "IPv4 DCCP socket, protocol 33"),
        ((2, 2, 115), "IPv4 L2TP socket, protocol 115"),
        ((2, 1, 256), "IPv4 SMC socket, protocol 256"),
        ((2, 2, 200), "IPv4 socket of a rare kind, protocol 200"),
        ((99, 99, u32::MAX), "other socket of a rare kind, protocol 4294967295"),
    ] {
        let (family, sock_type, protocol) = kind;
        let socket = UnseenSocket { kind: SocketKind { family, sock_type, protocol }, ..raw_socket(None) };
        let text = written(PLAIN, |log| log.socket(&socket));
        assert!(text.contains(&format!("({words})")), "{text}");
    }
    let steering = UnseenSocket { program: "a\x1b[2J".into(), ..raw_socket(None) };
    for format in [PLAIN, Format::Json] {
        assert!(!written(format, |log| log.socket(&steering)).trim_end().contains(char::is_control));
    }
}

#[test]
fn json_says_where_and_why() {
    let service = Some("b".to_owned());
    for (end, expected) in [
        (End::Failed(Place::Destination, 111), r#"["failed","destination","ECONNREFUSED",null]"#),
        (End::Reset(Place::Service("a".into()), 104), r#"["reset",{"service":"a"},"ECONNRESET",null]"#),
        (
            End::Refused { reason: abi::REASON_STRANGER, service, error: 111 },
            r#"["refused",{"service":"b"},"ECONNREFUSED","stranger"]"#,
        ),
        (
            End::Refused { reason: abi::REASON_NO_ROOM, service: None, error: 105 },
            r#"["refused",null,"ENOBUFS","no-room"]"#,
        ),
        (End::Open, r#"["open",null,null,null]"#),
    ] {
        let object: Value = serde_json::from_str(&line(Format::Json, &direct(end))).unwrap();
        let fields = Value::from(["ended", "at", "error", "reason"].map(|key| object[key].clone()).to_vec());
        assert_eq!(fields.to_string(), expected);
    }
}

/// The table in the documentation names every field, and no other.
#[test]
fn the_documentation_lists_the_fields() {
    let document = include_str!("../../../../../docs/flow-log.md");
    let table = document.split("## The flow object").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut documented: Vec<_> =
        table.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect();
    let object: serde_json::Map<String, Value> = serde_json::from_str(&line(Format::Json, &flow())).unwrap();
    let mut written: Vec<_> = object.keys().cloned().collect();
    documented.sort();
    written.sort();
    assert_eq!(documented, written);
}

#[test]
fn every_reason_has_its_own_word_and_is_documented() {
    let document = include_str!("../../../../../docs/flow-log.md");
    let words: Vec<_> = (1..=24).map(|number| reason(number).0).collect();
    for (at, word) in words.iter().enumerate() {
        assert!(!words[..at].contains(word) && *word != "unknown", "{word}");
        assert!(document.contains(&format!("| `{word}`")), "docs/flow-log.md lacks {word}");
    }
    assert_eq!(reason(25).0, "unknown");
}

#[test]
fn the_summary() {
    let mut summary = Summary::default();
    for end in [End::Closed, End::Open, End::Aborted, End::Failed(Place::Destination, 111)] {
        summary.add(&direct(end));
    }
    summary.add(&direct(End::Refused { reason: abi::REASON_DEAD, service: None, error: 111 }));
    assert_eq!(
        written(PLAIN, |log| log.summary(&summary)),
        "carnet: 5 flows, 2.6 kB up, 160 kB down, 1 refused, 2 failed or broken off, 1 still open\n"
    );
    let mut summary = Summary::default();
    summary.add(&not_inspected());
    summary.add(&quic());
    summary.add(&flow());
    assert_eq!(
        written(PLAIN, |log| log.summary(&summary)),
        "carnet: 3 flows, 517 B up, 32.1 kB down, 1 refused, 1 not inspected\n"
    );
    let lost = Summary { flows: 1, events_lost: 3, ..Summary::default() };
    assert_eq!(
        written(PLAIN, |log| log.summary(&lost)),
        "carnet: 1 flow, 0 B up, 0 B down. 3 events were lost, flows may be missing here\n"
    );
    assert_eq!(
        written(Format::Json, |log| log.summary(&lost)),
        r#"{"type":"summary","flows":1,"refused":0,"failed":0,"open":0,"not_inspected":0,"sent":0,"received":0,"events_lost":3}"#
            .to_owned()
            + "\n"
    );
}

#[test]
fn sizes() {
    for (bytes, expected) in [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (u64::MAX, "18446744.1 TB"),
    ] {
        let flow = Flow { bytes: Some(Bytes { sent: bytes, received: 0 }), ..flow() };
        assert!(line(PLAIN, &flow).contains(&format!("  {expected} up,")), "{bytes}: {}", line(PLAIN, &flow));
    }
}

struct Failing(io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_who_leaves_is_no_error_and_a_full_disk_is_one() {
    for (kind, reported) in [(io::ErrorKind::BrokenPipe, false), (io::ErrorKind::StorageFull, true)] {
        let mut log = Log::new(PLAIN, Clock::fixed(), Failing(kind));
        log.flow(&flow());
        log.flow(&flow());
        assert_eq!(log.into_error().is_some(), reported);
    }
}
