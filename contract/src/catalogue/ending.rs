//! Operations that are ended: cancelled, flushed, with their socket, with their thread. Whether one is aborted or has
//! been performed by then is a race, so this is done again and again until one was aborted: each has to end.

use std::thread;

use carnet::winsock::{SIO_FLUSH, SOCKET, STATUS_CANCELLED, STATUS_PENDING};
use socket2::Socket;

use super::overlapped::{EVENT_PATIENCE, by_event, is_signalled, signalled};
use crate::{
    calls::{self, Event, Ioctl, Operation},
    case::{Answer, Case, Stop},
    stage::{Query, Stage, fresh, number},
};

pub fn cases() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn(&Stage) -> Answer| {
        Case::new("ending", id, "R11", about).linux(linux).ask(ask)
    };
    let race = |id: &str, about: &str, end: fn(Socket) -> Result<Operations, Stop>| {
        Case::new("ending", id, "R11", about)
            .documented("each ended")
            .linux("each ended; some were aborted")
            .ask(move |_| until_some_are_aborted(end))
    };
    vec![
        race("cancel.pending", "CancelIoEx of all of a socket's", |socket| {
            let operations = begin(number(&socket))?;
            calls::cancel(number(&socket), None);
            Ok(operations)
        }),
        race("cancel.one", "CancelIoEx of the last of a socket's", |socket| {
            let operations = begin(number(&socket))?;
            calls::cancel(number(&socket), operations.last().map(|(operation, _)| operation));
            Ok(operations)
        }),
        race("flush.pending", "SIO_FLUSH of a socket", |socket| {
            let operations = begin(number(&socket))?;
            Ioctl::new(number(&socket), SIO_FLUSH).call();
            Ok(operations)
        }),
        race("close.pending", "closesocket() while they go on", |socket| {
            let operations = begin(number(&socket))?;
            calls::close(socket);
            Ok(operations)
        }),
        race("close.dropped", "the socket closed by its owner, who knows of no operation", |socket| {
            let operations = begin(number(&socket))?;
            drop(socket);
            Ok(operations)
        }),
        race("thread.exit", "the thread that has begun them ends", |socket| {
            let number = number(&socket);
            let begun = thread::scope(|scope| scope.spawn(move || begin(number)).join());
            begun.map_err(|_| Stop::Failed("the thread panicked".into()))?
        }),
        case("flush.idle", "SIO_FLUSH where nothing has begun", "ok, bytes = 0", |_| {
            Ok(Ioctl::new(number(&fresh()?), SIO_FLUSH).call().words(None))
        })
        .documented("ok"),
        case("cancel.ended", "CancelIoEx of one that has ended", "ERROR_NOT_FOUND", |_| {
            let (socket, event) = (fresh()?, Event::new()?);
            let operation = Operation::new(&[], 64, Some(&event));
            let begun = operation.begin(number(&socket), Query::Records.code());
            by_event(&operation, event, number(&socket), begun, None);
            Ok(calls::cancel(number(&socket), Some(&operation)).result())
        })
        .documented("ERROR_NOT_FOUND"),
        case("cancel.none", "CancelIoEx where nothing has begun", "ERROR_NOT_FOUND", |_| {
            Ok(calls::cancel(number(&fresh()?), None).result())
        })
        .documented("ERROR_NOT_FOUND"),
        case("cancel.no-socket", "CancelIoEx of what is no socket", "WSA_INVALID_HANDLE", |_| {
            Ok(calls::cancel(0x7FFF_FFFE, None).result())
        })
        .documented("WSA_INVALID_HANDLE"),
        case("close.result", "the result of one whose socket is closed", "the operation's", |_| {
            let socket = fresh()?;
            let event = Event::new()?;
            let operation = Operation::new(&[], 64, Some(&event));
            let number = number(&socket);
            operation.begin(number, Query::Records.code()).begun()?;
            signalled(event);
            calls::close(socket);
            let told = operation.result(number, false);
            let of_the_operation = told.is_ok() || told.error != carnet::winsock::WSAENOTSOCK;
            Ok(if of_the_operation { "the operation's".to_owned() } else { told.result() })
        })
        .documented("WSAENOTSOCK"),
        case("close.invalid", "closesocket() of what is no socket", "WSAENOTSOCK", |_| {
            Ok(calls::close_invalid().result())
        })
        .documented("WSAENOTSOCK"),
    ]
}

type Operations = Vec<(Operation, Event)>;

/// Enough that some are likely to wait for the others.
const COUNT: usize = 16;
/// Where operations are never seen to wait, it has to end all the same.
const ROUNDS: usize = 300;

fn begin(socket: SOCKET) -> Result<Operations, Stop> {
    let one = || {
        let event = Event::new()?;
        let operation = Operation::new(&[], 64, Some(&event));
        operation.begin(socket, Query::Records.code()).begun()?;
        Ok((operation, event))
    };
    (0..COUNT).map(|_| one()).collect()
}

fn until_some_are_aborted(end: fn(Socket) -> Result<Operations, Stop>) -> Answer {
    for _ in 0..ROUNDS {
        // The last round's calls are those that are reported.
        calls::take_told();
        let operations = end(fresh()?)?;
        match aborted(&operations) {
            Ok(0) => {}
            Ok(_) => return Ok("each ended; some were aborted".to_owned()),
            Err(otherwise) => return Ok(otherwise),
        }
        for (_, event) in operations {
            event.close();
        }
    }
    Ok("each ended; none was aborted".to_owned())
}

/// How many are, where each has ended. The status is looked at, for the socket may be closed by now, and asking for the
/// result may need it.
fn aborted(operations: &Operations) -> Result<usize, String> {
    let events: Vec<Event> = operations.iter().map(|(_, event)| *event).collect();
    calls::wait(&events, true, EVENT_PATIENCE, false);
    let events = events.into_iter().filter(|event| is_signalled(*event)).count();
    let statuses: Vec<u32> = operations.iter().map(|(operation, _)| operation.status()).collect();
    let is = |wanted: i32| statuses.iter().filter(|&&status| status == wanted.cast_unsigned()).count();
    let (pending, aborted) = (is(STATUS_PENDING), is(STATUS_CANCELLED));
    // All are asked the same, so what is not aborted has the same status.
    let mut others = statuses.clone();
    others.retain(|&status| status != STATUS_CANCELLED.cast_unsigned());
    others.dedup();
    if (events, pending) == (COUNT, 0) && others.len() <= 1 {
        return Ok(aborted);
    }
    let others: Vec<String> = others.iter().map(|status| format!("{status:#x}")).collect();
    Err(format!("{events} of {COUNT} events, {pending} pending; not aborted: {}", others.join(" ")))
}
