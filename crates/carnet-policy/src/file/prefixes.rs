//! Prefixes and ports as people write them, and files of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Range, RangeInclusive};

use crate::Prefix;
use crate::file::finding::{Finding, Id};
use crate::file::source::{Source, shown};

/// What is wrong with a text, and what to write instead.
pub(super) type Wrong = (String, String);

/// `192.0.2.7`, `10.0.0.0/8` or `2001:db8::/32`.
pub(super) fn prefix(text: &str) -> Result<Prefix, Wrong> {
    // Almost all of a long list are right: what is wrong with one is found out only where it is.
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else { return Err(no_address(text)) };
    let Some(length) = length else { return Ok(address.into()) };
    let prefix = match length.parse::<u8>() {
        // `+8` parses.
        Ok(bits) if length.as_bytes()[0].is_ascii_digit() => Prefix { address, length: bits },
        _ => return Err(no_length(address, length)),
    };
    if prefix.length > prefix.longest() {
        return Err(no_length(address, length));
    }
    let masked = masked(prefix);
    if masked.address != address {
        let what = format!("{prefix} has bits behind its length");
        return Err((what, format!("write {masked}, or {address} for the one address")));
    }
    Ok(prefix)
}

/// `443` or `8000-8999`.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    range(text, "a port", "443 or \"8000-8999\"; ports go up to 65535")
}

/// A number or two with a dash between them, the lower one first.
pub(super) fn range<T>(text: &str, what: &str, example: &str) -> Result<RangeInclusive<T>, Wrong>
where
    T: Copy + PartialOrd + std::str::FromStr + std::fmt::Display,
{
    let number = |text: &str| text.trim().parse::<T>().ok().filter(|_| !text.trim().starts_with('+'));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(first), Some(last)) => {
            Err((format!("{first}-{last} is no range: it begins after its end"), format!("write \"{last}-{first}\"")))
        }
        _ => Err((format!("{:?} is not {what}, and no range", shown(text)), format!("write {example}"))),
    }
}

/// The entries of a text with one in each line. What is behind a `#` is a comment.
pub(super) fn lines<T>(
    name: &str,
    text: &str,
    id: Id,
    parse: impl Fn(&str) -> Result<T, Wrong>,
    findings: &mut Vec<Finding>,
) -> Vec<T> {
    let mut values = Vec::new();
    let mut wrong: Vec<(Range<usize>, Wrong)> = Vec::new();
    let mut more = 0_usize;
    let mut start = 0;
    for line in text.split('\n') {
        let content = line.split_once('#').map_or(line, |(content, _)| content);
        let content = content.strip_prefix('\u{feff}').filter(|_| start == 0).unwrap_or(content);
        let entry = content.trim();
        if !entry.is_empty() {
            match parse(entry) {
                Ok(value) => values.push(value),
                Err(_) if wrong.len() == MOST_WRONG => more += 1,
                Err(why) => {
                    // Both are parts of `text`.
                    let at = start + (entry.as_ptr() as usize - line.as_ptr() as usize);
                    wrong.push((at..at + entry.len(), why));
                }
            }
        }
        start += line.len() + 1;
    }
    if wrong.is_empty() {
        return values;
    }
    let source = Source::new(name, text);
    let last = wrong.len() - 1;
    findings.extend(wrong.into_iter().enumerate().map(|(index, (span, (what, action)))| {
        let what = if index == last && more > 0 { format!("{what}; {more} more lines are wrong, too") } else { what };
        Finding::new(id, source.place(span), what, action)
    }));
    values
}

/// With the bits after its length cleared.
pub(super) fn masked(prefix: Prefix) -> Prefix {
    let address = match prefix.address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.length.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.length.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    };
    Prefix { address, ..prefix }
}

fn no_address(text: &str) -> Wrong {
    let example = "write an address such as 192.0.2.7, or a prefix such as 10.0.0.0/8 or 2001:db8::/32";
    let action = if text.contains('%') {
        "leave the interface out: a destination is an address alone".to_owned()
    } else if text.starts_with('[') || text.parse::<std::net::SocketAddr>().is_ok() {
        format!("{example}; ports are in remote-port")
    } else if text.contains('-') && text.split('-').all(|end| end.trim().parse::<IpAddr>().is_ok()) {
        format!("{example}; ranges of addresses are written as prefixes")
    } else if text.bytes().any(|byte| byte.is_ascii_alphabetic()) && !text.contains([':', '/', '*']) {
        format!("{example}; names are not looked up, and a set is \"@name\"")
    } else {
        example.to_owned()
    };
    (format!("{:?} is no address and no prefix", shown(text)), action)
}

fn no_length(address: IpAddr, length: &str) -> Wrong {
    let longest = Prefix::from(address).longest();
    let what = format!("{:?} is no length of a prefix: {address} has {longest} bits", shown(length));
    (what, format!("write a number from 0 to {longest} behind the slash"))
}

/// Wrong lines of one file that are told in full.
const MOST_WRONG: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_as_they_are_written() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104"),
        ] {
            assert_eq!(prefix(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_prefix_is_told_with_what_would_be_one() {
        for (text, what, action) in [
            (
                "10.1.2.3/8",
                "10.1.2.3/8 has bits behind its length",
                "write 10.0.0.0/8, or 10.1.2.3 for the one address",
            ),
            ("2001:db8::1/32", "2001:db8::1/32 has bits", "write 2001:db8::/32"),
            ("10.0.0.0/33", "\"33\" is no length of a prefix: 10.0.0.0 has 32 bits", "from 0 to 32"),
            ("::/129", "\"129\" is no length", "from 0 to 128"),
            ("10.0.0.0/+8", "\"+8\" is no length", "from 0 to 32"),
            ("10.0.0.0/", "\"\" is no length", "from 0 to 32"),
            ("10.0.0.0/999", "\"999\" is no length", "from 0 to 32"),
            ("example.org", "\"example.org\" is no address", "names are not looked up"),
            ("fe80::1%eth0", "\"fe80::1%eth0\" is no address", "leave the interface out"),
            ("10.0.0.1:80", "is no address", "ports are in remote-port"),
            ("[::1]", "is no address", "ports are in remote-port"),
            ("10.0.0.1-10.0.0.9", "is no address", "ranges of addresses are written as prefixes"),
            ("10.0.0", "is no address", "write an address such as"),
            ("", "\"\" is no address", "write an address such as"),
        ] {
            let (is, advice) = prefix(text).unwrap_err();
            assert!(is.contains(what) && advice.contains(action), "{text}: {is} / {advice}");
        }
    }

    #[test]
    fn ports_as_they_are_written() {
        assert_eq!(ports("443"), Ok(443..=443));
        assert_eq!(ports("8000-8999"), Ok(8000..=8999));
        assert_eq!(ports("0 - 65535"), Ok(0..=65535));
        assert_eq!(ports("9-8").unwrap_err().1, "write \"8-9\"");
        for text in ["", "-", "1-", "-1", "65536", "http", "1-2-3", "+1"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_has_one_in_each_line() {
        let mut findings = Vec::new();
        let text = "\u{feff}10.0.0.0/8\r\n# all\r\n\r\n  2001:db8::/32 # docs\r\n192.0.2.1";
        let all = lines("f", text, Id::WrongPrefix, prefix, &mut findings);
        assert_eq!(
            all.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]
        );
        assert_eq!(findings, []);
    }

    #[test]
    fn a_wrong_line_is_told_with_its_number() {
        let mut findings = Vec::new();
        let all = lines("f", "10.0.0.0/8\n\n  10.1.0.0/8 # x\n10.0.0.1\n", Id::WrongPrefix, prefix, &mut findings);
        assert_eq!(all.len(), 2);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.place.line, finding.place.column, finding.place.span.clone()), (3, 3, 14..24));
    }

    #[test]
    fn of_very_many_wrong_lines_the_last_are_counted() {
        let mut findings = Vec::new();
        lines("f", &"x\n".repeat(1234), Id::WrongPort, ports, &mut findings);
        assert_eq!(findings.len(), MOST_WRONG);
        assert!(findings[MOST_WRONG - 1].what.ends_with("; 1134 more lines are wrong, too"));
    }
}
