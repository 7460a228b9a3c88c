//! What is said about a policy file: mistakes, warnings and notes, each with its place.

use std::fmt;

use crate::file::Place;

/// Something that is said about a policy file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What kind of thing it is; never changes its meaning.
    pub id: Id,
    /// Where.
    pub place: Place,
    /// What is said.
    pub what: String,
    /// What to do; empty where there is nothing better than to read `what`.
    pub action: String,
    /// Other places that have to do with it, and what is there.
    pub also: Vec<(Place, String)>,
}

/// A policy file that cannot be used: every mistake in it, at least one, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistakes {
    findings: Vec<Finding>,
}

/// What a finding means for the policy.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// It can be used, and something of it has no effect on this host as it is now.
    Note,
    /// It can be used, and perhaps does not do what was meant.
    Warning,
    /// It cannot be used.
    Mistake,
}

impl Finding {
    pub(super) fn new(id: Id, place: Place, what: impl Into<String>, action: impl Into<String>) -> Self {
        Self { id, place, what: what.into(), action: action.into(), also: Vec::new() }
    }

    pub(super) fn also(mut self, place: Place, what: impl Into<String>) -> Self {
        self.also.push((place, what.into()));
        self
    }

    /// What it means for the policy.
    pub fn level(&self) -> Level {
        self.id.level()
    }
}

impl Mistakes {
    /// `None` where there are none.
    pub(super) fn of(mut findings: Vec<Finding>, first_file: &str) -> Option<Self> {
        findings.sort_by_key(|finding| (finding.place.file != first_file, finding.place.span.start));
        (!findings.is_empty()).then_some(Self { findings })
    }

    /// Of at least one.
    pub(super) fn all(findings: Vec<Finding>) -> Self {
        Self { findings }
    }

    /// All of them, at least one.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            write!(f, "{}{finding}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    /// Several lines: the first is `FILE:LINE:COLUMN: LEVEL[ID]: WHAT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, place, what, action, also } = self;
        let Place { file, line, column, .. } = place;
        write!(f, "{file}:{line}:{column}: {}[{}]: {what}", id.level().name(), id.name())?;
        excerpt(f, place)?;
        for (place, what) in also {
            write!(f, "\n  {}:{}:{}: {what}", place.file, place.line, place.column)?;
            excerpt(f, place)?;
        }
        if !action.is_empty() {
            write!(f, "\n  do: {action}")?;
        }
        Ok(())
    }
}

/// The line, and below it what is meant.
fn excerpt(f: &mut fmt::Formatter<'_>, place: &Place) -> fmt::Result {
    let number = place.line.to_string();
    let blanks = " ".repeat(number.len());
    let before = " ".repeat(place.marked.start);
    let carets = "^".repeat(place.marked.len());
    write!(f, "\n  {number} | {}\n  {blanks} | {before}{carets}", place.text)
}

impl Level {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Mistake => "mistake",
        }
    }
}

/// All ids, by level, and what they are called.
macro_rules! ids {
    ($($level:ident { $($(#[$meta:meta])* $id:ident $name:literal)* })*) => {
        /// What kind of thing is said about a policy file.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Id {
            $($($(#[$meta])* $id,)*)*
        }

        impl Id {
            /// Every one.
            pub const ALL: &[Self] = &[$($(Self::$id,)*)*];

            /// What it is called.
            pub fn name(self) -> &'static str {
                match self { $($(Self::$id => $name,)*)* }
            }

            /// What it means for the policy.
            pub fn level(self) -> Level {
                match self { $($(Self::$id => Level::$level,)*)* }
            }
        }
    };
}

ids! {
    Mistake {
        /// It is no TOML.
        Syntax "syntax"
        /// A key that does not exist here.
        UnknownKey "unknown-key"
        /// A key that has to be here.
        MissingKey "missing-key"
        /// A key that cannot be here because of another.
        MisplacedKey "misplaced-key"
        /// A text where a number is expected, and the like.
        WrongType "wrong-type"
        /// None of the words that are possible.
        UnknownWord "unknown-word"
        /// A number that is too small or too large.
        WrongNumber "wrong-number"
        /// No prefix of addresses.
        WrongPrefix "wrong-prefix"
        /// No port and no range of ports.
        WrongPort "wrong-port"
        /// No address and port to dial.
        WrongListener "wrong-listener"
        /// No user, group or range of ids.
        WrongUser "wrong-user"
        /// No absolute path.
        WrongPath "wrong-path"
        /// A context that is too long, or no base64.
        WrongContext "wrong-context"
        /// No name for what has it.
        WrongName "wrong-name"
        /// A set that is not defined.
        UnknownSet "unknown-set"
        /// A set of prefixes where ports are expected, and the like.
        WrongSet "wrong-set"
        /// A provider that is not defined.
        UnknownProvider "unknown-provider"
        /// A provider whose connections never come to the one whose filter this is.
        LateVia "late-via"
        /// A filter that redirects UDP alone, which providers do not get.
        Udp "udp"
        /// A user that this host does not know.
        UnknownUser "unknown-user"
        /// A group that this host does not know.
        UnknownGroup "unknown-group"
        /// A file that cannot be read.
        UnreadableFile "unreadable-file"
        /// A cgroup that the kernel program cannot tell from those above it.
        TooDeep "too-deep"
        /// No owner: the root cgroup, or an executable.
        WrongOwner "wrong-owner"
        /// What must be unique is there twice.
        Duplicate "duplicate"
        /// More than fits.
        TooMany "too-many"
    }
    Warning {
        /// More services could have one connection than a record has room for.
        TooManyServices "too-many-services"
        /// An owner that others are, too.
        WideOwner "wide-owner"
        /// An owner that is within another provider's.
        OverlappingOwners "overlapping-owners"
        /// An executable that others than root can put something else in the place of.
        ForgeableExecutable "forgeable-executable"
        /// An executable that is a script: its interpreter is what runs.
        Script "script"
        /// A filter whose conditions hold for nothing.
        NeverMatches "never-matches"
        /// A filter behind another that decides everything it could.
        Shadowed "shadowed"
        /// A provider that no filter redirects to.
        Unreached "unreached"
        /// A provider whose filters redirect what its listeners cannot get.
        NoListener "no-listener"
        /// A filter that lets through what it should not, since that is not there (yet).
        NothingExcepted "nothing-excepted"
        /// A set that nothing uses.
        UnusedSet "unused-set"
    }
    Note {
        /// An executable that is not there (yet).
        NoExecutable "no-executable"
        /// A cgroup that is not there (yet).
        NoCgroup "no-cgroup"
        /// A network namespace that is not there (yet).
        NoNetns "no-netns"
        /// A provider without any owner that is there: it is dead.
        NoOwner "no-owner"
        /// What was not looked up.
        NotLookedUp "not-looked-up"
    }
}
