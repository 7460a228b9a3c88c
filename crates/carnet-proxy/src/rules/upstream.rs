//! `[upstream.NAME]`: proxies through which flows go on.

use std::{collections::BTreeMap, net::Ipv6Addr, path::Path, sync::Arc};

use super::{
    mistake::Kind,
    nearest::instead,
    read::{Keys, Reader, Value, Wrong},
    source::shown,
};
use crate::upstream::{Credentials, Kind as UpstreamKind};

/// A proxy through which flows go on, as the file has it: who dials looks up its address, and makes an
/// [`upstream::Upstream`](crate::upstream::Upstream) of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// As the file calls it.
    pub name: String,
    /// What it speaks.
    pub kind: UpstreamKind,
    /// A name or an address, which has no brackets.
    pub host: String,
    /// And its port.
    pub port: u16,
    /// For whom flows go through it. Its protocol has a place for these.
    pub credentials: Option<Credentials>,
    /// Whether it is asked for the name that the client gave, where it gave one.
    pub by_name: bool,
}

/// Those of a file.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    /// `None` where one has mistakes.
    by_name: BTreeMap<String, Option<Arc<Upstream>>>,
}

impl Upstreams {
    pub(super) fn read(reader: &mut Reader, value: &Value, folder: &Path) -> Self {
        let example = "begin each with a header: [upstream.corp]";
        let Some(table) = value.get_ref().as_table() else {
            reader.mistake(Kind::WrongType, value.span(), "\"upstream\" is a table of upstreams", example);
            return Self::default();
        };
        let mut upstreams = Self::default();
        for (name, value) in table {
            let keys = reader.keys("an upstream", value, KEYS, example);
            let upstream = keys.and_then(|keys| upstream(reader, name.get_ref(), &keys, folder));
            upstreams.by_name.insert(name.get_ref().to_string(), upstream.map(Arc::new));
        }
        upstreams
    }

    /// The one that a rule names.
    pub(super) fn named(&self, reader: &mut Reader, value: &Value) -> Option<Arc<Upstream>> {
        let name = reader.text("upstream", value, "\"corp\"")?;
        let found = self.by_name.get(name);
        if found.is_none() {
            let action = match self.by_name.is_empty() {
                true => format!("define it: [upstream.{}]", shown(name)),
                false => instead(name, self.by_name.keys().map(|name| &**name)),
            };
            let what = format!("there is no upstream {:?}", shown(name));
            reader.mistake(Kind::UnknownUpstream, value.span(), what, action);
        }
        found.cloned().flatten()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.by_name.values().flatten()
    }
}

fn upstream(reader: &mut Reader, name: &str, keys: &Keys, folder: &Path) -> Option<Upstream> {
    let kinds = [
        ("socks5", UpstreamKind::Socks5),
        ("http-connect", UpstreamKind::HttpConnect),
        ("proxy-v2", UpstreamKind::ProxyV2),
    ];
    let kind = reader.required(keys, "kind", "\"socks5\"").and_then(|value| reader.word("kind", value, &kinds));
    let address = reader
        .required(keys, "address", ADDRESS)
        .and_then(|value| reader.parsed(Kind::WrongAddress, "address", value, ADDRESS, address));
    let (credentials, by_name) = if kind == Some(UpstreamKind::ProxyV2) {
        for key in ["user", "password-file", "by-name"].into_iter().filter(|key| keys.value(key).is_some()) {
            let what = format!("{key:?} has no use here: the PROXY protocol asks for nothing");
            reader.mistake(Kind::MisplacedKey, keys.key_span(key), what, "remove it");
        }
        (None, false)
    } else {
        (credentials(reader, keys, kind, folder), reader.flag(keys, "by-name"))
    };
    let (kind, (host, port)) = (kind?, address?);
    Some(Upstream { name: name.to_owned(), kind, host, port, credentials, by_name })
}

fn credentials(reader: &mut Reader, keys: &Keys, kind: Option<UpstreamKind>, folder: &Path) -> Option<Credentials> {
    let (user, file) = match (keys.value("user"), keys.value("password-file")) {
        (None, None) => return None,
        (Some(user), Some(file)) => (user, file),
        (Some(_), None) => {
            let action = "add password-file = \"corp.password\"";
            reader.mistake(Kind::MissingKey, keys.key_span("user"), "a user needs \"password-file\"", action);
            return None;
        }
        (None, Some(_)) => {
            let what = "a password needs \"user\"";
            reader.mistake(Kind::MissingKey, keys.key_span("password-file"), what, "add user = \"alice\"");
            return None;
        }
    };
    let name = reader.line("user", user, "\"alice\"").filter(|name| {
        let has_colon = kind == Some(UpstreamKind::HttpConnect) && name.contains(':');
        let what = if has_colon { "HTTP has no user with a colon" } else { "a user has up to 255 bytes" };
        let is_wrong = has_colon || name.len() > LONGEST;
        if is_wrong {
            reader.mistake(Kind::WrongText, user.span(), what, "write user = \"alice\"");
        }
        !is_wrong
    });
    let path = reader.line("password-file", file, "\"corp.password\"")?;
    let password = match reader.host.read(&folder.join(path)) {
        Ok(password) => password,
        Err(error) => {
            let action = "a path is relative to the rules file, or absolute";
            let what = format!("cannot read {:?}: {error}", shown(path));
            reader.mistake(Kind::UnreadableFile, file.span(), what, action);
            return None;
        }
    };
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.len() > LONGEST || password.contains(char::is_control) {
        let what = format!("what is in {:?} is no password", shown(path));
        reader.mistake(Kind::WrongText, file.span(), what, "put one line of up to 255 bytes in the file");
        return None;
    }
    Some(Credentials::new(name?, password))
}

/// `proxy.example:1080`, `192.0.2.7:1080` or `[2001:db8::7]:1080`.
fn address(text: &str) -> Result<(String, u16), Wrong> {
    let wrong = || (format!("{:?} is no host with a port", shown(text)), format!("write address = {ADDRESS}"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port > 0).ok_or_else(wrong)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(address) = bracketed {
        let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
        return Ok((address.to_string(), port));
    }
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_host = !host.is_empty() && host.len() <= 253 && host.bytes().all(is_letter);
    if is_host { Ok((host.to_ascii_lowercase(), port)) } else { Err(wrong()) }
}

const KEYS: &[&str] = &["kind", "address", "user", "password-file", "by-name"];

/// SOCKS5 has one byte for a length.
const LONGEST: usize = 255;

const ADDRESS: &str = "\"proxy.example:1080\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_they_are_written() {
        for (text, expected) in [
            ("Proxy.example:1080", Some(("proxy.example", 1080))),
            ("192.0.2.7:1", Some(("192.0.2.7", 1))),
            ("[2001:DB8::7]:65535", Some(("2001:db8::7", 65535))),
            ("2001:db8::7:1080", None),
            ("proxy.example", None),
            ("proxy.example:0", None),
            ("proxy.example:+1", None),
            ("proxy.example:65536", None),
            (":1080", None),
            ("[proxy]:1080", None),
            ("http://proxy:1080", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(address(text).ok(), expected, "{text}");
        }
    }
}
