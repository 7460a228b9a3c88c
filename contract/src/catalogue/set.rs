//! SET: on which socket, when, which blobs, and what is not to be given.

use std::net::{Ipv4Addr, SocketAddrV4};

use carnet::winsock::{SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS as SET, SOCKET};

use super::NOT_SUPPORTED;
use crate::{
    calls::{Buffer, Ioctl, Told},
    case::{Answer, Case, Need},
    stage::{LARGE, Pair, Query, Stage, fresh, number, there, udp},
};

pub fn cases() -> Vec<Case> {
    let mut cases = sockets();
    cases.extend(blobs());
    cases.extend(parameters());
    cases
}

/// On a socket of every kind, with a record that is good.
fn sockets() -> Vec<Case> {
    let case = |id: &str, rule, about: &str, linux: &str, ask: fn(&[u8]) -> Answer| {
        Case::new("set", format!("set.{id}"), rule, about)
            .needs(Need::Record)
            .linux(linux)
            .ask(move |stage| ask(&stage.answer(Query::Records)?))
    };
    let ok = "ok, bytes = 0";
    vec![
        case("fresh", "R6, R9, R10", "a new socket, before bind() and connect()", ok, |record| {
            Ok(set(number(&fresh()?), record).words(None))
        })
        .documented("ok"),
        case("then-connect", "R10", "SET, then connect()", "ok, bytes = 0; connected", |record| {
            let (pair, socket) = (Pair::new()?, fresh()?);
            let told = set(number(&socket), record);
            socket.connect(&pair.listener.local_addr()?.into())?;
            Ok(format!("{}; connected", told.words(None)))
        })
        .documented("ok, bytes = 0; connected"),
        case("twice", "R10", "a second SET on the same socket", ok, |record| {
            let socket = fresh()?;
            set(number(&socket), record);
            Ok(set(number(&socket), record).words(None))
        }),
        case("many", "R10", "the same blob on a second socket", ok, |record| {
            let (one, other) = (fresh()?, fresh()?);
            set(number(&one), record);
            Ok(set(number(&other), record).words(None))
        }),
        case("bound", "R10", "after bind()", ok, |record| {
            let socket = fresh()?;
            socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())?;
            Ok(set(number(&socket), record).words(None))
        }),
        case("after-connect", "R10", "after connect()", "WSAEISCONN, bytes = 0", |record| {
            Ok(set(number(&Pair::new()?.client), record).words(None))
        }),
        case("set-connect-set", "R10", "SET, connect(), SET", "WSAEISCONN, bytes = 0", |record| {
            let (pair, socket) = (Pair::new()?, fresh()?);
            set(number(&socket), record);
            socket.connect(&pair.listener.local_addr()?.into())?;
            Ok(set(number(&socket), record).words(None))
        }),
        case("accepted", "R10", "an accepted socket that nobody has redirected", "WSAEISCONN, bytes = 0", |record| {
            Ok(set(number(&Pair::new()?.accepted), record).words(None))
        }),
        case("listener", "SET errors", "a listener", "WSAEINVAL, bytes = 0", |record| {
            Ok(set(number(&Pair::new()?.listener), record).words(None))
        })
        .documented("WSAEINVAL"),
        case("udp", "SET errors", "a UDP socket", "WSAEINVAL, bytes = 0", |record| {
            Ok(set(number(&udp()?), record).words(None))
        })
        .documented("WSAEINVAL"),
        Case::new("set", "set.accepted-redirected", "R10", "the accepted socket which the record was read from")
            .needs(Need::Record)
            .linux("WSAEISCONN, bytes = 0")
            .ask(|stage| Ok(set(stage.redirected()?, &stage.answer(Query::Records)?).words(None))),
        Case::new("set", "set.accepted-lost", "R10", "an accepted socket whose context is lost")
            .needs(Need::Record)
            .needs(Need::Lost)
            .linux("WSAEISCONN, bytes = 0")
            .ask(|stage| Ok(set(there(&stage.lost)?, &stage.answer(Query::Records)?).words(None))),
        Case::new("set", "set.others-record", "R9", "a record which the newest redirect gave to another service")
            .needs(Need::OthersRecord)
            .linux("WSAEACCES, bytes = 0")
            .ask(|stage| Ok(set(number(&fresh()?), stage.others_record.as_deref().unwrap_or(&[])).words(None))),
    ]
}

/// Bytes that are no record.
fn blobs() -> Vec<Case> {
    let case = |id: &str, about: &str, change: fn(&mut Vec<u8>)| {
        Case::new("set", format!("set.blob.{id}"), "R6, SET errors", about)
            .documented("WSAEINVAL")
            .needs(Need::Record)
            .linux("WSAEINVAL, bytes = 0")
            .ask(move |stage| {
                let mut record = stage.answer(Query::Records)?;
                change(&mut record);
                Ok(set(number(&fresh()?), &record).words(None))
            })
    };
    vec![
        case("truncated", "the last byte is missing", |record| record.truncate(record.len() - 1)),
        case("one-byte", "the first byte alone", |record| record.truncate(1)),
        case("half", "the first half", |record| record.truncate(record.len() / 2)),
        case("extended", "a byte more", |record| record.push(0)),
        case("first-bit", "the lowest bit of the first byte is another", |record| record[0] ^= 1),
        case("middle-bit", "a bit in the middle is another", |record| {
            let middle = record.len() / 2;
            record[middle] ^= 1;
        }),
        case("last-bit", "a bit of the last byte is another", |record| {
            record.last_mut().iter_mut().for_each(|byte| **byte ^= 1);
        }),
        case("zeros", "zeros, as many as a record has bytes", |record| record.fill(0)),
        case("64k", "64 KiB that begin with a record", |record| record.resize(LARGE, 0)),
        Case::new("set", "set.blob.context", "R6, SET errors", "the context, taken for the record")
            .documented("WSAEINVAL")
            .needs(Need::Context)
            .linux("WSAEINVAL, bytes = 0")
            .ask(|stage| Ok(set(number(&fresh()?), &stage.answer(Query::Context)?).words(None))),
        Case::new("set", "set.blob.made-up", "R6, SET errors", "528 bytes which nobody gave")
            .documented("WSAEINVAL")
            .linux("WSAEINVAL, bytes = 0")
            .without_engine(NOT_SUPPORTED)
            .ask(|_| Ok(set(number(&fresh()?), &[7; 528]).words(None))),
    ]
}

/// The call's arguments.
fn parameters() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str, ask: fn(&Stage, SOCKET) -> Answer| {
        Case::new("set", format!("set.{id}"), "R6, SET errors", about)
            .linux(linux)
            .ask(move |stage| ask(stage, number(&fresh()?)))
    };
    let (invalid, fault) = ("WSAEINVAL, bytes = 0", "WSAEFAULT, bytes = 0");
    vec![
        case("input.null-0", "input null, its length 0", invalid, |_, socket| {
            Ok(Ioctl::new(socket, SET).call().words(None))
        })
        .documented("WSAEINVAL"),
        case("input.0", "a record, and a length of 0", invalid, |stage, socket| {
            let input = &mut stage.record();
            Ok(Ioctl { input: Buffer::with_length(input, 0), ..Ioctl::new(socket, SET) }.call().words(None))
        })
        .documented("WSAEINVAL"),
        case("input.null-with-length", "input null, and a record's length", fault, |_, socket| {
            Ok(Ioctl { input: Buffer::null(528), ..Ioctl::new(socket, SET) }.call().words(None))
        })
        .documented("WSAEFAULT"),
        case("input.nowhere", "input that may not be touched", fault, |stage, socket| {
            let input = Buffer::at_the_edge(&stage.pages, 0, 528);
            Ok(Ioctl { input, ..Ioctl::new(socket, SET) }.call().words(None))
        })
        .documented("WSAEFAULT"),
        case("input.partly", "input whose last byte may not be touched", fault, |stage, socket| {
            let input = Buffer::at_the_edge(&stage.pages, 527, 528);
            Ok(Ioctl { input, ..Ioctl::new(socket, SET) }.call().words(None))
        })
        .documented("WSAEFAULT"),
        case("output.length", "16 bytes of output, which must be none", invalid, |stage, socket| {
            let (mut record, mut output) = (stage.record(), [0; 16]);
            let (input, output) = (Buffer::of(&mut record), Buffer::of(&mut output));
            Ok(Ioctl { input, output, ..Ioctl::new(socket, SET) }.call().words(None))
        })
        .documented("WSAEINVAL"),
        case("output.null-with-length", "output null, and a length", invalid, |stage, socket| {
            let mut record = stage.record();
            let (input, output) = (Buffer::of(&mut record), Buffer::null(16));
            Ok(Ioctl { input, output, ..Ioctl::new(socket, SET) }.call().words(None))
        })
        .documented("WSAEINVAL")
        .documented("WSAEFAULT"),
        case("output.pointer-0", "an output pointer, and no length: unused", "ok, bytes = 0", |stage, socket| {
            let (mut record, mut output) = (stage.record(), [0; 16]);
            let (input, output) = (Buffer::of(&mut record), Buffer::with_length(&mut output, 0));
            Ok(Ioctl { input, output, ..Ioctl::new(socket, SET) }.call().words(None))
        })
        .needs(Need::Record)
        .documented("ok"),
    ]
}

fn set(socket: SOCKET, record: &[u8]) -> Told {
    let mut record = record.to_vec();
    Ioctl { input: Buffer::of(&mut record), ..Ioctl::new(socket, SET) }.call()
}
