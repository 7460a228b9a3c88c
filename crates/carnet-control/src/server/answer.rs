//! Answers, and how they are made of problems and of what the backend says.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{self, HeaderValue},
};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    Shared,
    call::Call,
    routes::{self, NotFound},
};
use crate::{Backend, Caller, JSON, LINES, PROBLEM_JSON, Problem, ProblemKind, wire::Channel};

/// An answer's body: bytes, or lines as they come.
#[derive(Debug)]
pub(super) enum Answer {
    Whole(Full<Bytes>),
    Lines(mpsc::Receiver<Bytes>),
}

pub(super) async fn answer<B: Backend>(
    request: Request<Incoming>,
    caller: &Caller,
    channel: &Arc<Channel>,
    shared: &Arc<Shared<B>>,
) -> Response<Answer> {
    let path = request.uri().path().to_owned();
    let answered = match routes::find(request.method(), &path) {
        Ok((route, name)) => {
            let caller = caller.clone().by(&shared.access.0.borrow());
            Call { caller, name: name.into_owned(), channel, shared }.answer(route, request).await
        }
        Err(not_found) => Ok(refuse_path(not_found)),
    };
    // What came with a request that has no use for it.
    channel.discard(channel.take_received()).await;
    answered.unwrap_or_else(|problem| refuse(&problem))
}

/// A whole answer.
pub(super) fn whole(status: StatusCode, media_type: &'static str, body: Bytes) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer in JSON.
pub(super) fn json(answer: &impl Serialize) -> Result<Response<Answer>, Problem> {
    let body = serde_json::to_vec(answer)
        .map_err(|error| Problem::new(ProblemKind::Failed, format!("the answer cannot be written: {error}")))?;
    Ok(whole(StatusCode::OK, JSON, body.into()))
}

/// An answer that is a stream. Nothing else comes on its connection.
pub(super) fn lines(receiver: mpsc::Receiver<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::Lines(receiver));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn refuse(problem: &Problem) -> Response<Answer> {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    whole(problem.kind.status(), PROBLEM_JSON, body.into())
}

fn refuse_path(NotFound { problem, allowed }: NotFound) -> Response<Answer> {
    let mut response = refuse(&problem);
    if let Some(allowed) = allowed.and_then(|allowed| HeaderValue::try_from(allowed).ok()) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Lines(receiver) => receiver.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}
