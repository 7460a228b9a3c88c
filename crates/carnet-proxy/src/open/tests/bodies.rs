//! What a scan may say, and what becomes of a body then.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, channel::Channel};

use super::stage::{Stage, event, full, http1, http2, serve_http, text, within};
use crate::{
    open::{Event, Inside},
    scan::{
        BodyFacts, Direction, Match, Matcher, Part, Scan, ScanBody, ScanOptions, Scanner, Scanning, Unscanned, Verdict,
    },
};

/// Holds what it is to hold, stops what has `virus` in it, and passes the rest.
#[derive(Debug)]
struct Looks {
    holds: bool,
    seen: Seen,
}

/// The bodies that began.
type Seen = Arc<Mutex<Vec<(Direction, String, Option<u64>)>>>;

struct Look {
    holds: bool,
    seen: Vec<u8>,
}

impl Scan for Looks {
    fn begin(&self, facts: &BodyFacts<'_>) -> Option<Box<dyn ScanBody>> {
        self.seen.lock().unwrap().push((facts.direction, facts.url.to_owned(), facts.length));
        Some(Box::new(Look { holds: self.holds, seen: Vec::new() }))
    }
}

impl ScanBody for Look {
    fn next(mut self: Box<Self>, part: Part) -> Scanning {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let at_end = matches!(part, Part::End);
            if let Part::Data(data) = part {
                self.seen.extend_from_slice(&data);
            }
            let verdict = match () {
                () if self.seen.windows(5).any(|window| window == b"virus") => {
                    Verdict::Block { reason: "a virus".into() }
                }
                () if self.holds && !at_end => Verdict::Hold,
                () => Verdict::Pass,
            };
            (verdict, self as Box<dyn ScanBody>)
        })
    }
}

/// A body of these.
struct Frames(VecDeque<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

fn stage(holds: bool) -> (Stage, Seen) {
    let seen = Seen::default();
    (Stage::with(Some(Arc::new(Looks { holds, seen: Arc::clone(&seen) })), None), seen)
}

#[tokio::test]
async fn an_answer_that_is_stopped_is_a_page_that_says_why() {
    for (alpn, holds) in [("http/1.1", true), ("h2", true), ("h2", false)] {
        let (stage, seen) = stage(holds);
        let address = serve_http(stage.root.server("site.example", &[alpn]), |_| async {
            Ok(Response::new(full("this has a virus in it")))
        })
        .await;
        let (client, mut reports) = stage.client(address, &[alpn]).await;
        let request = Request::get("https://site.example/file").body(full("")).unwrap();
        let response = match alpn {
            "h2" => http2(client).await.send_request(request).await.unwrap(),
            _ => http1(client).await.send_request(request).await.unwrap(),
        };
        assert_eq!(response.status(), 403);
        assert_eq!(text(response).await, "Blocked by carnet: a virus\n");
        assert!(matches!(event(&mut reports).await, Event::Opened { .. }));
        let url = "https://site.example/file".to_owned();
        let stopped = Event::Stopped { direction: Direction::Response, url: url.clone(), reason: "a virus".into() };
        assert_eq!(event(&mut reports).await, stopped);
        assert_eq!(*seen.lock().unwrap(), [(Direction::Response, url, Some(22))]);
    }
}

#[tokio::test]
async fn a_request_that_is_stopped_does_not_reach_the_server() {
    for alpn in ["http/1.1", "h2"] {
        let (stage, _) = stage(true);
        let reached = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&reached);
        let address = serve_http(stage.root.server("site.example", &[alpn]), move |_| {
            *counter.lock().unwrap() += 1;
            async { Ok(Response::new(full("fine"))) }
        })
        .await;
        let (client, _reports) = stage.client(address, &[alpn]).await;
        let request = |body: &'static str| Request::post("https://site.example/upload").body(full(body)).unwrap();
        let (stopped, passed) = match alpn {
            "h2" => {
                let mut sender = http2(client).await;
                let stopped = sender.send_request(request("a virus")).await.unwrap();
                (text(stopped).await, text(sender.send_request(request("a file")).await.unwrap()).await)
            }
            _ => {
                let mut sender = http1(client).await;
                let stopped = sender.send_request(request("a virus")).await.unwrap();
                let stopped = text(stopped).await;
                sender.ready().await.unwrap();
                (stopped, text(sender.send_request(request("a file")).await.unwrap()).await)
            }
        };
        assert_eq!((&*stopped, &*passed), ("Blocked by carnet: a virus\n", "fine"));
        assert_eq!(*reached.lock().unwrap(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_is_stopped_when_it_has_begun_breaks_off() {
    let (stage, _) = stage(false);
    let address = serve_http(stage.root.server("site.example", &["http/1.1"]), |_| async {
        let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
        tokio::spawn(async move {
            for piece in ["a beginning, ", "a virus", ", an end"] {
                tokio::task::yield_now().await;
                if sender.send_data(piece.into()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(body.boxed()))
    })
    .await;
    let (client, mut reports) = stage.client(address, &["http/1.1"]).await;
    let mut sender = http1(client).await;
    let response = sender.send_request(Request::get("/").body(full("")).unwrap()).await.unwrap();
    // Whether the first piece came alone decides whether there is a page in time.
    let is_page = response.status() == 403;
    let mut body = response.into_body();
    let mut got = Vec::new();
    let mut broke = false;
    while let Some(frame) = within(body.frame()).await {
        match frame {
            Ok(frame) => got.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => broke = true,
        }
    }
    assert!(is_page || broke, "it looks whole: {}", got.escape_ascii());
    assert!(!got.windows(7).any(|window| window == b"a virus" && !is_page), "{}", got.escape_ascii());
    assert_eq!(event(&mut reports).await, Event::Opened { inside: Inside::Http1 });
    assert!(matches!(event(&mut reports).await, Event::Stopped { direction: Direction::Response, .. }));
}

#[tokio::test]
async fn trailers_pass_behind_what_was_looked_at() {
    for holds in [true, false] {
        let (stage, _) = stage(holds);
        let address = serve_http(stage.root.server("site.example", &["h2"]), |_| async {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", "42".parse().unwrap());
            let frames = [Frame::data(Bytes::from("data")), Frame::trailers(trailers)];
            Ok(Response::new(Frames(frames.into()).boxed()))
        })
        .await;
        let (client, _reports) = stage.client(address, &["h2"]).await;
        let request = Request::get("https://site.example/").body(full("")).unwrap();
        let response = http2(client).await.send_request(request).await.unwrap();
        let collected = within(response.into_body().collect()).await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
        assert_eq!(collected.to_bytes(), "data");
    }
}

#[tokio::test]
async fn a_server_that_takes_its_time_is_not_waited_for() {
    let options = ScanOptions::default();
    let scanner = Arc::new(Scanner::new(Arc::new(Virus), options, |_| {}));
    for first in ["", "an event\n"] {
        let stage = Stage::with(Some(Arc::clone(&scanner) as Arc<dyn Scan>), None);
        let (more, wait) = tokio::sync::watch::channel(false);
        let address = serve_http(stage.root.server("site.example", &["h2"]), move |_| {
            let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
            let mut wait = wait.clone();
            tokio::spawn(async move {
                let _ = sender.send_data(first.into()).await;
                let _ = wait.wait_for(|&more| more).await;
                let _ = sender.send_data("a virus".into()).await;
            });
            async { Ok(Response::new(body.boxed())) }
        })
        .await;
        let (client, _reports) = stage.client(address, &["h2"]).await;
        let request = Request::get("https://site.example/events").body(full("")).unwrap();
        // The server sends no more until its client has what there is.
        let response = within(http2(client).await.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        if !first.is_empty() {
            assert_eq!(within(body.frame()).await.unwrap().unwrap().into_data().unwrap(), first);
        }
        more.send(true).unwrap();
        let mut rest = Vec::new();
        let broke = loop {
            match within(body.frame()).await {
                Some(Ok(frame)) => rest.extend_from_slice(&frame.into_data().unwrap()),
                end => break end.is_some(),
            }
        };
        assert_eq!((broke, rest.escape_ascii().to_string()), (true, String::new()));
    }
}

/// A rule.
#[derive(Debug)]
struct Virus;

impl Matcher for Virus {
    fn matches(&self, data: &[u8], _: Duration) -> Result<Vec<Match>, Unscanned> {
        let found = data.windows(5).any(|window| window == b"virus");
        Ok(found.then(Match::default).into_iter().collect())
    }
}
