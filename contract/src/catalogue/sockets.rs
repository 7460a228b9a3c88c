//! The queries on everything that is not an accepted, redirected connection.

use std::{fs::File, io, net::TcpStream, time::Duration};

use carnet::winsock::{INVALID_SOCKET, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS as SET, SOCKET};
use socket2::SockRef;

use super::NOT_SUPPORTED;
use crate::{
    calls::{Buffer, Event, Ioctl},
    case::{Answer, Case, Need, Stop},
    stage::{LARGE, Pair, Query, Stage, fresh, handle, number, there, udp, whole},
};

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Query::BOTH.into_iter().flat_map(of_a_query).collect();
    cases.push(
        Case::new("sockets", "context.none", "R8", "redirected, and the filter gives no context")
            .needs(Need::NoContext)
            .linux("FWP_E_NOT_FOUND, bytes = 0")
            .ask(|stage| Ok(ask(there(&stage.without_context)?, Query::Context))),
    );
    cases.push(
        Case::new("sockets", "records.without-context", "R8", "redirected, and the filter gives no context")
            .documented("ok")
            .needs(Need::NoContext)
            .linux("ok")
            .ask(|stage| Ok(whole(there(&stage.without_context)?, Query::Records).1.result())),
    );
    for code in [Query::Records.code(), Query::Context.code(), SET] {
        cases.extend(not_sockets(code));
    }
    cases
}

fn of_a_query(query: Query) -> Vec<Case> {
    let case = |id: &str, rule, about: &str, linux: &str, ask: fn(&Stage, Query) -> Answer| {
        Case::new("sockets", format!("{}.socket.{id}", query.name()), rule, about)
            .linux(linux)
            .without_engine(if linux.starts_with("WSAENOPROTOOPT") { linux } else { NOT_SUPPORTED })
            .ask(move |stage| ask(stage, query))
    };
    let (no_record, not_connected) = ("WSAEINVAL, bytes = 0", "WSAENOTCONN, bytes = 0");
    let not_tcp = "WSAENOPROTOOPT, bytes = 0";
    vec![
        case("not-redirected", "R7", "accepted, and nobody has redirected it", no_record, |_, query| {
            Ok(ask(number(&Pair::new()?.accepted), query))
        }),
        case("lost", "R7", "accepted by the service's listener, without a record", no_record, |stage, query| {
            Ok(ask(there(&stage.lost)?, query))
        })
        .needs(Need::Lost),
        case("client", "R3, R7", "a client's, connected", no_record, |_, query| {
            Ok(ask(number(&Pair::new()?.client), query))
        }),
        case("outgoing", "R3, R7", "an outgoing one with a record set, connected", no_record, |stage, query| {
            let (pair, outgoing) = (Pair::new()?, fresh()?);
            set(stage, number(&outgoing))?;
            outgoing.connect(&pair.listener.local_addr()?.into())?;
            Ok(ask(number(&outgoing), query))
        })
        .needs(Need::Record),
        case(
            "outgoing-before",
            "query errors",
            "an outgoing one with a record set, before connect()",
            not_connected,
            |stage, query| {
                let outgoing = fresh()?;
                set(stage, number(&outgoing))?;
                Ok(ask(number(&outgoing), query))
            },
        )
        .documented("WSAENOTCONN")
        .needs(Need::Record),
        case("fresh", "query errors", "one that nothing was done with", not_connected, |_, query| {
            Ok(ask(number(&fresh()?), query))
        })
        .documented("WSAENOTCONN"),
        case("bound", "query errors", "one that is bound", not_connected, |_, query| {
            let socket = fresh()?;
            socket.bind(&ANY.into())?;
            Ok(ask(number(&socket), query))
        })
        .documented("WSAENOTCONN"),
        case("listener", "R3, query errors", "a listener", not_connected, |_, query| {
            Ok(ask(number(&Pair::new()?.listener), query))
        })
        .documented("WSAENOTCONN"),
        case(
            "service-listener",
            "R3, query errors",
            "the listener to which connections are redirected",
            not_connected,
            |stage, query| {
                let listener = stage.listener.as_ref().ok_or_else(|| Stop::NotRun("this is no service".into()))?;
                Ok(ask(number(listener), query))
            },
        )
        .documented("WSAENOTCONN"),
        case("reset", "query errors", "accepted, and the client has reset it", not_connected, |_, query| {
            let Pair { client, accepted, .. } = Pair::new()?;
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
            drop(client);
            wait_for_the_reset(&accepted)?;
            Ok(ask(number(&accepted), query))
        })
        .documented("WSAENOTCONN"),
        case("udp", "query errors", "a UDP socket", not_tcp, |_, query| Ok(ask(number(&udp()?), query)))
            .documented("WSAENOPROTOOPT"),
        case("udp-connected", "query errors", "a UDP socket, connected", not_tcp, |_, query| {
            let (socket, peer) = (udp()?, udp()?);
            socket.connect(peer.local_addr()?)?;
            Ok(ask(number(&socket), query))
        })
        .documented("WSAENOPROTOOPT"),
    ]
}

/// Everything that is no socket's number, for one of the three operations.
fn not_sockets(code: u32) -> Vec<Case> {
    let name = match code {
        SET => "set",
        code if code == Query::Records.code() => "records",
        _ => "context",
    };
    let case = |id: &str, about: &str, ask: fn(&dyn Fn(SOCKET) -> String) -> Answer| {
        Case::new("sockets", format!("{name}.no-socket.{id}"), "query errors, SET errors", about)
            .documented("WSAENOTSOCK")
            .linux("WSAENOTSOCK, bytes = 0")
            .ask(move |stage| {
                ask(&|socket| match code {
                    SET => {
                        let mut record = stage.record();
                        Ioctl { input: Buffer::of(&mut record), ..Ioctl::new(socket, code) }.call().words(None)
                    }
                    code => {
                        let mut bytes = vec![0; LARGE];
                        Ioctl { output: Buffer::of(&mut bytes), ..Ioctl::new(socket, code) }.call().words(None)
                    }
                })
            })
    };
    vec![
        case("closed", "a socket that is closed", |call| {
            let socket = fresh()?;
            let number = number(&socket);
            drop(socket);
            Ok(call(number))
        }),
        case("invalid", "INVALID_SOCKET", |call| Ok(call(INVALID_SOCKET))),
        case("number", "a number that was never one", |call| Ok(call(0x7FFF_FFFE))),
        case("pipe", "a pipe", |call| {
            let (reader, _writer) = io::pipe()?;
            Ok(call(handle(&reader)))
        }),
        case("file", "a file", |call| Ok(call(handle(&File::open(std::env::current_exe()?)?)))),
        case("event", "an event", |call| {
            let event = Event::new()?;
            let answer = call(event.number());
            event.close();
            Ok(answer)
        }),
    ]
}

fn ask(socket: SOCKET, query: Query) -> String {
    whole(socket, query).1.words(None)
}

/// As a service does it.
fn set(stage: &Stage, socket: SOCKET) -> Result<(), Stop> {
    let mut record = stage.answer(Query::Records)?;
    let told = Ioctl { input: Buffer::of(&mut record), ..Ioctl::new(socket, SET) }.call();
    if told.is_ok() { Ok(()) } else { Err(Stop::NotRun(format!("SET says {}", told.words(None)))) }
}

/// Some systems say once that the connection is at its end, and not that it was reset.
fn wait_for_the_reset(accepted: &TcpStream) -> io::Result<()> {
    accepted.set_read_timeout(Some(Duration::from_secs(10)))?;
    match io::Read::read(&mut &*accepted, &mut [0]) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        other => Err(io::Error::other(format!("a reset was to come, and there was {other:?}"))),
    }
}

const ANY: std::net::SocketAddrV4 = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0);
