//! What went wrong, as RFC 9457 has it.

use std::fmt;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{Caller, Role};

/// An answer of type `application/problem+json`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[error("{detail}{}", MistakeList(mistakes))]
pub struct Problem {
    /// What a program decides by.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// The kind, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, and what to do.
    pub detail: String,
    /// Each mistake in what was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<Mistake>,
    /// With `forbidden`, the role that is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// One mistake in a policy or a request.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mistake {
    /// From 1; 0: of no line.
    pub line: u32,
    /// From 1; 0: of no column.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// One for each thing that a caller can act on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum ProblemKind {
    /// 400: the request is no request of this API.
    #[serde(rename = "urn:problem-type:carnet:malformed")]
    Malformed,
    /// 403: the caller's role is too low.
    #[serde(rename = "urn:problem-type:carnet:forbidden")]
    Forbidden,
    /// 404: there is no such path, or no such provider.
    #[serde(rename = "urn:problem-type:carnet:not-found")]
    NotFound,
    /// 405: the path has other methods.
    #[serde(rename = "urn:problem-type:carnet:method")]
    Method,
    /// 408: the request's body did not arrive in time.
    #[serde(rename = "urn:problem-type:carnet:slow")]
    Slow,
    /// 409: the request does not go together with what is in force.
    #[serde(rename = "urn:problem-type:carnet:conflict")]
    Conflict,
    /// 413: the body is too large.
    #[serde(rename = "urn:problem-type:carnet:too-large")]
    TooLarge,
    /// 415: the body is of another type.
    #[serde(rename = "urn:problem-type:carnet:media-type")]
    MediaType,
    /// 422: well-formed, but it cannot be put in force. The mistakes say why.
    #[serde(rename = "urn:problem-type:carnet:mistakes")]
    Mistakes,
    /// 431: the head of the request is too large.
    #[serde(rename = "urn:problem-type:carnet:head-too-large")]
    HeadTooLarge,
    /// 500: the daemon or the kernel failed.
    #[serde(rename = "urn:problem-type:carnet:failed")]
    Failed,
    /// 503: too many connections, or the daemon is ending.
    #[serde(rename = "urn:problem-type:carnet:unavailable")]
    Unavailable,
    /// One that this version does not know.
    #[serde(rename = "about:blank", other)]
    Other,
}

impl Problem {
    /// Title and status are the kind's.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().into(),
            status: kind.status().as_u16(),
            detail: detail.into(),
            mistakes: Vec::new(),
            role: None,
        }
    }

    /// Adds what is wrong with what was sent.
    #[must_use]
    pub fn with_mistakes(mut self, mistakes: Vec<Mistake>) -> Self {
        self.mistakes = mistakes;
        self
    }

    /// The caller may not do this.
    pub fn forbidden(caller: &Caller, role: Role) -> Self {
        let list = role.list();
        let has = match caller.role {
            Some(has) => format!("is {has}"),
            None => "has no role".into(),
        };
        let detail = format!(
            "this needs the role {role}, and uid {} (gid {}) {has}: ask as root, or have an administrator add the uid \
             or the gid to `{list}` in the daemon's access lists (only the primary group counts)",
            caller.uid, caller.gid
        );
        Self { role: Some(role), ..Self::new(ProblemKind::Forbidden, detail) }
    }
}

impl ProblemKind {
    /// The HTTP status that goes with it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Mistakes => StatusCode::UNPROCESSABLE_ENTITY,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Failed | Self::Other => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Malformed => "the request is malformed",
            Self::Forbidden => "the caller may not do this",
            Self::NotFound => "there is no such thing",
            Self::Method => "the path has other methods",
            Self::Slow => "the request did not arrive in time",
            Self::Conflict => "this does not go together with what is in force",
            Self::TooLarge => "the body is too large",
            Self::MediaType => "the body is of another type",
            Self::Mistakes => "there are mistakes",
            Self::HeadTooLarge => "the head of the request is too large",
            Self::Failed => "the daemon failed",
            Self::Unavailable => "the daemon cannot answer now",
            Self::Other => "something else",
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line != 0 {
            write!(f, "line {}", self.line)?;
            if self.column != 0 {
                write!(f, ", column {}", self.column)?;
            }
            write!(f, ": ")?;
        }
        write!(f, "{}", self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// Each on a line of its own, below the detail.
struct MistakeList<'a>(&'a [Mistake]);

impl fmt::Display for MistakeList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}
