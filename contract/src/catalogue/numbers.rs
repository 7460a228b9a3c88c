//! The numbers. Where windows-sys is there, the library does not even build with others.

use carnet::winsock as ws;

use crate::case::Case;

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
        Case::new("numbers", "numbers.overlapped", "R11, numbers", "size of OVERLAPPED, and where its event is")
            .documented("32 24")
            .linux("32 24")
            .ask(|_| Ok(format!("{} {}", size_of::<ws::OVERLAPPED>(), std::mem::offset_of!(ws::OVERLAPPED, hEvent)))),
    ]
}
