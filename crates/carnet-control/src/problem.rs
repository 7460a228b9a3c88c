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

/// One mistake in a policy or a request, or a warning. All but the message may be left out.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mistake {
    /// What kind of thing it is, as `carnet check` says it: `wide-owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// The file it is in. Left out: what was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// From 1; 0: of no line.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub line: u32,
    /// From 1; 0: of no column.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub column: u32,
    /// Bytes of the file: the first one meant, and the first behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<(u64, u64)>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// Other places that have to do with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Elsewhere>,
}

/// Another place that has to do with a mistake.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Elsewhere {
    /// The file. Left out: what was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// From 1; 0: of no line.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub line: u32,
    /// From 1; 0: of no column.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub column: u32,
    /// Bytes of the file: the first one meant, and the first behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<(u64, u64)>,
    /// What is there.
    pub message: String,
}

/// What is said of a policy, by what it means.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It can be used, and something of it has no effect on this host as it is now.
    Note,
    /// It can be used, and perhaps does not do what was meant.
    Warning,
    /// It cannot be used.
    Mistake,
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
    /// 412: what is in force is not what the caller said it is (`If-Match`).
    #[serde(rename = "urn:problem-type:carnet:precondition")]
    Precondition,
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
             or a group of it to `{list}` in the daemon's access lists",
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
            Self::Precondition => StatusCode::PRECONDITION_FAILED,
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
            Self::Precondition => "something else is in force meanwhile",
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
    /// One line, and one more for each other place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, self.file.as_deref(), self.line, self.column)?;
        write!(f, "{}", self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        self.also.iter().try_for_each(|elsewhere| write!(f, "\n    {elsewhere}"))
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, self.file.as_deref(), self.line, self.column)?;
        write!(f, "{}", self.message)
    }
}

fn place(f: &mut fmt::Formatter<'_>, file: Option<&str>, line: u32, column: u32) -> fmt::Result {
    let parts = [
        file.map(str::to_owned),
        (line != 0).then(|| format!("line {line}")),
        (line != 0 && column != 0).then(|| format!("column {column}")),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    match &parts[..] {
        [] => Ok(()),
        parts => write!(f, "{}: ", parts.join(", ")),
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Each on a line of its own, below the detail.
struct MistakeList<'a>(&'a [Mistake]);

impl fmt::Display for MistakeList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Elsewhere, Level, Mistake};

    #[test]
    fn a_mistake_is_told_with_its_places() {
        let elsewhere = Elsewhere { line: 7, message: "the first is here".into(), ..Elsewhere::default() };
        let mistake = Mistake {
            id: Some("twice".into()),
            level: Some(Level::Mistake),
            file: Some("corp.txt".into()),
            line: 20,
            column: 8,
            span: Some((190, 192)),
            message: "two have the rank 10".into(),
            suggestion: Some("change one".into()),
            also: vec![elsewhere],
        };
        let told = "corp.txt, line 20, column 8: two have the rank 10; change one\n    line 7: the first is here";
        assert_eq!(mistake.to_string(), told);
        let json = serde_json::to_string(&mistake).unwrap();
        assert_eq!(serde_json::from_str::<Mistake>(&json).unwrap(), mistake);

        let bare: Mistake = serde_json::from_str(r#"{"message":"no policy"}"#).unwrap();
        assert_eq!(bare, Mistake { message: "no policy".into(), ..Mistake::default() });
        assert_eq!(bare.to_string(), "no policy");
        assert_eq!(serde_json::to_string(&bare).unwrap(), r#"{"message":"no policy"}"#);
    }
}
