//! Operations that are told by a completion port.

use carnet::winsock::SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS as SET;

use super::overlapped::{PATIENCE, signalled};
use crate::{
    calls::{Begin, Event, Operation, Packet, Port},
    case::{Answer, Case, Need, Stop},
    stage::{LARGE, Query, fresh, number},
};

pub fn cases() -> Vec<Case> {
    let mut cases = of_a_record();
    cases.extend(everywhere());
    cases
}

const KEY: usize = 77;

fn of_a_record() -> Vec<Case> {
    let linux = "WSA_IO_PENDING; ok, bytes = size, the operation, the key";
    let of_a_query = |query: Query| {
        Case::new("ports", format!("port.{}", query.name()), "R11", "a query; the socket keeps its port")
            .documented(linux)
            .needs(query.need())
            .linux(linux)
            .ask(move |stage| {
                let (socket, size) = (stage.answering(query)?, stage.size(query)?);
                // Both queries may be of one socket, which has one port for all its life.
                let port = Port::new()?;
                if !port.attach(socket, KEY).is_ok() {
                    return Err(Stop::NotRun("the connection has a port from the case before".into()));
                }
                let operation = Operation::new(&[], LARGE, None);
                let begun = operation.begin(socket, query.code()).begun()?;
                Ok(format!("{}; {}", begun.result(), told(&port.next(PATIENCE), &operation, Some(size))))
            })
    };
    vec![
        Case::new("ports", "port.set", "R11", "SET")
            .documented("WSA_IO_PENDING; ok, bytes = 0, the operation, the key")
            .needs(Need::Record)
            .linux("WSA_IO_PENDING; ok, bytes = 0, the operation, the key")
            .ask(|stage| {
                let (socket, port) = (fresh()?, Port::new()?);
                port.attach(number(&socket), KEY);
                let operation = Operation::new(&stage.answer(Query::Records)?, 0, None);
                let begun = operation.begin(number(&socket), SET).begun()?;
                Ok(format!("{}; {}", begun.result(), told(&port.next(PATIENCE), &operation, None)))
            }),
        of_a_query(Query::Context),
    ]
}

/// On sockets that are not connected.
fn everywhere() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn() -> Answer| {
        Case::new("ports", format!("port.{id}"), "R11", about)
            .linux(linux)
            .without_engine(linux.replace("WSAENOTCONN", "WSAEOPNOTSUPP"))
            .ask(move |_| ask())
    };
    vec![
        case(
            "error",
            "an operation that fails",
            "WSA_IO_PENDING; WSAENOTCONN, bytes = 0, the operation, the key",
            || {
                let (socket, port) = (fresh()?, Port::new()?);
                port.attach(number(&socket), KEY);
                let operation = Operation::new(&[], 64, None);
                let begun = operation.begin(number(&socket), Query::Records.code()).begun()?;
                Ok(format!("{}; {}", begun.result(), told(&port.next(PATIENCE), &operation, None)))
            },
        ),
        case(
            "event-too",
            "an event as well: both are told",
            "event; WSAENOTCONN, bytes = 0, the operation, the key",
            || {
                let (socket, port, event) = (fresh()?, Port::new()?, Event::new()?);
                port.attach(number(&socket), KEY);
                let operation = Operation::new(&[], 64, Some(&event));
                operation.begin(number(&socket), Query::Records.code()).begun()?;
                let packet = port.next(PATIENCE);
                let came = if signalled(event) { "event" } else { "no event" };
                Ok(format!("{came}; {}", told(&packet, &operation, None)))
            },
        ),
        case(
            "event-only",
            "an event with the lowest bit set: the port is not told",
            "event; nothing, WSA_WAIT_TIMEOUT",
            || {
                let (socket, port, event) = (fresh()?, Port::new()?, Event::new()?);
                port.attach(number(&socket), KEY);
                let operation = Operation::with_event_number(&[], 64, event.number() | 1);
                operation.begin(number(&socket), Query::Records.code()).begun()?;
                let came = if signalled(event) { "event" } else { "no event" };
                Ok(format!("{came}; {}", told(&port.next(50), &operation, None)))
            },
        )
        .documented("event; nothing, WSA_WAIT_TIMEOUT"),
        case(
            "with-routine",
            "a routine, on a socket that has a port",
            "WSAEINVAL, bytes = 0; no operation begins",
            || {
                let (socket, port) = (fresh()?, Port::new()?);
                port.attach(number(&socket), KEY);
                let operation = Operation::new(&[], 64, None);
                let how = Begin { routine: true, ..Begin::default() };
                let begun = operation.begin_as(number(&socket), Query::Records.code(), how).begun()?;
                Ok(format!("{}; {}", begun.result(), told(&port.next(50), &operation, None)))
            },
        ),
        case("second", "a second port for a socket", "ok; WSA_INVALID_PARAMETER", || {
            let (socket, one, other) = (fresh()?, Port::new()?, Port::new()?);
            let first = one.attach(number(&socket), KEY);
            Ok(format!("{}; {}", first.result(), other.attach(number(&socket), KEY).result()))
        })
        .documented("ok; WSA_INVALID_PARAMETER"),
        case("no-socket", "a port for what is no socket", "WSA_INVALID_HANDLE", || {
            Ok(Port::new()?.attach(0x7FFF_FFFE, KEY).result())
        })
        .documented("WSA_INVALID_HANDLE"),
        case("empty", "nothing has come", "nothing, WSA_WAIT_TIMEOUT", || {
            let operation = Operation::new(&[], 0, None);
            Ok(told(&Port::new()?.next(20), &operation, None))
        })
        .documented("nothing, WSA_WAIT_TIMEOUT"),
        case("closed", "a port that is closed", "ok; nothing, WSA_INVALID_HANDLE", || {
            let (port, operation) = (Port::new()?, Operation::new(&[], 0, None));
            let closed = port.close();
            Ok(format!("{}; {}", closed.result(), told(&port.next(20), &operation, None)))
        })
        .documented("ok; nothing, WSA_INVALID_HANDLE"),
        case("many", "operations on two sockets, told at one port by their keys", "each once, by its key", many),
    ]
}

fn many() -> Answer {
    let port = Port::new()?;
    let sockets = [fresh()?, fresh()?];
    let mut wanted = Vec::new();
    let mut operations = Vec::new();
    for (key, socket) in sockets.iter().enumerate() {
        port.attach(number(socket), key);
        for _ in 0..8 {
            let operation = Operation::new(&[], 64, None);
            operation.begin(number(socket), Query::Records.code()).begun()?;
            wanted.push((key, operation.address()));
            operations.push(operation);
        }
    }
    let mut came: Vec<_> =
        wanted.iter().map(|_| port.next(PATIENCE)).map(|packet| (packet.key, packet.operation)).collect();
    wanted.sort_unstable();
    came.sort_unstable();
    let last = port.next(20);
    Ok(if came == wanted && last.operation == 0 {
        "each once, by its key".to_owned()
    } else {
        format!("{came:?}, {last:?}")
    })
}

/// What a port has told, of this operation or none.
fn told(packet: &Packet, operation: &Operation, size: Option<usize>) -> String {
    if packet.operation == 0 {
        return format!("nothing, {}", packet.told.result());
    }
    let which = if packet.operation == operation.address() { "the operation" } else { "another operation" };
    let key = if packet.key == KEY { "the key" } else { "another key" };
    format!("{}, {which}, {key}", packet.told.words(size))
}
