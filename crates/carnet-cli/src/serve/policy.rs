//! A policy's text, with what sessions add to it, and what that comes to on this host now.

use std::fmt;
use std::path::Path;

use carnet_control::{Elsewhere, Level, Mistake, PolicySummary, Problem, ProblemKind};
use carnet_policy::file::{self, Finding, Loader, Mistakes, Place, PolicyFile, Resolved};
use carnet_policy::{Executable, Filter, HostAction, Match, Policy};

use super::state::PolicyText;
use crate::host::ThisHost;
use crate::policy_file::Folder;

/// One that may be put in force.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// As it was given.
    pub given: PolicyText,
    /// Without what sessions have added.
    base: PolicyFile,
    /// With it.
    whole: PolicyFile,
    /// The whole as it was resolved last. Handles are given later.
    pub resolved: Resolved,
    /// Programs that are meant by paths at which others are now.
    pub kept: Vec<(String, Executable)>,
}

/// Whose files a policy may name: what is wrong in one is quoted.
#[derive(Clone, Copy, Debug)]
pub enum Files<'a> {
    /// Those that are named from the folder of this policy file.
    Beside(&'a Path),
    /// None.
    Forbidden,
}

/// Why a policy is not put in force; the one before is.
#[derive(Debug)]
pub enum Refused {
    /// It has mistakes.
    Mistakes(Mistakes),
    /// This host could not say who these users and groups are.
    Unasked(Vec<Finding>),
    /// It does not go together with what is in force.
    Conflict(String),
    /// The kernel or the host failed.
    Failed(anyhow::Error),
}

impl Candidate {
    /// Reads a text; `added` is by name what sessions have registered.
    pub fn read(
        given: PolicyText,
        files: Files,
        added: &[(String, String)],
        host: &ThisHost,
        kept: Vec<(String, Executable)>,
    ) -> Result<Self, Refused> {
        let folder;
        let loader: &dyn Loader = match files {
            Files::Beside(file) => {
                folder = Folder::of(file);
                &folder
            }
            Files::Forbidden => &NoFiles,
        };
        let (base, _) = PolicyFile::read(&given.source, &given.text, loader, host)?;
        Self::of(given, base, added, host, kept)
    }

    /// The same text with other registrations.
    pub fn with(
        &self,
        added: &[(String, String)],
        host: &ThisHost,
        kept: Vec<(String, Executable)>,
    ) -> Result<Self, Refused> {
        Self::of(self.given.clone(), self.base.clone(), added, host, kept)
    }

    /// Looks up again what it names.
    pub fn again(&self, host: &ThisHost, kept: Vec<(String, Executable)>) -> Result<Self, Refused> {
        let resolved = resolve(&self.whole, host, &kept)?;
        Ok(Self { resolved, kept, ..self.clone() })
    }

    fn of(
        given: PolicyText,
        base: PolicyFile,
        added: &[(String, String)],
        host: &ThisHost,
        kept: Vec<(String, Executable)>,
    ) -> Result<Self, Refused> {
        let mut whole = base.clone();
        for (name, text) in added {
            whole = whole.extend(name, text)?;
        }
        let resolved = resolve(&whole, host, &kept)?;
        Ok(Self { given, base, whole, resolved, kept })
    }

    /// The image of `policy`, which is this one's, or less.
    pub fn compile(&self, policy: Policy, generation: u64) -> Result<carnet_policy::Image, Refused> {
        let mut resolved = self.resolved.clone();
        resolved.policy = policy;
        Ok(self.whole.compile(&resolved, generation, &mut |_| {})?)
    }

    /// What does not keep it from being put in force.
    pub fn warnings(&self, host: &ThisHost) -> Vec<Finding> {
        let warnings = self.whole.warnings(&self.resolved, host).into_iter();
        warnings.chain(self.resolved.notes.clone()).collect()
    }

    /// In a few numbers. It is of this generation, and in force since then, if it is.
    pub fn summary(&self, generation: u64, since: Option<String>) -> PolicySummary {
        let policy = &self.resolved.policy;
        let filters = policy.providers.iter().flat_map(|provider| &provider.filters);
        let matches = filters.map(|Filter { matches, .. }| matches);
        let matches: Vec<_> = matches.chain(policy.filters.iter().map(|filter| &filter.matches)).collect();
        PolicySummary {
            generation,
            since,
            source: self.given.source.clone(),
            providers: policy.providers.len() as u32,
            filters: matches.len() as u32,
            prefixes: matches.iter().map(|matches| prefixes(matches)).sum(),
            default: match policy.default {
                HostAction::Permit => "permit",
                HostAction::Block => "block",
            }
            .into(),
        }
    }
}

fn resolve(file: &PolicyFile, host: &ThisHost, kept: &[(String, Executable)]) -> Result<Resolved, Refused> {
    let resolved = file.resolve_keeping(host, kept)?;
    match resolved.unasked.is_empty() {
        true => Ok(resolved),
        false => Err(Refused::Unasked(resolved.unasked)),
    }
}

fn prefixes(matches: &Match) -> u64 {
    let lists = matches.remote.only.iter().flatten().chain(&matches.remote.except);
    lists.map(|list| list.len() as u64).sum()
}

/// A finding as the control API tells it; `sent` is the name of what was sent.
pub fn mistake(finding: &Finding, sent: &str) -> Mistake {
    let file = |place: &Place| (place.file != sent).then(|| place.file.clone());
    let span = |place: &Place| Some((place.span.start as u64, place.span.end as u64));
    let elsewhere = |(place, what): &(Place, String)| Elsewhere {
        file: file(place),
        line: number(place.line),
        column: number(place.column),
        span: span(place),
        message: what.clone(),
    };
    Mistake {
        id: Some(finding.id.name().into()),
        level: Some(match finding.level() {
            file::Level::Note => Level::Note,
            file::Level::Warning => Level::Warning,
            file::Level::Mistake => Level::Mistake,
        }),
        file: file(&finding.place),
        line: number(finding.place.line),
        column: number(finding.place.column),
        span: span(&finding.place),
        message: finding.what.clone(),
        suggestion: (!finding.action.is_empty()).then(|| finding.action.clone()),
        also: finding.also.iter().map(elsewhere).collect(),
    }
}

fn number(number: usize) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

impl Refused {
    /// As the control API tells it; `sent` is the name of what was sent.
    pub fn problem(&self, sent: &str) -> Problem {
        let of = |findings: &[Finding], detail| {
            let all = findings.iter().map(|finding| mistake(finding, sent)).collect();
            Problem::new(ProblemKind::Mistakes, detail).with_mistakes(all)
        };
        match self {
            Self::Mistakes(mistakes) => {
                let count = mistakes.findings().len();
                let s = if count == 1 { "" } else { "s" };
                of(mistakes.findings(), format!("{count} mistake{s}; what was in force stays"))
            }
            Self::Unasked(findings) => of(findings, format!("{self}; what was in force stays")),
            Self::Conflict(why) => Problem::new(ProblemKind::Conflict, why),
            Self::Failed(error) => Problem::new(ProblemKind::Failed, crate::one_line(error)),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mistakes(mistakes) => mistakes.fmt(f),
            Self::Unasked(findings) => {
                f.write_str("this host cannot say now who the users and groups are that the policy names")?;
                findings.iter().try_for_each(|finding| write!(f, "\n{finding}"))
            }
            Self::Conflict(why) => f.write_str(why),
            Self::Failed(error) => f.write_str(&crate::one_line(error)),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Mistakes> for Refused {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mistakes(mistakes)
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<carnet_engine::Error> for Refused {
    fn from(error: carnet_engine::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// For those whom nothing of a file may be told.
struct NoFiles;

impl Loader for NoFiles {
    fn load(&self, _: &Path) -> std::io::Result<String> {
        let what =
            "over the control socket, files of sets are read for root alone: `carnet apply` sends what is in them";
        Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, what))
    }
}
