//! Parts of messages, as a file has them.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, Version, header};

use super::entry::Named;

pub(super) fn text_or_base64(bytes: Vec<u8>) -> (String, Option<&'static str>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => (BASE64_STANDARD.encode(error.as_bytes()), Some("base64")),
    }
}

pub(super) fn headers(map: &HeaderMap) -> Vec<Named> {
    let of = |(name, value): (&HeaderName, &header::HeaderValue)| Named {
        name: name.as_str().to_owned(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    map.iter().map(of).collect()
}

/// Of headers, about: cookies are there twice.
pub(super) fn size_of(map: &HeaderMap) -> usize {
    map.iter().map(|(name, value)| name.as_str().len() + 2 * value.len() + 96).sum()
}

pub(super) fn cookies(map: &HeaderMap, name: HeaderName) -> Vec<Named> {
    let values = map.get_all(&name).iter().filter_map(|value| value.to_str().ok());
    match name == header::SET_COOKIE {
        // Behind the first semicolon is how long it holds and for whom.
        true => values.map(|value| named(value.split(';').next().unwrap_or_default(), '=')).collect(),
        false => values.flat_map(|value| value.split(';')).map(|pair| named(pair, '=')).collect(),
    }
}

pub(super) fn named(pair: &str, between: char) -> Named {
    let (name, value) = pair.split_once(between).unwrap_or((pair, ""));
    Named { name: name.trim().to_owned(), value: value.trim().to_owned() }
}

pub(super) fn text_of(map: &HeaderMap, name: HeaderName) -> String {
    map.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
