//! The calls around an operation: events, waits, and asking for results.

use carnet::winsock::WSA_MAXIMUM_WAIT_EVENTS;
use socket2::Socket;

use super::overlapped::by_event;
use crate::{
    calls::{self, Event, Operation},
    case::{Answer, Case, Stop},
    stage::{Query, fresh, number},
    words::{error_name, wait_name},
};

pub fn cases() -> Vec<Case> {
    let mut cases = results();
    cases.extend(events());
    cases
}

fn results() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn() -> Answer| {
        Case::new("waits", id, "R11", about).linux(linux).ask(move |_| ask())
    };
    vec![
        case("result.bytes-null", "WSAGetOverlappedResult, nowhere to tell the bytes", "WSAEFAULT", || {
            let socket = fresh()?;
            Ok(calls::result_at_null(number(&socket), Some(&ended(&socket)?), true, false).result())
        })
        .documented("WSAEFAULT"),
        case("result.flags-null", "WSAGetOverlappedResult, nowhere to tell the flags", "WSAEFAULT", || {
            let socket = fresh()?;
            Ok(calls::result_at_null(number(&socket), Some(&ended(&socket)?), false, true).result())
        })
        .documented("WSAEFAULT"),
        case("result.overlapped-null", "WSAGetOverlappedResult of no operation", "WSAEFAULT", || {
            Ok(calls::result_at_null(number(&fresh()?), None, false, false).result())
        })
        .documented("WSAEFAULT"),
    ]
}

fn events() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn() -> Answer| {
        Case::new("waits", id, "R11", about).linux(linux).ask(move |_| ask())
    };
    vec![
        case(
            "event.manual",
            "it stays signalled until it is reset",
            "WSA_WAIT_TIMEOUT; WSA_WAIT_EVENT_0 + 0; WSA_WAIT_EVENT_0 + 0; WSA_WAIT_TIMEOUT",
            || {
                let event = Event::new()?;
                let look = || wait_name(&calls::wait(&[event], false, 0, false));
                let new = look();
                event.set();
                let (once, twice) = (look(), look());
                event.reset();
                Ok([new, once, twice, look()].join("; "))
            },
        )
        .documented("WSA_WAIT_TIMEOUT; WSA_WAIT_EVENT_0 + 0; WSA_WAIT_EVENT_0 + 0; WSA_WAIT_TIMEOUT"),
        case("wait.first", "of two events that are signalled the first is told", "WSA_WAIT_EVENT_0 + 1", || {
            let events = [Event::new()?, Event::new()?, Event::new()?];
            events[1].set();
            events[2].set();
            Ok(wait_name(&calls::wait(&events, false, 0, false)))
        })
        .documented("WSA_WAIT_EVENT_0 + 1"),
        case("wait.all", "for all: one of two, then both", "WSA_WAIT_TIMEOUT; WSA_WAIT_EVENT_0 + 0", || {
            let events = [Event::new()?, Event::new()?];
            events[0].set();
            let one = wait_name(&calls::wait(&events, true, 10, false));
            events[1].set();
            Ok(format!("{one}; {}", wait_name(&calls::wait(&events, true, 10, false))))
        })
        .documented("WSA_WAIT_TIMEOUT; WSA_WAIT_EVENT_0 + 0"),
        case("wait.null", "null for the events", "WSA_WAIT_FAILED, WSAEFAULT", || {
            Ok(wait_name(&calls::wait_at_null(1)))
        }),
        case("wait.none", "for no event", "WSA_WAIT_FAILED, WSA_INVALID_PARAMETER", || {
            Ok(wait_name(&calls::wait(&[], false, 0, false)))
        })
        .documented("WSA_WAIT_FAILED, WSA_INVALID_PARAMETER"),
        case("wait.too-many", "for one event more than one may", "WSA_WAIT_FAILED, WSA_INVALID_PARAMETER", || {
            let event = Event::new()?;
            let events = vec![event; WSA_MAXIMUM_WAIT_EVENTS as usize + 1];
            Ok(wait_name(&calls::wait(&events, false, 0, false)))
        })
        .documented("WSA_WAIT_FAILED, WSA_INVALID_PARAMETER"),
        case("wait.closed", "for an event that is closed", "WSA_WAIT_FAILED, WSA_INVALID_HANDLE", || {
            let event = Event::new()?;
            event.close();
            Ok(wait_name(&calls::wait(&[event], false, 0, false)))
        })
        .documented("WSA_WAIT_FAILED, WSA_INVALID_HANDLE"),
        case("event.closed", "an event that is closed: closed again, set, reset", CLOSED, || {
            let event = Event::new()?;
            event.close();
            let told = [event.close(), event.set(), event.reset()];
            Ok(told.map(|told| if told.ret == 0 { error_name(told.error) } else { "true".to_owned() }).join("; "))
        })
        .documented(CLOSED),
    ]
}

const CLOSED: &str = "WSA_INVALID_HANDLE; WSA_INVALID_HANDLE; WSA_INVALID_HANDLE";

/// An operation that has ended.
fn ended(socket: &Socket) -> Result<Operation, Stop> {
    let event = Event::new()?;
    let operation = Operation::new(&[], 64, Some(&event));
    let begun = operation.begin(number(socket), Query::Records.code());
    by_event(&operation, event, number(socket), begun, None);
    Ok(operation)
}
