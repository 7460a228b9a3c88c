//! Answers of the service's own.

use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};

use super::body::Body;

/// A page of plain text, which says who has written it.
pub(super) fn page(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::of(format!("{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 403, as clients get it whose flow is blocked.
pub(super) fn forbidden(reason: Option<&str>) -> Response<Body> {
    match reason {
        Some(reason) => page(StatusCode::FORBIDDEN, &format!("Blocked by carnet: {reason}")),
        None => page(StatusCode::FORBIDDEN, "Blocked by carnet."),
    }
}

/// 502: the server is not who it should be, or cannot be talked to.
pub(super) fn bad_gateway(error: &str) -> Response<Body> {
    page(StatusCode::BAD_GATEWAY, &format!("carnet: {error}"))
}
