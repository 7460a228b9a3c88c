use serde::{Deserialize, Serialize};

use crate::Mistake;

/// A policy in a few numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PolicySummary {
    /// Counts up with every policy that is put in force.
    pub generation: u64,
    /// When it was put in force; RFC 3339, UTC. `null`: it is not.
    pub since: Option<String>,
    /// Where it came from: a file's name, or who sent it.
    pub source: String,
    /// Providers in it.
    pub providers: u32,
    /// Filters in it, the host's and all providers'.
    pub filters: u32,
    /// Prefixes in it, sets included.
    pub prefixes: u64,
    /// What happens to connections that no filter decides: `permit` or `block`.
    pub default: String,
}

/// What `PUT /v1/policy` is asked with.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicyRequest {
    /// The policy file.
    pub text: String,
    /// Only say what it would be.
    pub dry_run: bool,
    /// `If-Match`: only where the policy in force has this generation, so that nothing is replaced unseen.
    pub expected: Option<u64>,
}

/// What `PUT /v1/policy` and `POST /v1/reload` answer.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Applied {
    /// Whether it is in force now. With `dry-run=true` it is not.
    pub applied: bool,
    /// The policy that was sent, or read.
    pub policy: PolicySummary,
    /// What does not keep it from being put in force, but is likely not meant.
    #[serde(default)]
    pub warnings: Vec<Mistake>,
}
