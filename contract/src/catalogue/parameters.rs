//! Codes, and pointers that are null or lead nowhere.

use carnet::winsock::{self as ws, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS as SET};

use super::NOT_SUPPORTED;
use crate::{
    calls::{Buffer, Ioctl, Returned},
    case::{Answer, Case},
    stage::{LARGE, Pair, Query, Stage, fresh, number},
};

pub fn cases() -> Vec<Case> {
    let mut cases = codes();
    for query in Query::BOTH {
        cases.extend(of_a_query(query));
    }
    cases.extend(of_set());
    cases.extend(order());
    cases
}

fn codes() -> Vec<Case> {
    [
        ("code.neighbour", 0x9800_00DF, "the code after SET's"),
        ("code.other-direction", 0x4800_00DC, "a wrong number for RECORDS that is about"),
        ("code.other-direction-set", 0x8800_00DE, "a wrong number for SET that is about"),
        ("code.zero", 0, "no code"),
    ]
    .map(|(id, code, about)| {
        Case::new("parameters", id, "R1, query errors", about)
            .documented("WSAEOPNOTSUPP")
            .documented("WSAEINVAL")
            .linux(NOT_SUPPORTED)
            .ask(move |_| Ok(Ioctl::new(number(&Pair::new()?.accepted), code).call().words(None)))
    })
    .into()
}

/// A case about this query on a redirected connection, whose answer has so many bytes.
fn asked(
    query: Query,
    id: &str,
    rule: &'static str,
    about: &str,
    ask: impl Fn(&Stage, usize) -> Answer + Send + Sync + 'static,
) -> Case {
    Case::new("parameters", format!("{}.{id}", query.name()), rule, about)
        .needs(query.need())
        .ask(move |stage| ask(stage, stage.size(query)?))
}

fn of_a_query(query: Query) -> Vec<Case> {
    let call = move |stage: &Stage| Ok::<_, crate::case::Stop>(Ioctl::new(stage.answering(query)?, query.code()));
    let fault = "WSAEFAULT, bytes = 0";
    vec![
        asked(query, "input.pointer-0", "R2", "an input pointer, and no length: unused", move |stage, size| {
            let (mut input, mut output) = ([1; 16], vec![0; size]);
            let input = Buffer::with_length(&mut input, 0);
            let told = Ioctl { input, output: Buffer::of(&mut output), ..call(stage)? }.call();
            Ok(told.words(Some(size)))
        })
        .documented("ok")
        .linux("ok, bytes = size"),
        asked(query, "input.length", "R2", "16 bytes of input, which is said to be unused", move |stage, size| {
            let (mut input, mut output) = ([1; 16], vec![0; size]);
            let told = Ioctl { input: Buffer::of(&mut input), output: Buffer::of(&mut output), ..call(stage)? }.call();
            Ok(told.words(Some(size)))
        })
        .documented("ok")
        .linux("WSAEINVAL, bytes = 0"),
        asked(query, "input.null-with-length", "R2", "input null, and a length", move |stage, size| {
            let mut output = vec![0; size];
            let told = Ioctl { input: Buffer::null(16), output: Buffer::of(&mut output), ..call(stage)? }.call();
            Ok(told.words(Some(size)))
        })
        .documented("ok")
        .linux("WSAEINVAL, bytes = 0"),
        asked(query, "output.null-with-length", "query errors", "output null, and a length", move |stage, size| {
            Ok(Ioctl { output: Buffer::null(LARGE as u32), ..call(stage)? }.call().words(Some(size)))
        })
        .documented("WSAEFAULT")
        .linux(fault),
        asked(query, "output.nowhere", "query errors", "an output that may not be touched", move |stage, size| {
            let output = Buffer::at_the_edge(&stage.pages, 0, size);
            Ok(Ioctl { output, ..call(stage)? }.call().words(Some(size)))
        })
        .documented("WSAEFAULT")
        .linux(fault),
        asked(query, "output.read-only", "query errors", "an output that may be read only", move |stage, size| {
            let output = Buffer::read_only(&stage.pages, size);
            Ok(Ioctl { output, ..call(stage)? }.call().words(Some(size)))
        })
        .documented("WSAEFAULT")
        .linux(fault),
        asked(
            query,
            "output.partly",
            "query errors",
            "an output whose last byte may not be touched",
            move |stage, size| {
                let output = Buffer::at_the_edge(&stage.pages, size - 1, size);
                Ok(Ioctl { output, ..call(stage)? }.call().words(Some(size)))
            },
        )
        .documented("WSAEFAULT")
        .linux(fault),
        asked(
            query,
            "output.lie",
            "query errors",
            "room for the answer, and a length that leads into memory which may not be touched",
            move |stage, size| {
                let output = Buffer::at_the_edge(&stage.pages, size, size + 4096);
                Ok(Ioctl { output, ..call(stage)? }.call().words(Some(size)))
            },
        )
        .documented("WSAEFAULT")
        .linux("ok, bytes = size"),
        returned(query.name(), query.code(), "null", "nowhere to tell the bytes returned", |_| Returned::Null),
        returned(query.name(), query.code(), "nowhere", "bytes returned, at an address not to be touched", |stage| {
            Returned::At(Buffer::at_the_edge(&stage.pages, 0, 4))
        }),
        returned(query.name(), query.code(), "read-only", "bytes returned, at an address to be read only", |stage| {
            Returned::At(Buffer::read_only(&stage.pages, 4))
        }),
    ]
}

fn of_set() -> Vec<Case> {
    vec![
        returned("set", SET, "null", "nowhere to tell the bytes returned", |_| Returned::Null),
        returned("set", SET, "nowhere", "bytes returned, at an address not to be touched", |stage| {
            Returned::At(Buffer::at_the_edge(&stage.pages, 0, 4))
        }),
        returned("set", SET, "read-only", "bytes returned, at an address to be read only", |stage| {
            Returned::At(Buffer::read_only(&stage.pages, 4))
        }),
    ]
}

/// On whatever socket the call would succeed on, if there is one.
fn returned(
    name: &str,
    code: u32,
    id: &str,
    about: &str,
    at: impl for<'a> Fn(&'a Stage) -> Returned<'a> + Send + Sync + 'static,
) -> Case {
    Case::new("parameters", format!("{name}.returned.{id}"), "query errors, SET errors", about)
        .documented("WSAEFAULT")
        .linux("WSAEFAULT")
        .ask(move |stage| {
            let (pair, outgoing) = (Pair::new()?, fresh()?);
            let mut bytes = if code == SET { stage.record() } else { vec![0; LARGE] };
            let buffer = Buffer::of(&mut bytes);
            let nothing = Buffer::null(0);
            let ordinary = number(&pair.accepted);
            let (socket, input, output) = match code {
                SET => (number(&outgoing), buffer, nothing),
                _ => (stage.redirected().unwrap_or(ordinary), nothing, buffer),
            };
            Ok(Ioctl { socket, code, input, output, returned: at(stage) }.call().words(None))
        })
}

/// Which of two mistakes is told.
fn order() -> Vec<Case> {
    let records = Query::Records.code();
    vec![
        Case::new("parameters", "order.returned-before-code", "R2", "null for the bytes returned, and an unknown code")
            .linux("WSAEFAULT")
            .ask(move |_| {
                let pair = Pair::new()?;
                Ok(Ioctl { returned: Returned::Null, ..Ioctl::new(number(&pair.accepted), 0) }.call().words(None))
            }),
        Case::new("parameters", "order.code-before-socket", "R2", "an unknown code, and no socket")
            .linux(NOT_SUPPORTED)
            .ask(|_| Ok(Ioctl::new(ws::INVALID_SOCKET, 0).call().words(None))),
        Case::new("parameters", "order.socket-before-output", "R2", "no socket, and output null with a length")
            .linux("WSAENOTSOCK, bytes = 0")
            .ask(move |_| {
                let call = Ioctl { output: Buffer::null(16), ..Ioctl::new(ws::INVALID_SOCKET, records) };
                Ok(call.call().words(None))
            }),
        Case::new("parameters", "order.output-before-state", "R2", "output null with a length, and not connected")
            .linux("WSAEFAULT, bytes = 0")
            .ask(move |_| {
                let socket = fresh()?;
                Ok(Ioctl { output: Buffer::null(16), ..Ioctl::new(number(&socket), records) }.call().words(None))
            }),
    ]
}
