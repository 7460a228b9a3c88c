use super::{Found, Name, NameReader, Progress, authority};
use crate::rules::Protocol;

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
            Ok(httparse::Status::Complete(_)) => {
                let name = name(&request).map(Name::Host);
                Progress::Found(Found { name, ..Found::new(Protocol::Http1) })
            }
            Err(_) => Progress::Nothing,
        }
    }
}

/// The one `Host` there must be: a second one would let client and server disagree about which counts. So would a target
/// that has a name of its own, for servers take that.
fn name(request: &httparse::Request<'_, '_>) -> Option<String> {
    let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return None;
    };
    let name = authority::name(str::from_utf8(host.value).ok()?.trim_ascii())?;
    match of_target(request.method?, request.path?) {
        Some(target) if authority::name(target).as_ref() != Some(&name) => None,
        _ => Some(name),
    }
}

/// The authority in a request's target, where it is not a mere path.
fn of_target<'t>(method: &str, target: &'t str) -> Option<&'t str> {
    if method == "CONNECT" {
        return Some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| rest.split(['/', '?', '#']).next().unwrap_or(rest))
}

const FIELDS_MAX: usize = 128;

// A head of the greatest size is tried at most FIELDS_MAX + 1 times, so the work for one flow stays in milliseconds.
const _: () = assert!(NameReader::LIMIT * (FIELDS_MAX + 1) < 4 << 20);
