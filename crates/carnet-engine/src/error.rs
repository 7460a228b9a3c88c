use std::path::PathBuf;
use std::{fmt, io};

/// What failed, in which state of affairs, and what to do. `Display` is one line; the OS error is the source.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller can act on.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The process may not load BPF programs or write to the cgroup hierarchy.
    NoPrivilege,
    /// No cgroup v2 hierarchy is mounted.
    NoCgroup2,
    /// The kernel lacks this; the loader's own words.
    MissingFeature(String),
    /// A cgroup that is not there.
    NoCgroup(PathBuf),
    /// The policy does not fit the engine's tables.
    Policy,
    /// No bpf file system is mounted, or not there.
    NoBpffs,
    /// Another engine has these pins; the id of its process where that can be seen.
    Held(Option<u32>),
    /// What is pinned is of a build that this one cannot go on from; which map it is about, where it is about one.
    Incompatible(Option<String>),
    /// Anything else.
    Io,
}

impl Error {
    /// What a caller can act on.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// `what` names the operation: "cannot create the cgroup /x".
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::NoPrivilege,
            _ => ErrorKind::Io,
        };
        Self { kind, what: what.into(), source: Some(Box::new(source)) }
    }

    pub(crate) fn bpf(what: impl Into<String>, source: libbpf_rs::Error) -> Self {
        let kind = match source.kind() {
            libbpf_rs::ErrorKind::PermissionDenied => ErrorKind::NoPrivilege,
            _ => ErrorKind::Io,
        };
        Self { kind, what: what.into(), source: Some(Box::new(source)) }
    }

    pub(crate) fn without_privilege(self) -> Self {
        Self { kind: ErrorKind::NoPrivilege, ..self }
    }

    pub(crate) fn missing(what: impl Into<String>, detail: String, source: libbpf_rs::Error) -> Self {
        Self { kind: ErrorKind::MissingFeature(detail), what: what.into(), source: Some(Box::new(source)) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        match &self.kind {
            ErrorKind::NoPrivilege => f.write_str(". Run it as root (sudo)"),
            ErrorKind::NoCgroup2 => f.write_str(
                ". Mount one: mount -t cgroup2 none /sys/fs/cgroup (or boot with systemd's unified hierarchy). \
                 `ip netns exec` hides it: use nsenter --net=/run/netns/NAME",
            ),
            ErrorKind::MissingFeature(detail) => {
                write!(
                    f,
                    " ({detail}). Carnet needs Linux 6.1 or newer with CONFIG_CGROUP_BPF and CONFIG_DEBUG_INFO_BTF"
                )
            }
            ErrorKind::NoBpffs => f.write_str(". Mount one: mount -t bpf -o mode=700 bpf /sys/fs/bpf"),
            ErrorKind::Held(Some(pid)) => write!(
                f,
                ". End it first (kill {pid}; where it is stopped or does not answer, kill -9 {pid}: what is in force stays), \
                 or give this one a folder of its own"
            ),
            ErrorKind::Held(None) => f.write_str(
                ". It is not to be seen from here, so it is in another container, say. End it first, or give this one a \
                 folder of its own",
            ),
            ErrorKind::Incompatible(_) => f.write_str(
                ". Nothing was changed, and the engine that is pinned goes on. Go back to the build that pinned it, or \
                 take it down first (`carnet down`) and start this one anew: connections that services have already asked \
                 about go on",
            ),
            ErrorKind::NoCgroup(_) | ErrorKind::Policy | ErrorKind::Io => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
