//! Each query with buffers of every size. What lies behind the bytes returned stays as it was.

use crate::{
    calls::{Buffer, FILL, Ioctl},
    case::{Answer, Case, Need, Stop},
    stage::{LARGE, Query, Stage},
};

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Query::BOTH.into_iter().flat_map(of_a_query).collect();
    cases.extend([
        users(Query::Records, &[8192, 4096, 2048, 1024], "sizes which users of the call pass: 8192, 4096, 2048, 1024"),
        users(Query::Context, &[512, 256, 128], "sizes which users of the call pass: 512, 256, 128"),
        Case::new("sizes", "records.size.doubling", "R16", "from 256 bytes on, doubled until it is enough")
            .needs(Need::Record)
            .linux("ERROR_INSUFFICIENT_BUFFER, bytes = size; ok, bytes = size")
            .ask(doubling),
        Case::new("sizes", "records.size.of-one-hop", "R16", "whether a record of one hop has at most 1 KiB")
            .documented("yes")
            .needs(Need::Record)
            .linux("yes")
            .ask(|stage| Ok(if stage.size(Query::Records)? <= 1024 { "yes" } else { "no" }.to_owned())),
        Case::new("sizes", "records.repeat", "R5", "asked twice")
            .needs(Need::Record)
            .linux("same length, other bytes")
            .ask(|stage| repeat(stage, Query::Records)),
        Case::new("sizes", "context.repeat", "R5", "asked twice")
            .needs(Need::Context)
            .linux("same bytes")
            .ask(|stage| repeat(stage, Query::Context)),
        Case::new("sizes", "context.bytes", "R2", "exactly what the filter gave")
            .documented("same bytes")
            .needs(Need::Context)
            .needs(Need::KnownContext)
            .linux("same bytes")
            .ask(|stage| Ok(compare(&stage.answer(Query::Context)?, stage.known_context.as_deref().unwrap_or(&[])))),
    ]);
    cases
}

/// How large a buffer is.
#[derive(Clone, Copy)]
enum Room {
    Null,
    Bytes(usize),
    /// More, or less, than the answer has.
    Size(isize),
}

fn of_a_query(query: Query) -> Vec<Case> {
    let too_small = "ERROR_INSUFFICIENT_BUFFER, bytes = size";
    [
        ("null-0", Room::Null, "no buffer, its size 0: the question for the size"),
        ("0", Room::Bytes(0), "a buffer, its size 0"),
        ("1", Room::Bytes(1), "1 byte"),
        ("3", Room::Bytes(3), "3 bytes: less than a ULONG"),
        ("4", Room::Bytes(4), "4 bytes: a ULONG"),
        ("less-by-1", Room::Size(-1), "1 byte less than the answer"),
        ("exact", Room::Size(0), "as many bytes as the answer"),
        ("more-by-1", Room::Size(1), "1 byte more"),
        ("64k", Room::Bytes(LARGE), "64 KiB"),
    ]
    .map(|(id, room, about)| {
        let case = Case::new("sizes", format!("{}.size.{id}", query.name()), "R4", about)
            .needs(query.need())
            .ask(move |stage| with_room(stage, query, room));
        match room {
            Room::Size(0..) | Room::Bytes(LARGE) => case.documented("ok").linux("ok, bytes = size"),
            _ => case.documented(too_small).documented("WSAEINVAL, bytes = 0").linux(too_small),
        }
    })
    .into()
}

fn with_room(stage: &Stage, query: Query, room: Room) -> Answer {
    let socket = stage.answering(query)?;
    let size = stage.size(query)?;
    let length = match room {
        Room::Null => return Ok(Ioctl::new(socket, query.code()).call().words(Some(size))),
        Room::Bytes(LARGE) => LARGE,
        Room::Bytes(length) if length >= size => return Err(Stop::NotRun(format!("the answer has {size} bytes only"))),
        Room::Bytes(length) => length,
        Room::Size(more) => size.saturating_add_signed(more),
    };
    // More than the system is told of.
    let mut bytes = vec![FILL; length + 64];
    let output = Buffer::with_length(&mut bytes, length);
    let told = Ioctl { output, ..Ioctl::new(socket, query.code()) }.call();
    let written = if told.is_ok() { size } else { 0 };
    let rest = if bytes[written..].iter().all(|&byte| byte == FILL) { "" } else { "; bytes behind it are changed" };
    Ok(told.words(Some(size)) + rest)
}

fn users(query: Query, rooms: &'static [usize], about: &str) -> Case {
    Case::new("sizes", format!("{}.size.users", query.name()), "R16", about)
        .documented("ok")
        .needs(query.need())
        .linux("ok")
        .ask(move |stage| {
            let (socket, size) = (stage.answering(query)?, stage.size(query)?);
            for &room in rooms {
                if size > room {
                    return Err(Stop::NotRun(format!("the answer has {size} bytes")));
                }
                let mut bytes = vec![0; room];
                let told = Ioctl { output: Buffer::of(&mut bytes), ..Ioctl::new(socket, query.code()) }.call();
                if told.words(Some(size)) != "ok, bytes = size" {
                    return Ok(format!("{room} bytes: {}", told.words(Some(size))));
                }
            }
            Ok("ok".to_owned())
        })
}

fn doubling(stage: &Stage) -> Answer {
    let (socket, size) = (stage.redirected()?, stage.size(Query::Records)?);
    let mut answers = Vec::new();
    let mut room = 256;
    while room <= LARGE {
        let mut bytes = vec![0; room];
        let told = Ioctl { output: Buffer::of(&mut bytes), ..Ioctl::new(socket, Query::Records.code()) }.call();
        answers.push(told.words(Some(size)));
        if told.is_ok() {
            break;
        }
        room *= 2;
    }
    answers.dedup();
    Ok(answers.join("; "))
}

fn repeat(stage: &Stage, query: Query) -> Answer {
    Ok(compare(&stage.answer(query)?, &stage.answer(query)?))
}

fn compare(one: &[u8], other: &[u8]) -> String {
    if one == other {
        "same bytes"
    } else if one.len() == other.len() {
        "same length, other bytes"
    } else {
        "another length"
    }
    .to_owned()
}
