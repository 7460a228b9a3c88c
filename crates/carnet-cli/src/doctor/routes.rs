//! Whether there is a way out, and loopback.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::doctor::finding::{Finding, Id};
use crate::doctor::report::Report;

/// Both families.
pub fn look(report: &mut Report) {
    loopback(report);
    let mut ways = Vec::new();
    let four = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let six = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    for (family, id, default, outside) in [
        ("IPv4", Id::Ipv4NoRoute, default_of_ipv4(&four), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        ("IPv6", Id::Ipv6NoRoute, default_of_ipv6(&six), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
    ] {
        // The main table may have no default where another one has: rules by mark or by source. The kernel's word is final.
        match (default, routed(outside)) {
            (Some(interface), _) => ways.push(format!("{family} by {interface}")),
            (None, Ok(())) => ways.push(format!("{family} by a table other than main")),
            (None, Err(error)) => report.add(
                Finding::note(
                    id,
                    format!(
                        "{family} has no default route: connections to destinations without a route fail at connect(), as they \
                         do without Carnet ({error})"
                    ),
                    format!("Nothing, unless {family} should work here: then look at ip {} route", flag(family)),
                )
                .with("family", family.to_ascii_lowercase()),
            ),
        }
    }
    if !ways.is_empty() {
        report.add(Finding::ok(Id::Routes, format!("there is a default route for {}", ways.join(" and "))));
    }
}

fn flag(family: &str) -> &'static str {
    if family == "IPv6" { "-6" } else { "-4" }
}

/// Redirected connections go over loopback. Listening there says nothing: where loopback has never been up, the kernel
/// lets bind() have any address.
fn loopback(report: &mut Report) {
    for (id, address) in
        [(Id::Ipv4NoLoopback, IpAddr::V4(Ipv4Addr::LOCALHOST)), (Id::Ipv6NoLoopback, IpAddr::V6(Ipv6Addr::LOCALHOST))]
    {
        let Err(error) = routed(address) else { continue };
        report.add(if address.is_ipv4() {
            Finding::problem(
                id,
                format!("{address} cannot be reached ({error}), so nothing can be redirected to a service"),
                "ip link set lo up",
            )
        } else {
            Finding::note(
                id,
                format!("{address} cannot be reached ({error}): services get IPv4 connections only"),
                "Nothing where IPv6 is off. Else: ip link set lo up, and sysctl -w net.ipv6.conf.lo.disable_ipv6=0",
            )
        });
    }
}

/// Whether the kernel knows a way. Connecting a UDP socket looks it up and sends nothing.
fn routed(to: IpAddr) -> io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind(SocketAddr::new(any, 0))?.connect(SocketAddr::new(to, DISCARD))
}

/// Interface of the main table's default route.
fn default_of_ipv4(table: &str) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [interface, destination, _, flags, _, _, _, mask, ..] = fields[..] else { return None };
        let is_default = destination == "00000000" && mask == "00000000";
        (is_default && !is_reject(flags)).then_some(interface)
    })
}

fn default_of_ipv6(table: &str) -> Option<&str> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, length, _, _, _, _, _, _, flags, interface, ..] = fields[..] else { return None };
        let is_default = length == "00" && destination.bytes().all(|digit| digit == b'0');
        (is_default && !is_reject(flags) && interface != "lo").then_some(interface)
    })
}

fn is_reject(flags: &str) -> bool {
    const RTF_REJECT: u32 = 0x200;
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & RTF_REJECT != 0)
}

/// A port on which nobody minds.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IPV4: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn the_default_route_is_found_among_others() {
        assert_eq!(default_of_ipv4(IPV4), None);
        let with_default = format!("{IPV4}wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n");
        assert_eq!(default_of_ipv4(&with_default), Some("wlan0"));
        let refused = format!("{IPV4}*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n");
        assert_eq!(default_of_ipv4(&refused), None);
    }

    #[test]
    fn the_kernels_own_refusal_is_no_route() {
        let line = |flags: &str, interface: &str| {
            let zeros = "0".repeat(32);
            format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 {flags} {interface}\n")
        };
        assert_eq!(default_of_ipv6(&line("00200200", "lo")), None);
        assert_eq!(default_of_ipv6(&line("00000003", "eth0")), Some("eth0"));
    }

    proptest! {
        #[test]
        fn any_table_is_read(text in "([0-9a-f*\t ]|00000000|\n){0,80}") {
            default_of_ipv4(&text);
            default_of_ipv6(&text);
        }
    }
}
