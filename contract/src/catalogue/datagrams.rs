//! UDP, which Carnet does not redirect: on Windows, the option by which a socket asks for control messages.

use crate::case::{Answer, Case};

pub fn cases() -> Vec<Case> {
    let never = "UDP is not redirected, so nothing could be told with a datagram";
    [
        ("records-v4", IPPROTO_IP, 60, "IP_WFP_REDIRECT_RECORDS"),
        ("context-v4", IPPROTO_IP, 70, "IP_WFP_REDIRECT_CONTEXT"),
        ("records-v6", IPPROTO_IPV6, 60, "IPV6_WFP_REDIRECT_RECORDS"),
        ("context-v6", IPPROTO_IPV6, 70, "IPV6_WFP_REDIRECT_CONTEXT"),
    ]
    .map(|(id, level, option, name)| {
        let about = format!("{name} switched on, and read");
        Case::new("datagrams", format!("datagram.{id}"), "R12, R13", about)
            .documented("ok; ok, 1")
            .never_on_linux(never)
            .ask(move |_| switched_on(level, option))
    })
    .into()
}

const IPPROTO_IP: i32 = 0;
const IPPROTO_IPV6: i32 = 41;

#[cfg(windows)]
fn switched_on(level: i32, option: i32) -> Answer {
    use std::net::UdpSocket;

    use crate::{calls::system, stage::number, words::error_name};

    let socket = UdpSocket::bind(if level == IPPROTO_IP { "127.0.0.1:0" } else { "[::1]:0" })?;
    let (set, got, value) = system::ask_for_ancillary_data(number(&socket), level, option);
    let words = |error| if error == 0 { "ok".to_owned() } else { error_name(error) };
    let value = if got == 0 { format!("ok, {value}") } else { words(got) };
    Ok(format!("{}; {value}", words(set)))
}

#[cfg(target_os = "linux")]
fn switched_on(_level: i32, _option: i32) -> Answer {
    Err(crate::case::Stop::NotRun("another option has this number".into()))
}
