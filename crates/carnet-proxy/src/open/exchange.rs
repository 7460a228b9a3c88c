//! One request and its answer.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, UPGRADE},
    response,
    uri::Authority,
};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::{
    Event, Subject, Why,
    body::{Body, Broken},
    flow::Teller,
    page::{bad_gateway, forbidden},
    tunnel::tunnel,
};
use crate::{
    har::Exchange,
    rules::Unread,
    scan::{BodyFacts, Direction, ScanBody},
};

/// What the requests of one connection have in common.
pub(super) struct Connection {
    pub(super) subject: Arc<Subject>,
    pub(super) teller: Teller,
    pub(super) is_tls: bool,
    pub(super) sender: Sender,
    /// What is no HTTP any more.
    pub(super) tunnels: Mutex<JoinSet<()>>,
}

/// Where requests go to.
pub(super) enum Sender {
    Http1(tokio::sync::Mutex<http1::SendRequest<Body>>),
    Http2(http2::SendRequest<Body>),
}

/// The server's connection ended before the request was sent. The client's ends too, so that it may ask again.
#[derive(Debug, thiserror::Error)]
#[error("the server has ended its connection")]
pub(super) struct Gone;

/// Why there is no answer of the server's.
enum Unanswered {
    Gone,
    Failed(hyper::Error),
}

pub(super) async fn exchange(
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Gone> {
    let url = connection.url(&request);
    if let Some(refusal) = hosts(&request).into_iter().find_map(|host| connection.judge(&host)) {
        let reason = refusal.unwrap_or_else(|| "blocked".into());
        connection.teller.say(Event::Refused { url, reason: reason.clone() });
        return Ok(forbidden(Some(&reason)));
    }
    let client = match connection.tunnelled(&mut request) {
        Ok(client) => client,
        Err(reason) => {
            connection.teller.say(Event::Refused { url, reason: reason.into() });
            return Ok(forbidden(Some(reason)));
        }
    };

    let (parts, source) = request.into_parts();
    let har = connection.subject.opener.har.as_ref().and_then(|har| har.begin(&connection.subject, &parts, &url));
    let mut body = connection.body(source, Direction::Request, &parts.method, &url, None, &parts.headers, har.as_ref());
    let stopped = body.stopped();
    let method = parts.method.clone();
    let answered = match body.settle().await {
        Ok(()) => connection.sender.send(Request::from_parts(parts, body)).await,
        Err(Broken::Source(error)) => Err(Unanswered::Failed(error)),
        Err(Broken::Stopped(_)) => return Ok(connection.refused(stopped.get(), har.as_ref())),
    };
    let mut response = match answered {
        _ if stopped.get().is_some() => return Ok(connection.refused(stopped.get(), har.as_ref())),
        Ok(response) => response,
        Err(Unanswered::Gone) => return Err(Gone),
        Err(Unanswered::Failed(error)) => {
            let words = format!("the server does not answer: {}", with_cause(&error));
            let (parts, body) = bad_gateway(&words).into_parts();
            if let Some(har) = &har {
                har.failed(&words);
            }
            return Ok(Response::from_parts(parts, body));
        }
    };

    let is_tunnel = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || method == Method::CONNECT && response.status().is_success();
    if let (true, Some(client)) = (is_tunnel, client) {
        connection.teller.say(Event::Unread { why: Why::Tunnel, passed: true });
        let server = upgrade::on(&mut response);
        connection.tunnels.lock().unwrap_or_else(PoisonError::into_inner).spawn(upgraded(client, server));
        let (parts, _) = response.into_parts();
        if let Some(har) = &har {
            har.answered(&parts);
        }
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let (parts, source) = response.into_parts();
    if let Some(har) = &har {
        har.answered(&parts);
    }
    let response::Parts { status, headers, .. } = &parts;
    let mut body = connection.body(source, Direction::Response, &method, &url, Some(*status), headers, har.as_ref());
    match body.settle().await {
        Err(Broken::Stopped(reason)) => Ok(connection.refused(Some(&reason), har.as_ref())),
        // What has come before it broke is the client's, and then its connection breaks too.
        Ok(()) | Err(Broken::Source(_)) => Ok(Response::from_parts(parts, body)),
    }
}

impl Connection {
    /// What the rules say of this host, where it is not the flow's: the reason, if they block it.
    fn judge(&self, host: &str) -> Option<Option<String>> {
        if self.subject.name.as_deref() == Some(host) {
            return None;
        }
        (self.subject.judge)(host).map(|refusal| refusal.reason)
    }

    /// Whether the request wants to go on as something else: then the client's half of that.
    fn tunnelled(&self, request: &mut Request<Incoming>) -> Result<Option<OnUpgrade>, &'static str> {
        let is_connect = request.method() == Method::CONNECT;
        if !is_connect && !request.headers().contains_key(UPGRADE) {
            return Ok(None);
        }
        if self.subject.unread == Unread::Pass {
            return Ok(Some(upgrade::on(request)));
        }
        self.teller.say(Event::Unread { why: Why::Tunnel, passed: false });
        if is_connect {
            return Err("a tunnel cannot be read");
        }
        // It is a wish: the server answers as if there were none.
        request.headers_mut().remove(UPGRADE);
        request.headers_mut().remove(CONNECTION);
        Ok(None)
    }

    #[allow(clippy::too_many_arguments, reason = "they are what is known of a body, and named at the two calls")]
    fn body(
        &self,
        source: Incoming,
        direction: Direction,
        method: &Method,
        url: &str,
        status: Option<StatusCode>,
        headers: &HeaderMap,
        har: Option<&Exchange>,
    ) -> Body {
        if source.is_end_stream() {
            return Body::new(source, None, None);
        }
        let subject = &self.subject;
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        // Several lines of a header are one list (RFC 9110, section 5.3).
        let encodings: Vec<_> =
            headers.get_all(CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok()).collect();
        let encodings = (!encodings.is_empty()).then(|| encodings.join(","));
        let facts = BodyFacts {
            direction,
            flow_id: subject.flow_id,
            destination: subject.destination,
            uid: subject.uid,
            exe: subject.exe.as_deref(),
            method: method.as_str(),
            url,
            status: status.map(|status| status.as_u16()),
            content_type: text(CONTENT_TYPE),
            content_encoding: encodings.as_deref(),
            length: text(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        };
        let scan: Option<Box<dyn ScanBody>> = subject.opener.scan.as_ref().and_then(|scan| scan.begin(&facts));
        let body = Body::new(source, scan, har.map(|har| har.body(direction)));
        let (teller, url, har) = (self.teller.clone(), url.to_owned(), har.cloned());
        body.when_stopped(move |reason| {
            if let Some(har) = har {
                har.failed(&format!("stopped: {reason}"));
            }
            teller.say(Event::Stopped { direction, url, reason: reason.to_owned() });
        })
    }

    fn refused(&self, reason: Option<&String>, har: Option<&Exchange>) -> Response<Body> {
        let (parts, body) = forbidden(reason.map(String::as_str)).into_parts();
        if let Some(har) = har {
            har.answered(&parts);
        }
        Response::from_parts(parts, body)
    }

    /// The request's URL, whole.
    fn url(&self, request: &Request<Incoming>) -> String {
        let uri = request.uri();
        if uri.scheme().is_some() || request.method() == Method::CONNECT {
            return uri.to_string();
        }
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let host = host.or_else(|| self.subject.name.clone()).unwrap_or_else(|| self.subject.destination.to_string());
        format!("{}://{host}{uri}", if self.is_tls { "https" } else { "http" })
    }
}

impl Sender {
    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        let result = match self {
            Self::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await.map_err(|_| Unanswered::Gone)?;
                sender.try_send_request(request).await
            }
            Self::Http2(sender) => {
                let mut sender = sender.clone();
                sender.ready().await.map_err(|_| Unanswered::Gone)?;
                sender.try_send_request(request).await
            }
        };
        result.map_err(|mut error| match error.take_message() {
            Some(_) => Unanswered::Gone,
            None => Unanswered::Failed(error.into_error()),
        })
    }
}

/// What was HTTP until now, on both sides.
async fn upgraded(client: OnUpgrade, server: OnUpgrade) {
    if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
        tunnel(TokioIo::new(client), TokioIo::new(server)).await;
    }
}

/// For whom a request is, without ports: as its URI says, and as `Host` does.
fn hosts(request: &Request<Incoming>) -> Vec<String> {
    let of_uri = request.uri().authority().map(|authority| authority.as_str());
    let of_header = request.headers().get_all(HOST).iter().filter_map(|host| host.to_str().ok());
    of_uri.into_iter().chain(of_header).filter_map(host).collect()
}

/// In small letters, without a port and a dot at its end. Addresses are no names.
fn host(authority: &str) -> Option<String> {
    let authority: Authority = authority.parse().ok()?;
    let host = authority.host();
    let is_address = host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok();
    (!is_address).then(|| host.trim_end_matches('.').to_ascii_lowercase())
}

fn with_cause(error: &hyper::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(behind) = cause {
        words += &format!(": {behind}");
        cause = behind.source();
    }
    words
}
