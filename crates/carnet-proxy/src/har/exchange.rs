//! One exchange, while it lasts.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

use http::{header, request, response};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Har, Shared,
    entry::{Cache, Carnet, Content, Entry, PostData, Request, Response, Timings},
    words::{cookies, headers, milliseconds, named, size_of, text_of, text_or_base64, version},
};
use crate::{open::Subject, scan::Direction};

/// An exchange. It is written when all that belongs to it is dropped.
#[derive(Clone)]
pub(crate) struct Exchange(Arc<Open>);

/// One of its two bodies.
pub(crate) struct Recording {
    open: Arc<Open>,
    direction: Direction,
}

struct Open {
    shared: Arc<Shared>,
    begun: Instant,
    /// There until it is written. Nobody holds it for longer than it takes to copy a piece of a body.
    state: Mutex<Option<State>>,
}

#[derive(Default)]
pub(super) struct State {
    started: String,
    request: Request,
    response: Response,
    carnet: Carnet,
    server: String,
    sent: Kept,
    received: Kept,
    answered: Option<Instant>,
    comment: Option<String>,
    /// Bytes of heads, as they count among those that wait.
    room: usize,
}

/// What is kept of a body.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    length: u64,
    is_whole: bool,
    has_begun: bool,
    last: Option<Instant>,
}

impl Har {
    /// `None`: there is no room for it.
    pub(crate) fn begin(&self, subject: &Subject, parts: &request::Parts, url: &str) -> Option<Exchange> {
        let head = 3 * url.len() + size_of(&parts.headers);
        let room = self.shared.room_for(head);
        if room < head {
            self.shared.give_back(room);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let query = url.split_once('?').map(|(_, query)| query.split('#').next().unwrap_or_default());
        let request = Request {
            method: parts.method.to_string(),
            url: url.to_owned(),
            http_version: version(parts.version),
            cookies: cookies(&parts.headers, header::COOKIE),
            headers: headers(&parts.headers),
            query_string: query
                .map(|query| query.split('&').map(|pair| named(pair, '=')).collect())
                .unwrap_or_default(),
            post_data: None,
            headers_size: -1,
            body_size: 0,
        };
        let carnet = Carnet {
            flow: format!("{:032x}", subject.flow_id),
            destination: subject.destination.to_string(),
            name: subject.name.clone(),
            uid: subject.uid,
            pid: subject.pid,
            comm: subject.comm.clone(),
            exe: subject.exe.as_ref().map(|exe| exe.display().to_string()),
            chain: subject.chain.clone(),
        };
        let state = State {
            started: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            request,
            response: Response { headers_size: -1, body_size: -1, ..Response::default() },
            carnet,
            server: subject.destination.ip().to_string(),
            sent: Kept::default(),
            received: Kept::default(),
            answered: None,
            comment: None,
            room,
        };
        let shared = Arc::clone(&self.shared);
        Some(Exchange(Arc::new(Open { shared, begun: Instant::now(), state: Mutex::new(Some(state)) })))
    }
}

impl Exchange {
    /// The head of the answer has come. Where there are several, the last counts: it is what the client gets.
    pub(crate) fn answered(&self, parts: &response::Parts) {
        let head = size_of(&parts.headers);
        let room = self.0.shared.room_for(head);
        let whole = room == head;
        let text = |name| text_of(&parts.headers, name);
        let response = Response {
            status: parts.status.as_u16(),
            status_text: parts.status.canonical_reason().unwrap_or_default().to_owned(),
            http_version: version(parts.version),
            cookies: cookies(&parts.headers, header::SET_COOKIE),
            headers: if whole { headers(&parts.headers) } else { Vec::new() },
            content: Content { mime_type: text(header::CONTENT_TYPE), ..Content::default() },
            redirect_url: text(header::LOCATION),
            headers_size: -1,
            body_size: 0,
        };
        self.0.with(|state| {
            state.answered = Some(Instant::now());
            state.response = response;
            state.room += room;
            if !whole {
                state.comment = Some("there was no room for the answer's headers".into());
            }
        });
    }

    /// It has come to no good end.
    pub(crate) fn failed(&self, why: &str) {
        self.0.with(|state| state.comment = Some(why.to_owned()));
    }

    /// What writes down one of its bodies.
    pub(crate) fn body(&self, direction: Direction) -> Recording {
        self.0.kept(direction, |kept, _| kept.has_begun = true);
        Recording { open: Arc::clone(&self.0), direction }
    }
}

impl Recording {
    /// A piece has gone on.
    pub(crate) fn data(&self, data: &[u8]) {
        self.open.kept(self.direction, |kept, shared| {
            kept.length += data.len() as u64;
            kept.last = Some(Instant::now());
            // What was left out once is not followed by anything: a body with a hole is worth less than its beginning.
            if kept.bytes.len() as u64 + data.len() as u64 == kept.length {
                let wanted = data.len().min(shared.options.most_of_body.saturating_sub(kept.bytes.len()));
                kept.bytes.extend_from_slice(&data[..shared.room_for(wanted)]);
            }
        });
    }

    /// It was whole.
    pub(crate) fn end(&self) {
        self.open.kept(self.direction, |kept, _| {
            kept.is_whole = true;
            kept.last = Some(Instant::now());
        });
    }
}

impl Open {
    fn with(&self, act: impl FnOnce(&mut State)) {
        if let Some(state) = self.state.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            act(state);
        }
    }

    fn kept(&self, direction: Direction, act: impl FnOnce(&mut Kept, &Shared)) {
        self.with(|state| match direction {
            Direction::Request => act(&mut state.sent, &self.shared),
            Direction::Response => act(&mut state.received, &self.shared),
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(state) = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            let bytes = state.room + state.sent.bytes.len() + state.received.bytes.len();
            self.shared.write(state.entry(self.begun), bytes);
        }
    }
}

impl State {
    pub(super) fn entry(self, begun: Instant) -> Entry {
        let Self { started, mut request, mut response, carnet, server, sent, received, answered, comment, .. } = self;
        let answered = answered.unwrap_or_else(Instant::now).max(begun);
        // A server may answer before it has got all.
        let sent_at = sent.last.unwrap_or(begun).min(answered);
        let ended = received.last.unwrap_or(answered).max(answered);

        request.body_size = sent.length.cast_signed();
        if sent.has_begun {
            let mime_type = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-type"));
            let mime_type = mime_type.map(|header| header.value.clone()).unwrap_or_default();
            let comment = sent.comment();
            let (text, encoding) = text_or_base64(sent.bytes);
            request.post_data = Some(PostData { mime_type, params: [], text, encoding, comment });
        }
        response.body_size = received.length.cast_signed();
        response.content.size = received.length;
        if received.has_begun {
            response.content.comment = received.comment();
            let (text, encoding) = text_or_base64(received.bytes);
            (response.content.text, response.content.encoding) = (Some(text), encoding);
        }
        let timings = Timings {
            blocked: -1.0,
            dns: -1.0,
            connect: -1.0,
            ssl: -1.0,
            send: milliseconds(sent_at - begun),
            wait: milliseconds(answered - sent_at),
            receive: milliseconds(ended - answered),
        };
        Entry {
            started_date_time: started,
            time: timings.send + timings.wait + timings.receive,
            request,
            response,
            cache: Cache {},
            timings,
            server_ip_address: server,
            connection: carnet.flow.clone(),
            comment,
            carnet,
        }
    }
}

impl Kept {
    fn comment(&self) -> Option<String> {
        let here = self.bytes.len() as u64;
        if here < self.length {
            return Some(format!("the first {here} of {} bytes", self.length));
        }
        (!self.is_whole).then(|| "it broke off".into())
    }
}
