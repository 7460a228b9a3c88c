//! Words for kinds of sockets that no hook sees.

use std::borrow::Cow;

use nix::libc::{
    AF_INET, AF_INET6, IPPROTO_DCCP, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_RAW, IPPROTO_SCTP, IPPROTO_UDPLITE, SOCK_RAW,
};

use crate::run::flows::SocketKind;

/// `AF_*`: one word for programs, and in words for people.
pub(super) fn family(of: &SocketKind) -> (&'static str, &'static str) {
    match of.family.into() {
        AF_INET => ("ipv4", "IPv4"),
        AF_INET6 => ("ipv6", "IPv6"),
        _ => ("other", "other"),
    }
}

/// One word for programs, and in words for people.
pub(super) fn kind(of: &SocketKind) -> (&'static str, &'static str) {
    if i32::from(of.sock_type) == SOCK_RAW {
        return ("raw", "raw socket");
    }
    match of.protocol.cast_signed() {
        IPPROTO_ICMP | IPPROTO_ICMPV6 => ("ping", "ping socket"),
        IPPROTO_UDPLITE => ("udp-lite", "UDP-Lite socket"),
        IPPROTO_SCTP => ("sctp", "SCTP socket"),
        IPPROTO_DCCP => ("dccp", "DCCP socket"),
        IPPROTO_L2TP => ("l2tp", "L2TP socket"),
        IPPROTO_SMC => ("smc", "SMC socket"),
        _ => ("other", "socket of a rare kind"),
    }
}

/// `IPPROTO_*` by its number, and by its name where a raw socket's users know it by that.
pub(super) fn protocol(of: &SocketKind) -> Cow<'static, str> {
    let number = of.protocol;
    match number.cast_signed() {
        IPPROTO_ICMP => "protocol 1, ICMP".into(),
        IPPROTO_ICMPV6 => "protocol 58, ICMPv6".into(),
        IPPROTO_RAW => "protocol 255, any".into(),
        _ => format!("protocol {number}").into(),
    }
}

/// What has these words.
pub fn kind_of(family: &str, kind: &str, protocol: u32) -> SocketKind {
    let family = match family {
        "ipv4" => AF_INET,
        "ipv6" => AF_INET6,
        _ => 0,
    };
    // Those that are not raw are told apart by their protocols.
    let sock_type = if kind == "raw" { SOCK_RAW } else { 0 };
    SocketKind { family: family as u16, sock_type: sock_type as u16, protocol }
}

/// Not in libc.
const IPPROTO_L2TP: i32 = 115;
const IPPROTO_SMC: i32 = 256;
