//! Ranges of numbers, and what is written as such: ports, users, prefixes of addresses.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use super::{read::Wrong, source::shown};

/// Ranges that are sorted and apart, so that a lookup takes the logarithm of how many there are.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Ranges<T>(Box<[(T, T)]>);

/// Prefixes of addresses. An IPv4 address and its mapped form are one.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Prefixes {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl<T: Copy + Ord> Ranges<T> {
    pub(super) fn of(ranges: impl IntoIterator<Item = RangeInclusive<T>>) -> Self {
        let mut sorted: Vec<(T, T)> = ranges.into_iter().map(RangeInclusive::into_inner).collect();
        sorted.sort_unstable();
        sorted.dedup_by(|next, last| {
            let overlap = next.0 <= last.1;
            last.1 = if overlap { last.1.max(next.1) } else { last.1 };
            overlap
        });
        Self(sorted.into())
    }

    pub(super) fn contain(&self, value: T) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= value);
        behind.checked_sub(1).is_some_and(|at| value <= self.0[at].1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Prefixes {
    pub(super) fn of(prefixes: &[(IpAddr, u8)]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for &(address, length) in prefixes {
            match (address, address.to_canonical()) {
                (IpAddr::V4(first), _) => v4.push(first.to_bits()..=first.to_bits() | below_v4(length)),
                (IpAddr::V6(_), IpAddr::V4(first)) if length >= MAPPED => {
                    v4.push(first.to_bits()..=first.to_bits() | below_v4(length - MAPPED));
                }
                (IpAddr::V6(first), _) => v6.push(first.to_bits()..=first.to_bits() | below_v6(length)),
            }
        }
        Self { v4: Ranges::of(v4), v6: Ranges::of(v6) }
    }

    pub(super) fn contain(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contain(address.to_bits()),
            IpAddr::V6(address) => self.v6.contain(address.to_bits()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// `443` or `8000-8999`.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    range(text, "a port", "443 or \"8000-8999\"; ports go up to 65535")
}

/// A number or two with a dash between them, the lower one first.
pub(super) fn range<T>(text: &str, what: &str, example: &str) -> Result<RangeInclusive<T>, Wrong>
where
    T: Copy + Display + FromStr + PartialOrd,
{
    let number = |text: &str| text.trim().parse::<T>().ok().filter(|_| !text.trim().starts_with('+'));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(first), Some(last)) => {
            Err((format!("{first}-{last} begins after its end"), format!("write \"{last}-{first}\"")))
        }
        _ => Err((format!("{:?} is not {what}, and no range", shown(text)), format!("write {example}"))),
    }
}

/// `192.0.2.7`, `10.0.0.0/8` or `2001:db8::/32`.
pub(super) fn prefix(text: &str) -> Result<(IpAddr, u8), Wrong> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else { return Err(no_address(text)) };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let Some(length) = length else { return Ok((address, longest)) };
    // `+8` parses.
    let bits = length.parse::<u8>().ok().filter(|bits| *bits <= longest && !length.starts_with('+'));
    let Some(bits) = bits else {
        let what = format!("{:?} is no length of a prefix: {address} has {longest} bits", shown(length));
        return Err((what, format!("write a number from 0 to {longest} behind the slash")));
    };
    let first: IpAddr = match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & !below_v4(bits)).into()),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !below_v6(bits))),
    };
    if first != address {
        let what = format!("{address}/{bits} has bits behind its length");
        return Err((what, format!("write \"{first}/{bits}\", or \"{address}\" for the one address")));
    }
    Ok((address, bits))
}

fn no_address(text: &str) -> Wrong {
    let example = "write an address such as \"192.0.2.7\", or a prefix such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
    let action = if text.contains('%') {
        "leave the interface out: a destination is an address alone".to_owned()
    } else if text.starts_with('[') || text.parse::<std::net::SocketAddr>().is_ok() {
        format!("{example}; ports have a key of their own, ports")
    } else if text.bytes().any(|byte| byte.is_ascii_alphabetic()) && !text.contains([':', '/', '*']) {
        format!("{example}; names have a key of their own, name")
    } else {
        example.to_owned()
    };
    (format!("{:?} is no address and no prefix", shown(text)), action)
}

/// The bits that a prefix leaves open.
fn below_v4(length: u8) -> u32 {
    u32::MAX.checked_shr(length.into()).unwrap_or(0)
}

fn below_v6(length: u8) -> u128 {
    u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

/// Bits before an IPv4 address in its mapped form.
const MAPPED: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_in_ranges_that_overlap() {
        let ranges = Ranges::of([5..=9_u16, 1..=2, 8..=12, 20..=20]);
        let inside: Vec<u16> = (0..30).filter(|value| ranges.contain(*value)).collect();
        assert_eq!(inside, [1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 20]);
        assert!(!Ranges::of([]).contain(0_u32) && Ranges::of([0..=u128::MAX]).contain(u128::MAX));
    }

    #[test]
    fn an_address_is_in_a_prefix_in_either_form() {
        let prefixes: Vec<_> = ["10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.0/120", "198.51.100.7"]
            .map(|text| prefix(text).unwrap())
            .into();
        let prefixes = Prefixes::of(&prefixes);
        for (address, is_in) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("11.0.0.0", false),
            ("192.0.2.200", true),
            ("192.0.3.0", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("2001:db8:ffff::", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(prefixes.contain(address.parse().unwrap()), is_in, "{address}");
        }
        let all_of_v6 = Prefixes::of(&[prefix("::/0").unwrap()]);
        assert!(all_of_v6.contain("::1".parse().unwrap()) && !all_of_v6.contain("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_prefix_is_told_with_what_would_be_one() {
        for (text, what, action) in [
            ("10.1.2.3/8", "has bits behind its length", "write \"10.0.0.0/8\", or \"10.1.2.3\""),
            ("2001:db8::1/32", "has bits behind its length", "write \"2001:db8::/32\""),
            ("10.0.0.0/33", "\"33\" is no length of a prefix: 10.0.0.0 has 32 bits", "from 0 to 32"),
            ("::/+8", "\"+8\" is no length", "from 0 to 128"),
            ("example.org", "is no address", "names have a key of their own"),
            ("fe80::1%eth0", "is no address", "leave the interface out"),
            ("10.0.0.1:80", "is no address", "ports have a key of their own"),
            ("", "\"\" is no address", "write an address such as"),
        ] {
            let (is, advice) = prefix(text).unwrap_err();
            assert!(is.contains(what) && advice.contains(action), "{text}: {is} / {advice}");
        }
    }

    #[test]
    fn ports_as_they_are_written() {
        assert_eq!((ports("443"), ports("0 - 65535")), (Ok(443..=443), Ok(0..=65535)));
        assert_eq!(ports("9-8").unwrap_err().1, "write \"8-9\"");
        for text in ["", "-", "1-", "-1", "65536", "http", "1-2-3", "+1"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }
}
