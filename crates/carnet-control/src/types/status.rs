use serde::{Deserialize, Serialize};

use super::PolicySummary;

/// What `GET /v1/status` answers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// Of the daemon's build.
    pub version: String,
    /// The engine's instance id, 16 hexadecimal digits. Records of another instance are refused.
    pub instance: String,
    /// The daemon's process.
    pub pid: u32,
    /// When the daemon began; RFC 3339, UTC.
    pub since: String,
    /// It found programs of an earlier daemon at work, and took them over.
    pub adopted: bool,
    /// The cgroups it governs, as paths below the cgroup2 mount.
    pub cgroups: Vec<String>,
    /// The policy in force.
    pub policy: PolicySummary,
    /// Providers, those of sessions included.
    pub providers: u32,
    /// Sessions that hold a registration now.
    pub sessions: u32,
    /// Flows open now.
    pub flows: u64,
    /// Events that the kernel's buffer had no room for, so that flows may be missing from the log.
    pub lost: u64,
}

/// What `POST /v1/down` answers.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Removed {
    /// What was removed from the kernel, for people.
    pub removed: Vec<String>,
}
