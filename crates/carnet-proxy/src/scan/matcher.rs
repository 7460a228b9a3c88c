//! What says whether bytes match.

use std::{fmt, time::Duration};

/// Rules that bytes may match. What it looks at is one piece to it: it keeps nothing from one call to the next.
pub trait Matcher: fmt::Debug + Send + Sync {
    /// All rules that `data` matches. It is called on threads that may block.
    ///
    /// # Errors
    ///
    /// [`Unscanned::Time`] where it takes longer than `limit`, [`Unscanned::Failed`] for any other reason.
    fn matches(&self, data: &[u8], limit: Duration) -> Result<Vec<Match>, Unscanned>;
}

/// A rule that matches.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Match {
    /// Its name.
    pub rule: String,
    /// Where the name is unique.
    pub namespace: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// Why a body, or a part of it, was not looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Unscanned {
    /// It took too long.
    Time,
    /// It becomes too long when its `Content-Encoding` is undone.
    Length,
    /// There was no memory to undo its `Content-Encoding`.
    Memory,
    /// The rules could not be applied.
    Failed(String),
}

impl fmt::Display for Unscanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time => f.write_str("the scan took too long"),
            Self::Length => f.write_str("decoded, the body is too long"),
            Self::Memory => f.write_str("too many bodies are scanned at a time to decode this one"),
            Self::Failed(error) => write!(f, "the scan failed: {error}"),
        }
    }
}

impl Unscanned {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Length => "length",
            Self::Memory => "memory",
            Self::Failed(_) => "failed",
        }
    }
}
