//! Operations that are begun with an `OVERLAPPED`, and told by an event.

use carnet::winsock::{SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS as SET, SOCKET, WSA_WAIT_EVENT_0};

use crate::{
    calls::{self, Begin, Event, FILL, NotOverlapped, Operation, Told},
    case::{Answer, Case, Need, Stop},
    stage::{LARGE, Pair, Query, Stage, fresh, number, udp},
};

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Query::BOTH.into_iter().flat_map(of_a_query).collect();
    cases.extend(of_set());
    cases.extend(without_record());
    cases.extend(refused());
    cases.extend(not_overlapped());
    cases
}

/// Longest wait, in milliseconds, for what should happen at once, on a machine with much else to do.
pub const PATIENCE: u32 = 20_000;

/// For an event, which in some systems never comes.
pub const EVENT_PATIENCE: u32 = if cfg!(windows) { 500 } else { PATIENCE };

/// The whole of an operation with an event: how it begins, whether the event comes, how it has ended.
pub fn by_event(operation: &Operation, event: Event, socket: SOCKET, begun: Told, size: Option<usize>) -> String {
    if !begun.is_pending() {
        return begun.words(size);
    }
    let came = if signalled(event) { "event" } else { "no event" };
    format!("{}; {came}; {}", begun.words(size), operation.result(socket, false).words(size))
}

pub fn signalled(event: Event) -> bool {
    calls::wait(&[event], false, EVENT_PATIENCE, false).ret == i64::from(WSA_WAIT_EVENT_0)
}

/// Whether it is now.
pub fn is_signalled(event: Event) -> bool {
    calls::wait(&[event], false, 0, false).ret == i64::from(WSA_WAIT_EVENT_0)
}

/// Pending operations may be told by the call itself where they are over at once.
const BEGUN: &str = "WSA_IO_PENDING";

fn of_a_query(query: Query) -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn(&Stage, Query, usize) -> Answer| {
        Case::new("overlapped", format!("{}.overlapped.{id}", query.name()), "R11", about)
            .documented(BEGUN)
            .documented("ok")
            .needs(query.need())
            .linux(linux)
            .ask(move |stage| ask(stage, query, stage.size(query)?))
    };
    vec![
        case(
            "event",
            "an event, and the bytes that the query without OVERLAPPED gives",
            "WSA_IO_PENDING, bytes = 0; event; ok, bytes = size; the answer, and nothing behind it",
            |stage, query, size| {
                let (event, socket) = (Event::new()?, stage.answering(query)?);
                let operation = Operation::new(&[], LARGE, Some(&event));
                let begun = operation.begin(socket, query.code());
                let words = by_event(&operation, event, socket, begun, Some(size));
                let output = operation.output();
                let (answer, rest) = output.split_at(size);
                // Two records of the same connection have their own stamps and tags; the beginning is the same.
                let same = answer[..size.min(8)] == stage.answer(query)?[..size.min(8)];
                let what = match (same, rest.iter().all(|&byte| byte == FILL)) {
                    (true, true) => "the answer, and nothing behind it",
                    (false, _) => "other bytes than the answer",
                    (_, false) => "the answer, and more behind it",
                };
                Ok(format!("{words}; {what}"))
            },
        ),
        case(
            "too-small",
            "a buffer that is too small",
            "WSA_IO_PENDING, bytes = 0; event; ERROR_INSUFFICIENT_BUFFER, bytes = size; Internal = 0xc0000023",
            |stage, query, size| {
                let (event, socket) = (Event::new()?, stage.answering(query)?);
                let operation = Operation::new(&[], size - 1, Some(&event));
                let begun = operation.begin(socket, query.code());
                let words = by_event(&operation, event, socket, begun, Some(size));
                Ok(format!("{words}; Internal = {:#x}", operation.status()))
            },
        ),
        case("wait", "the result, waited for", "WSA_IO_PENDING, bytes = 0; ok, bytes = size", |stage, query, size| {
            let (event, socket) = (Event::new()?, stage.answering(query)?);
            let operation = Operation::new(&[], LARGE, Some(&event));
            let begun = operation.begin(socket, query.code());
            Ok(format!("{}; {}", begun.words(Some(size)), operation.result(socket, true).words(Some(size))))
        }),
        case(
            "poll",
            "no event: the result, asked for until it is there",
            "WSA_IO_PENDING, bytes = 0; ok, bytes = size",
            |stage, query, size| {
                let socket = stage.answering(query)?;
                let operation = Operation::new(&[], LARGE, None);
                let begun = operation.begin(socket, query.code());
                Ok(format!("{}; {}", begun.words(Some(size)), poll(&operation, socket)?.words(Some(size))))
            },
        ),
        case(
            "again",
            "the same OVERLAPPED a second time, after its end",
            "WSA_IO_PENDING, bytes = 0; event; ok, bytes = size",
            |stage, query, size| {
                let (event, socket) = (Event::new()?, stage.answering(query)?);
                let operation = Operation::new(&[], LARGE, Some(&event));
                let begun = operation.begin(socket, query.code());
                by_event(&operation, event, socket, begun, Some(size));
                // Signalled by the first one: the second takes that back.
                let begun = operation.begin(socket, query.code());
                Ok(by_event(&operation, event, socket, begun, Some(size)))
            },
        ),
        case(
            "returned-null",
            "nowhere to tell the bytes returned",
            "WSA_IO_PENDING; event; ok, bytes = size",
            |stage, query, size| {
                let (event, socket) = (Event::new()?, stage.answering(query)?);
                let operation = Operation::new(&[], LARGE, Some(&event));
                let how = Begin { returned_null: true, ..Begin::default() };
                let begun = operation.begin_as(socket, query.code(), how);
                Ok(by_event(&operation, event, socket, begun, Some(size)))
            },
        ),
    ]
}

fn of_set() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn(&[u8]) -> Answer| {
        Case::new("overlapped", format!("set.overlapped.{id}"), "R11", about)
            .documented(BEGUN)
            .documented("ok")
            .needs(Need::Record)
            .linux(linux)
            .ask(move |stage| ask(&stage.answer(Query::Records)?))
    };
    vec![
        case("event", "SET with an event", "WSA_IO_PENDING, bytes = 0; event; ok, bytes = 0", |record| {
            let (event, socket) = (Event::new()?, fresh()?);
            let operation = Operation::new(record, 0, Some(&event));
            let begun = operation.begin(number(&socket), SET);
            Ok(by_event(&operation, event, number(&socket), begun, None))
        }),
        case("connected", "SET after connect()", "WSA_IO_PENDING, bytes = 0; event; WSAEISCONN, bytes = 0", |record| {
            let (event, pair) = (Event::new()?, Pair::new()?);
            let operation = Operation::new(record, 0, Some(&event));
            let begun = operation.begin(number(&pair.client), SET);
            Ok(by_event(&operation, event, number(&pair.client), begun, None))
        }),
    ]
}

/// Operations that end with an error, on sockets without a record: these run everywhere.
fn without_record() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn(&Operation, Event) -> Answer| {
        Case::new("overlapped", format!("overlapped.{id}"), "R11, R7", about)
            .documented(BEGUN)
            .linux(linux)
            .without_engine("WSA_IO_PENDING, bytes = 0; event; WSAEOPNOTSUPP, bytes = 0")
            .ask(move |_| {
                let event = Event::new()?;
                ask(&Operation::new(&[], LARGE, Some(&event)), event)
            })
    };
    let records = Query::Records.code();
    vec![
        case(
            "not-redirected",
            "a query of a connection that nobody has redirected",
            "WSA_IO_PENDING, bytes = 0; event; WSAEINVAL, bytes = 0",
            move |operation, event| {
                let pair = Pair::new()?;
                let begun = operation.begin(number(&pair.accepted), Query::Records.code());
                Ok(by_event(operation, event, number(&pair.accepted), begun, None))
            },
        ),
        case(
            "not-connected",
            "a query of a socket that is not connected",
            "WSA_IO_PENDING, bytes = 0; event; WSAENOTCONN, bytes = 0",
            move |operation, event| {
                let socket = fresh()?;
                let begun = operation.begin(number(&socket), Query::Records.code());
                Ok(by_event(operation, event, number(&socket), begun, None))
            },
        ),
        case(
            "udp",
            "a query of a UDP socket",
            "WSA_IO_PENDING, bytes = 0; event; WSAENOPROTOOPT, bytes = 0",
            move |operation, event| {
                let socket = udp()?;
                let begun = operation.begin(number(&socket), Query::Records.code());
                Ok(by_event(operation, event, number(&socket), begun, None))
            },
        )
        .without_engine("WSA_IO_PENDING, bytes = 0; event; WSAENOPROTOOPT, bytes = 0"),
        Case::new("overlapped", "overlapped.status", "R7", "the NTSTATUS of a query of what nobody has redirected")
            .documented("event; Internal = 0xc0000225")
            .linux("event; Internal = 0xc0000225")
            .without_engine("event; Internal = 0xc00000bb")
            .ask(move |_| {
                let (event, pair) = (Event::new()?, Pair::new()?);
                let operation = Operation::new(&[], LARGE, Some(&event));
                operation.begin(number(&pair.accepted), records).begun()?;
                let came = if signalled(event) { "event" } else { "no event" };
                Ok(format!("{came}; Internal = {:#x}", operation.status()))
            }),
    ]
}

/// Operations that do not begin.
fn refused() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn(&Stage, SOCKET) -> Answer| {
        Case::new("overlapped", format!("overlapped.{id}"), "R11, query errors", about).linux(linux).ask(move |stage| {
            let pair = Pair::new()?;
            ask(stage, number(&pair.accepted))
        })
    };
    let records = Query::Records.code();
    vec![
        case("nowhere", "an OVERLAPPED that may not be touched", "WSAEFAULT, bytes = 0", |stage, socket| {
            Ok(calls::begin_nowhere(socket, Query::Records.code(), &stage.pages).words(None))
        })
        .documented("WSAEFAULT"),
        case("output-null", "output null, and a length", "WSAEFAULT, bytes = 0", |_, socket| {
            let event = Event::new()?;
            let operation = Operation::new(&[], 64, Some(&event));
            let how = Begin { output_null: true, ..Begin::default() };
            Ok(operation.begin_as(socket, Query::Records.code(), how).words(None))
        })
        .documented("WSAEFAULT"),
        case("event-closed", "an event that is closed", "WSA_INVALID_HANDLE, bytes = 0", |_, socket| {
            let event = Event::new()?;
            event.close();
            let operation = Operation::new(&[], 64, Some(&event));
            Ok(operation.begin(socket, Query::Records.code()).words(None))
        }),
        Case::new("overlapped", "overlapped.no-socket", "R11, query errors", "a query of what is no socket")
            .documented("WSAENOTSOCK")
            .linux("WSAENOTSOCK, bytes = 0")
            .ask(move |_| {
                let event = Event::new()?;
                let operation = Operation::new(&[], 64, Some(&event));
                let begun = operation.begin(0x7FFF_FFFE, records);
                Ok(by_event(&operation, event, 0x7FFF_FFFE, begun, None))
            }),
    ]
}

/// A socket that was made without the overlapped attribute: the `OVERLAPPED` is ignored.
fn not_overlapped() -> Vec<Case> {
    let case = |id: &str, about: &str| Case::new("overlapped", format!("not-overlapped.{id}"), "R11", about);
    vec![
        case("set", "SET: done when the call returns, and the event is left alone")
            .documented("ok, bytes = 0; no event")
            .needs(Need::Record)
            .linux("ok, bytes = 0; no event")
            .ask(|stage| {
                let (event, socket) = (Event::new()?, NotOverlapped::tcp()?);
                let operation = Operation::new(&stage.answer(Query::Records)?, 0, Some(&event));
                let told = operation.begin(socket.number(), SET);
                Ok(format!("{}; {}", told.words(None), event_now(event)))
            }),
        case("query", "a query: refused when the call returns, and the event is left alone")
            .documented("WSAENOTCONN, bytes = 0; no event")
            .linux("WSAENOTCONN, bytes = 0; no event")
            .without_engine("WSAEOPNOTSUPP, bytes = 0; no event")
            .ask(|_| {
                let (event, socket) = (Event::new()?, NotOverlapped::tcp()?);
                let operation = Operation::new(&[], 64, Some(&event));
                let told = operation.begin(socket.number(), Query::Records.code());
                Ok(format!("{}; {}", told.words(None), event_now(event)))
            }),
        case("returned-null", "nowhere to tell the bytes returned, which is needed here")
            .documented("WSAEFAULT")
            .linux("WSAEFAULT")
            .ask(|_| {
                let socket = NotOverlapped::tcp()?;
                let how = Begin { returned_null: true, ..Begin::default() };
                let operation = Operation::new(&[], 64, None);
                Ok(operation.begin_as(socket.number(), Query::Records.code(), how).words(None))
            }),
    ]
}

fn event_now(event: Event) -> &'static str {
    if is_signalled(event) { "event" } else { "no event" }
}

/// Asks for the result until it is another than "incomplete".
fn poll(operation: &Operation, socket: SOCKET) -> Result<Told, Stop> {
    for _ in 0..PATIENCE {
        let told = operation.result(socket, false);
        if told.is_ok() || told.error != carnet::winsock::WSA_IO_INCOMPLETE {
            return Ok(told);
        }
        calls::sleep(1, false);
    }
    Err(Stop::Failed("it does not end".into()))
}
