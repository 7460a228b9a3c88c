//! Where bodies of HTTP are looked at before they go on.
//!
//! Whoever opens flows ([`crate::open`]) asks a [`Scan`] for each body, of a request and of an answer, and gives it every
//! piece in its order. Nothing of a body goes on before its scan has said so.
//!
//! ```text
//! pieces ──► body: collected until they are worth a look ──► a thread: sink ──► window ──► Matcher (YARA-X)
//!                                                                └── content: decoded ──► sink ──► window ──┘
//! ```
//!
//! [`Scanner`] is the one there is. What it finds and what it does not is in `docs/scan.md`.

mod body;
mod budget;
mod content;
mod matcher;
mod report;
mod scanner;
mod sink;
mod window;
#[cfg(feature = "yara")]
mod yara;

use std::{fmt, future::Future, net::SocketAddr, path::Path, pin::Pin};

use bytes::Bytes;

#[cfg(feature = "yara")]
pub use self::yara::{YaraError, YaraRules};
pub use self::{
    matcher::{Match, Matcher, Unscanned},
    report::{Finding, ScanReport},
    scanner::{Act, ScanOptions, Scanner},
};

/// What looks at bodies.
pub trait Scan: fmt::Debug + Send + Sync {
    /// A body begins. `None`: nobody wants to look at it. A body without bytes is not told of.
    fn begin(&self, facts: &BodyFacts<'_>) -> Option<Box<dyn ScanBody>>;
}

/// What looks at one body.
pub trait ScanBody: Send {
    /// Takes the next piece, and gives itself back with what it says of all there has been. After [`Part::End`] and
    /// after [`Verdict::Block`] it is not asked again.
    fn next(self: Box<Self>, part: Part) -> Scanning;
}

/// A scan that goes on. It must not block its thread: what takes long belongs on another one.
pub type Scanning = Pin<Box<dyn Future<Output = (Verdict, Box<dyn ScanBody>)> + Send>>;

/// A piece of a body.
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes, as they are on the wire inside of TLS: `Content-Encoding` is not undone.
    Data(Bytes),
    /// Nothing has come for a while, and the rest may take long. Said only when something waits.
    Quiet,
    /// It was whole.
    End,
}

/// What becomes of all pieces that wait.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// They wait for more. What waits is in memory, so a scan ends this before it is too much. At the end it is a pass.
    Hold,
    /// They go on.
    Pass,
    /// They do not, and nothing that comes after them.
    Block {
        /// Why, for the log and for whoever is told: one line.
        reason: String,
    },
}

/// Which of the two bodies of an exchange.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Direction {
    /// What the client sends.
    Request,
    /// What the server sends.
    Response,
}

/// What is known of a body when it begins.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BodyFacts<'f> {
    /// Whose body.
    pub direction: Direction,
    /// [`carnet::Flow::id`].
    pub flow_id: u128,
    /// Where the flow is going.
    pub destination: SocketAddr,
    /// User of the application.
    pub uid: Option<u32>,
    /// Its program.
    pub exe: Option<&'f Path>,
    /// The request's method.
    pub method: &'f str,
    /// The request's URL.
    pub url: &'f str,
    /// The answer's status; `None` in a request.
    pub status: Option<u16>,
    /// `Content-Type`, where there is one in ASCII.
    pub content_type: Option<&'f str>,
    /// `Content-Encoding`, likewise.
    pub content_encoding: Option<&'f str>,
    /// How long it says it is.
    pub length: Option<u64>,
}

impl BodyFacts<'_> {
    /// Of a body of which nothing more is known.
    pub fn new(direction: Direction, flow_id: u128, destination: SocketAddr) -> Self {
        Self {
            direction,
            flow_id,
            destination,
            uid: None,
            exe: None,
            method: "",
            url: "",
            status: None,
            content_type: None,
            content_encoding: None,
            length: None,
        }
    }
}

#[cfg(test)]
mod tests;
