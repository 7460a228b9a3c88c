//! What a process may do that is not elevated, and what a system answers that lacks the operations.

use carnet::winsock::SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS as SET;

use super::NOT_SUPPORTED;
use crate::{
    calls::{Buffer, Ioctl},
    case::{Case, Need},
    stage::{Pair, Query, fresh, number, whole},
};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("privilege", "privilege.set", "R9, SET errors", "SET by a process that is not elevated")
            .documented("WSAEACCES")
            .needs(Need::Record)
            .needs(Need::NotElevated)
            .linux("ok, bytes = 0")
            .ask(|stage| {
                let (socket, mut record) = (fresh()?, stage.answer(Query::Records)?);
                Ok(Ioctl { input: Buffer::of(&mut record), ..Ioctl::new(number(&socket), SET) }.call().words(None))
            }),
        Case::new("privilege", "privilege.set-elevated", "R9", "SET by a process that is elevated")
            .documented("ok")
            .needs(Need::Record)
            .needs(Need::Elevated)
            .linux("ok, bytes = 0")
            .ask(|stage| {
                let (socket, mut record) = (fresh()?, stage.answer(Query::Records)?);
                Ok(Ioctl { input: Buffer::of(&mut record), ..Ioctl::new(number(&socket), SET) }.call().words(None))
            }),
    ];
    for query in Query::BOTH {
        cases.push(
            Case::new(
                "privilege",
                format!("privilege.{}", query.name()),
                "R9",
                "a query by a process that is not elevated",
            )
            .documented("ok")
            .needs(query.need())
            .needs(Need::NotElevated)
            .linux("ok")
            .ask(move |stage| Ok(whole(stage.answering(query)?, query).1.result())),
        );
        cases.push(
            Case::new("privilege", format!("unsupported.{}", query.name()), "R1", "a query where nothing answers it")
                .documented("WSAEOPNOTSUPP")
                .needs(Need::NoEngine)
                .linux(NOT_SUPPORTED)
                .ask(move |_| Ok(whole(number(&Pair::new()?.accepted), query).1.words(None))),
        );
    }
    cases.push(
        Case::new("privilege", "unsupported.set", "R1", "SET where nothing takes it")
            .documented("WSAEOPNOTSUPP")
            .needs(Need::NoEngine)
            .linux(NOT_SUPPORTED)
            .ask(|_| {
                let (socket, mut record) = (fresh()?, [7; 528]);
                Ok(Ioctl { input: Buffer::of(&mut record), ..Ioctl::new(number(&socket), SET) }.call().words(None))
            }),
    );
    cases
}
