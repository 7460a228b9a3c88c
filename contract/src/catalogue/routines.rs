//! Operations that are told by a completion routine, in the thread that has begun them, while it waits alertably.

use std::{thread, thread::ThreadId};

use carnet::winsock::{SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS as SET, SOCKET};

use super::overlapped::PATIENCE;
use crate::{
    calls::{self, Begin, Buffer, Event, Ioctl, Operation},
    case::{Answer, Case, Need},
    stage::{LARGE, Pair, Query, Stage, fresh, number},
    words::{bytes_words, error_name, wait_name},
};

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Query::BOTH.into_iter().map(of_a_query).collect();
    cases.push(
        case(
            "set",
            "SET, and its routine",
            "WSA_IO_PENDING; WSA_WAIT_IO_COMPLETION; once, ok, bytes = 0, in this thread",
        )
        .documented("WSA_IO_PENDING; WSA_WAIT_IO_COMPLETION; once, ok")
        .needs(Need::Record)
        .ask(|stage| {
            let (operation, socket) = (Operation::new(&stage.answer(Query::Records)?, 0, None), fresh()?);
            let begun = operation.begin_as(number(&socket), SET, ROUTINE).begun()?;
            let slept = calls::sleep(PATIENCE, true);
            Ok(format!("{}; {}; {}", begun.result(), wait_name(&slept), ran(&operation, None)))
        }),
    );
    cases.extend(everywhere());
    cases.push(without_overlapped());
    cases
}

const ROUTINE: Begin = Begin { routine: true, returned_null: false, output_null: false };

fn case(id: &str, about: &str, linux: &str) -> Case {
    Case::new("routines", format!("routine.{id}"), "R11", about).linux(linux)
}

fn of_a_query(query: Query) -> Case {
    let linux = "WSA_IO_PENDING; WSA_WAIT_IO_COMPLETION; once, ok, bytes = size, in this thread";
    case(query.name(), "a query, and its routine", linux)
        .documented("WSA_IO_PENDING; WSA_WAIT_IO_COMPLETION; once, ok, bytes = size")
        .needs(query.need())
        .ask(move |stage| {
            let (socket, size) = (stage.answering(query)?, stage.size(query)?);
            let operation = Operation::new(&[], LARGE, None);
            let begun = operation.begin_as(socket, query.code(), ROUTINE).begun()?;
            let slept = calls::sleep(PATIENCE, true);
            Ok(format!("{}; {}; {}", begun.result(), wait_name(&slept), ran(&operation, Some(size))))
        })
}

/// On a connection that nobody has redirected.
fn everywhere() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn(SOCKET) -> Answer| {
        case(id, about, linux).without_engine(linux.replace("WSAEINVAL", "WSAEOPNOTSUPP")).ask(move |_: &Stage| {
            let pair = Pair::new()?;
            ask(number(&pair.accepted))
        })
    };
    vec![
        case(
            "error",
            "an operation that fails: the routine gets the error",
            "WSA_IO_PENDING; WSA_WAIT_IO_COMPLETION; once, WSAEINVAL, bytes = 0, in this thread",
            |socket| {
                let operation = Operation::new(&[], 64, None);
                let begun = operation.begin_as(socket, Query::Records.code(), ROUTINE).begun()?;
                let slept = calls::sleep(PATIENCE, true);
                Ok(format!("{}; {}; {}", begun.result(), wait_name(&slept), ran(&operation, None)))
            },
        )
        .documented("WSA_IO_PENDING; WSA_WAIT_IO_COMPLETION; once"),
        case(
            "not-alertable",
            "it has not run after a wait that is not alertable, and has after one that is",
            "never; once, WSAEINVAL, bytes = 0, in this thread",
            |socket| {
                let operation = Operation::new(&[], 64, None);
                operation.begin_as(socket, Query::Records.code(), ROUTINE).begun()?;
                calls::sleep(50, false);
                let before = ran(&operation, None);
                calls::sleep(PATIENCE, true);
                Ok(format!("{before}; {}", ran(&operation, None)))
            },
        )
        .documented("never; once"),
        case(
            "waits-for-events",
            "it ends an alertable wait for events",
            "WSA_WAIT_IO_COMPLETION; once, WSAEINVAL, bytes = 0, in this thread",
            |socket| {
                let (operation, other) = (Operation::new(&[], 64, None), Event::new()?);
                operation.begin_as(socket, Query::Records.code(), ROUTINE).begun()?;
                let waited = calls::wait(&[other], false, PATIENCE, true);
                Ok(format!("{}; {}", wait_name(&waited), ran(&operation, None)))
            },
        )
        .documented("WSA_WAIT_IO_COMPLETION; once"),
        case(
            "event-is-the-callers",
            "the OVERLAPPED's event is left alone",
            "once, WSAEINVAL, bytes = 0, in this thread; WSA_WAIT_TIMEOUT",
            |socket| {
                let event = Event::new()?;
                let operation = Operation::new(&[], 64, Some(&event));
                operation.begin_as(socket, Query::Records.code(), ROUTINE).begun()?;
                calls::sleep(PATIENCE, true);
                let waited = calls::wait(&[event], false, 0, false);
                Ok(format!("{}; {}", ran(&operation, None), wait_name(&waited)))
            },
        )
        .documented("once, WSAEINVAL, bytes = 0, in this thread; WSA_WAIT_TIMEOUT"),
        case(
            "any-number-for-the-event",
            "a number that is no event's: nobody looks at it",
            "WSA_IO_PENDING; once, WSAEINVAL, bytes = 0, in this thread",
            |socket| {
                let operation = Operation::with_event_number(&[], 64, 0x7FFF_FFF0);
                let begun = operation.begin_as(socket, Query::Records.code(), ROUTINE).begun()?;
                calls::sleep(PATIENCE, true);
                Ok(format!("{}; {}", begun.result(), ran(&operation, None)))
            },
        )
        .documented("WSA_IO_PENDING; once"),
    ]
}

/// A routine without an operation: nothing is told by it.
fn without_overlapped() -> Case {
    case(
        "without-overlapped",
        "a routine and no OVERLAPPED: no operation begins, and it does not run",
        "WSAEINVAL, bytes = 0; never",
    )
    .without_engine("WSAEOPNOTSUPP, bytes = 0; never")
    .documented("WSAEINVAL, bytes = 0; never")
    .ask(|_| {
        let pair = Pair::new()?;
        let mut bytes = [0; 64];
        let call =
            Ioctl { output: Buffer::of(&mut bytes), ..Ioctl::new(number(&pair.accepted), Query::Records.code()) };
        let told = call.call_with_routine();
        calls::sleep(50, true);
        let ran = if calls::completions_here() == 0 { "never" } else { "it ran" };
        Ok(format!("{}; {ran}", told.words(None)))
    })
}

/// How often the routine has run, and with what.
pub fn ran(operation: &Operation, size: Option<usize>) -> String {
    ran_in(operation, size, thread::current().id(), "in this thread")
}

/// The same, and whether that was in this thread.
pub fn ran_in(operation: &Operation, size: Option<usize>, thread: ThreadId, place: &str) -> String {
    match &operation.completions()[..] {
        [] => "never".to_owned(),
        [once] => {
            let error = if once.error == 0 { "ok".to_owned() } else { error_name(once.error.cast_signed()) };
            let place = if once.thread == thread { place } else { "in another thread" };
            format!("once, {error}, {}, {place}", bytes_words(once.bytes, size))
        }
        more => format!("{} times", more.len()),
    }
}
