//! What a case is: a question to the system, what Microsoft's pages answer, and what Carnet answers on Linux.

use std::{fmt, io};

use crate::stage::Stage;

/// One question. Cases are asked in the order of the catalogue, each in a thread of its own.
pub struct Case {
    pub group: &'static str,
    /// Unique; `docs/contract.md` calls it by this.
    pub id: String,
    /// Of the rules and tables in `docs/contract.md`.
    pub rule: &'static str,
    /// In one line.
    pub about: String,
    /// Every answer that a page gives; several where pages contradict each other, none where they are silent. Each may be
    /// the beginning of the whole answer.
    pub documented: Vec<String>,
    pub linux: Linux,
    /// On Linux outside every engine; `None`: the same.
    pub without_engine: Option<String>,
    /// Programs can make the call on Windows.
    pub on_windows: bool,
    pub needs: Vec<Need>,
    pub ask: Box<dyn Fn(&Stage) -> Answer + Send + Sync>,
}

/// What Carnet does on Linux, by decision.
pub enum Linux {
    Answers(String),
    /// It cannot occur there, and this is why.
    Never(&'static str),
}

/// What a case cannot do without.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// A redirected connection.
    Record,
    /// A redirected connection with a context.
    Context,
    /// A redirected connection without a context.
    NoContext,
    /// A connection to the service that came past the redirection.
    Lost,
    /// A record which another service has read.
    OthersRecord,
    /// What the context should be.
    KnownContext,
    /// A system that answers none of the operations.
    NoEngine,
    /// A process with elevated rights.
    Elevated,
    /// A process without.
    NotElevated,
}

/// The answer in one line, or why there is none.
pub type Answer = Result<String, Stop>;

/// Why a case has no answer.
#[derive(Debug)]
pub enum Stop {
    /// A step before the question has answered it.
    Answered(String),
    /// It could not be asked here.
    NotRun(String),
    /// A step before the question failed.
    Failed(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Case {
    pub fn new(group: &'static str, id: impl Into<String>, rule: &'static str, about: impl Into<String>) -> Self {
        Self {
            group,
            id: id.into(),
            rule,
            about: about.into(),
            documented: Vec::new(),
            linux: Linux::Answers(String::new()),
            without_engine: None,
            on_windows: true,
            needs: Vec::new(),
            ask: Box::new(|_| Err(Stop::NotRun("nothing is asked".into()))),
        }
    }

    /// One of the answers that the pages give.
    pub fn documented(mut self, answer: impl Into<String>) -> Self {
        self.documented.push(answer.into());
        self
    }

    pub fn linux(mut self, answer: impl Into<String>) -> Self {
        self.linux = Linux::Answers(answer.into());
        self
    }

    pub fn never_on_linux(mut self, why: &'static str) -> Self {
        self.linux = Linux::Never(why);
        self
    }

    /// Where no engine answers. What is asked of the engine then is not supported.
    pub fn without_engine(mut self, answer: impl Into<String>) -> Self {
        self.without_engine = Some(answer.into());
        self
    }

    /// On Windows no program makes this call, so nothing can be recorded there.
    pub fn not_on_windows(mut self) -> Self {
        self.on_windows = false;
        self
    }

    pub fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    pub fn ask(mut self, ask: impl Fn(&Stage) -> Answer + Send + Sync + 'static) -> Self {
        self.ask = Box::new(ask);
        self
    }

    /// How Carnet's answer on Linux stands to what is documented.
    pub fn verdict(&self) -> Verdict {
        match &self.linux {
            _ if self.documented.is_empty() => Verdict::Unknown,
            Linux::Never(_) => Verdict::Differs,
            Linux::Answers(answer) if self.documented.iter().any(|documented| begins(answer, documented)) => {
                Verdict::Same
            }
            Linux::Answers(_) => Verdict::Differs,
        }
    }
}

/// How two systems' answers stand to each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Same,
    Differs,
    /// No page says what Windows answers.
    Unknown,
    /// Not asked.
    NotRun,
    /// Carnet's answer is not the one it should be.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Unknown => "unknown",
            Self::NotRun => "not run",
            Self::Failed => "FAILED",
        })
    }
}

/// Whether it is the answer, or ends there where the answer goes on with another part.
fn begins(answer: &str, documented: &str) -> bool {
    answer.strip_prefix(documented).is_some_and(|rest| rest.is_empty() || rest.starts_with([',', ';']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documented_answer_may_be_the_beginning() {
        assert!(begins("WSAEFAULT, bytes = 0", "WSAEFAULT"));
        assert!(begins("ok; ok", "ok"));
        assert!(begins("ok", "ok"));
        assert!(!begins("ok", "ok, bytes = 0"));
        assert!(!begins("WSAEINVALID", "WSAEINVAL"));
    }
}
