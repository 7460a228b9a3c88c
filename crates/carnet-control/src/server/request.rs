//! What a request says, read and checked.

use std::os::fd::OwnedFd;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    Request,
    body::{Body, Bytes, Incoming},
    header::{self, HeaderMap},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Limits, Operation, Route, routes::Takes};
use crate::{
    JSON, Listener, Mistake, PassedListener, Problem, ProblemKind, TEXT, TOML,
    wire::{Channel, MOST_DESCRIPTORS},
};

/// Which of the route's flags are set.
pub(super) fn flags(route: &Route, query: Option<&str>) -> Result<Vec<&'static str>, Problem> {
    let malformed = |detail: String| Problem::new(ProblemKind::Malformed, detail);
    let mut set = Vec::new();
    for item in query.unwrap_or_default().split('&').filter(|item| !item.is_empty()) {
        let (name, value) = item.split_once('=').unwrap_or((item, "true"));
        let Some(known) = route.flags.iter().find(|flag| **flag == name) else {
            let detail = match route.flags {
                [] => format!("{name:?} cannot be said here: this path takes nothing after the `?`"),
                flags => format!("{name:?} cannot be said here: this path takes {}", flags.join(", ")),
            };
            return Err(malformed(detail));
        };
        match value {
            "true" if set.contains(known) => {}
            "true" => set.push(*known),
            "false" => {}
            _ => return Err(malformed(format!("{name} is {value:?}: write {name}=true or {name}=false"))),
        }
    }
    Ok(set)
}

/// The generation that `If-Match` names. `None`: any.
pub(super) fn expected(route: &Route, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH).filter(|_| route.operation == Operation::Apply) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("?").trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let malformed = |_| {
        let detail =
            format!("If-Match is {text:?}: write the generation of the policy in force, which the status tells");
        Problem::new(ProblemKind::Malformed, detail)
    };
    number.parse().map(Some).map_err(malformed)
}

/// The body, whole.
pub(super) async fn body(request: Request<Incoming>, takes: Takes, limits: &Limits) -> Result<Bytes, Problem> {
    let types: &[&str] = match takes {
        Takes::Nothing => &[],
        Takes::Json => &[JSON],
        Takes::Policy => &[TOML, TEXT],
    };
    check_type(&request, types)?;
    let most = takes.most_bytes();
    let too_large = || {
        let detail = format!("the body is larger than {} MiB, which is the most here", most >> 20);
        Problem::new(ProblemKind::TooLarge, detail)
    };
    let body = request.into_body();
    // Before a client that asked (`Expect: 100-continue`) is told to send it.
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    match timeout(limits.body_timeout, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(ProblemKind::Malformed, format!("the body cannot be read: {error}"))),
        Err(_) => {
            let seconds = limits.body_timeout.as_secs_f32();
            let detail = format!("the body did not arrive within {seconds} s: send it faster, or in one piece");
            Err(Problem::new(ProblemKind::Slow, detail))
        }
    }
}

fn check_type(request: &Request<Incoming>, types: &[&str]) -> Result<(), Problem> {
    let (Some(wanted), Some(found)) = (types.first(), request.headers().get(header::CONTENT_TYPE)) else {
        return Ok(());
    };
    let found = found.to_str().unwrap_or("?");
    let essence = found.split(';').next().unwrap_or_default().trim();
    if types.iter().any(|known| known.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    let detail = format!("the body is said to be {found:?}: say {wanted} (curl: -H 'Content-Type: {wanted}')");
    Err(Problem::new(ProblemKind::MediaType, detail))
}

/// `what` is what the body should be, for people.
pub(super) fn json<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = text.strip_suffix(&place).unwrap_or(&text).to_owned();
        let mistake = Mistake {
            line: error.line().try_into().unwrap_or(u32::MAX),
            column: error.column().try_into().unwrap_or(u32::MAX),
            suggestion: suggestion(&message),
            message,
            ..Mistake::default()
        };
        let detail = match body {
            [] => format!("there is no body, and {what} is needed"),
            _ => format!("the body is no {what}"),
        };
        Problem::new(ProblemKind::Malformed, detail).with_mistakes(vec![mistake])
    })
}

/// serde puts the name it does not know first, and then those it knows, in backticks.
fn suggestion(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    let nearness = |known: &str| strsim::jaro_winkler(unknown, known);
    let nearest = quoted.max_by(|a, b| nearness(a).total_cmp(&nearness(b)))?;
    (nearness(nearest) > 0.75).then(|| format!("did you mean `{nearest}`?"))
}

/// The descriptors that a request names, as listeners, of each of several lists.
pub(super) async fn listeners<'a>(
    channel: &Channel,
    named: impl IntoIterator<Item = &'a [PassedListener]>,
) -> Result<Vec<Vec<Listener>>, Problem> {
    let mut received: Vec<_> = channel.take_received().into_iter().map(Some).collect();
    let taken = named.into_iter().map(|named| named_listeners(&mut received, named)).collect::<Result<_, _>>();
    channel.discard(received.into_iter().flatten().collect()).await;
    taken.map_err(|detail| Problem::new(ProblemKind::Malformed, detail))
}

fn named_listeners(received: &mut [Option<OwnedFd>], named: &[PassedListener]) -> Result<Vec<Listener>, String> {
    let count = received.len();
    if count > MOST_DESCRIPTORS {
        return Err(format!(
            "more than {MOST_DESCRIPTORS} descriptors came with the request: pass {MOST_DESCRIPTORS} at most"
        ));
    }
    let take = |&PassedListener { fd }| {
        let Some(descriptor) = received.get_mut(fd as usize) else {
            return Err(format!("descriptor {fd} is named, and {count} came with the request (SCM_RIGHTS): pass it"));
        };
        let descriptor = descriptor.take().ok_or_else(|| format!("descriptor {fd} is named twice"))?;
        Listener::try_from(descriptor).map_err(|error| format!("descriptor {fd} is no listener: {error}"))
    };
    named.iter().map(take).collect()
}
