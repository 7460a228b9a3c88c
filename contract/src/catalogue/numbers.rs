//! The numbers. Where windows-sys is there, the library does not even build with others.

use carnet::{State, winsock as ws};

use crate::{calls::system, case::Case};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("numbers", "numbers.codes", "numbers", "RECORDS query, CONTEXT query, SET")
            .documented("0x980000dc 0x980000dd 0x980000de")
            .linux("0x980000dc 0x980000dd 0x980000de")
            .ask(|_| {
                let codes = [
                    ws::SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS,
                    ws::SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT,
                    ws::SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS,
                ];
                Ok(codes.map(|code| format!("{code:#x}")).join(" "))
            }),
        Case::new(
            "numbers",
            "numbers.ancillary",
            "R12, numbers",
            "records and context, at the level of IPv4 and of IPv6",
        )
        .documented("60 70 60 70")
        .linux("60 70 60 70")
        .ask(|_| {
            let types = [
                ws::IP_WFP_REDIRECT_RECORDS,
                ws::IP_WFP_REDIRECT_CONTEXT,
                ws::IPV6_WFP_REDIRECT_RECORDS,
                ws::IPV6_WFP_REDIRECT_CONTEXT,
            ];
            Ok(types.map(|number| number.to_string()).join(" "))
        }),
        Case::new("numbers", "numbers.states", "numbers", "the redirect states, from not redirected on")
            .documented("0 1 2 3")
            .linux("0 1 2 3")
            .ask(|_| {
                let states = [
                    State::NotRedirected,
                    State::RedirectedBySelf,
                    State::RedirectedByOther,
                    State::PreviouslyRedirectedBySelf,
                ];
                Ok(states.map(|state| (state as u32).to_string()).join(" "))
            }),
        Case::new("numbers", "numbers.original-destination", "numbers", "SO_ORIGINAL_DST")
            .documented("0x300f")
            .linux("0x50")
            .ask(|_| Ok(format!("{:#x}", system::ORIGINAL_DESTINATION))),
        Case::new("numbers", "numbers.overlapped", "R11, numbers", "size of OVERLAPPED, and where its event is")
            .documented("32 24")
            .linux("32 24")
            .ask(|_| Ok(format!("{} {}", size_of::<ws::OVERLAPPED>(), std::mem::offset_of!(ws::OVERLAPPED, hEvent)))),
    ]
}
