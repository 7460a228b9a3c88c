use std::net::Ipv6Addr;

use super::{Found, Name, NameReader, Progress};

/// The head of an HTTP/1 request: its first line and its fields.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
}

impl Head {
    pub(super) fn read(&mut self, bytes: &[u8]) -> Progress {
        self.bytes.extend_from_slice(bytes);
        // Only the end of a line can end a head. As the lines are few (FIELDS_MAX), so are the attempts.
        if !bytes.contains(&b'\n') {
            return Progress::More;
        }
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(&self.bytes) {
            Ok(httparse::Status::Partial) => Progress::More,
            Ok(httparse::Status::Complete(_)) => match host(request.headers) {
                Some(name) => Progress::Found(Found { name: Name::Host(name), alpn: Vec::new() }),
                None => Progress::Nothing,
            },
            Err(_) => Progress::Nothing,
        }
    }
}

/// The one `Host` there must be: a second one would let client and server disagree about which counts.
fn host(fields: &[httparse::Header<'_>]) -> Option<String> {
    let mut hosts = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next()) {
        (Some(field), None) => without_port(str::from_utf8(field.value).ok()?.trim_ascii()),
        _ => None,
    }
}

fn without_port(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (&host[..address.len() + 2], if rest.is_empty() { "" } else { rest.strip_prefix(':')? })
        }
        None => {
            let (name, port) = host.split_once(':').unwrap_or((host, ""));
            let printable = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(printable) {
                return None;
            }
            (name, port)
        }
    };
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.to_ascii_lowercase())
}

const FIELDS_MAX: usize = 128;

/// Of a domain name in text.
const NAME_MAX: usize = 253;

// A head of the greatest size is tried at most FIELDS_MAX + 1 times, so the work for one flow stays in milliseconds.
const _: () = assert!(NameReader::LIMIT * (FIELDS_MAX + 1) < 4 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (host, name) in [
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
            assert_eq!(without_port(host).as_deref(), name, "{host:?}");
        }
        assert_eq!(without_port(&"a".repeat(253)), Some("a".repeat(253)));
        assert_eq!(without_port(&"a".repeat(254)), None);
    }
}
