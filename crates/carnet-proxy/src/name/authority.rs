use std::net::Ipv6Addr;

/// The name in `host[:port]`, in lower case.
pub(super) fn name(authority: &str) -> Option<String> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (&authority[..address.len() + 2], if rest.is_empty() { "" } else { rest.strip_prefix(':')? })
        }
        None => {
            let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
            (is_name(name.as_bytes()).then_some(name)?, port)
        }
    };
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.to_ascii_lowercase())
}

/// Whether it could be the name of a host, or an IPv4 address. It may be printed as it is then.
pub(super) fn is_name(bytes: &[u8]) -> bool {
    let may_be = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    !bytes.is_empty() && bytes.len() <= NAME_MAX && bytes.iter().all(may_be)
}

/// Of a domain name in text, its last dot included.
const NAME_MAX: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (authority, expected) in [
            ("example.org", Some("example.org")),
            ("Example.ORG:8080", Some("example.org")),
            ("example.org:", Some("example.org")),
            ("under_score.example", Some("under_score.example")),
            ("192.0.2.7:80", Some("192.0.2.7")),
            ("[2001:DB8::1]", Some("[2001:db8::1]")),
            ("[2001:db8::1]:443", Some("[2001:db8::1]")),
            ("", None),
            (":80", None),
            ("a b", None),
            ("a:b", None),
            ("a:1:2", None),
            ("\u{1b}[31m", None),
            ("[", None),
            ("[]", None),
            ("[::1", None),
            ("[::1]80", None),
            ("[::1%lo]", None),
            ("user@example.org", None),
        ] {
            assert_eq!(name(authority).as_deref(), expected, "{authority:?}");
        }
        assert_eq!(name(&"a".repeat(254)), Some("a".repeat(254)));
        assert_eq!(name(&"a".repeat(255)), None);
    }
}
