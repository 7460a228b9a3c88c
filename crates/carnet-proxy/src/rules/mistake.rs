use std::fmt;

use super::source::Place;

/// One mistake in a rules file. Its `Display` has several lines; the first is `FILE:LINE:COLUMN: mistake[KIND]: WHAT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// What kind of mistake it is.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What to do; empty where there is nothing better than to read `what`.
    pub action: String,
    /// Another place that has to do with it, and what is there.
    pub also: Option<(Place, &'static str)>,
}

impl Mistake {
    pub(super) fn new(kind: Kind, place: Place, what: impl Into<String>, action: impl Into<String>) -> Self {
        Self { kind, place, what: what.into(), action: action.into(), also: None }
    }
}

impl std::error::Error for Mistake {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, place, what, action, also } = self;
        let Place { file, line, column, .. } = place;
        write!(f, "{file}:{line}:{column}: mistake[{}]: {what}", kind.name())?;
        excerpt(f, place)?;
        if let Some((place, what)) = also {
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

/// All kinds, and what they are called.
macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident $name:literal)*) => {
        /// What kind of mistake something is; never changes its meaning.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$meta])* $kind,)*
        }

        impl Kind {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// What it is called.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
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
    /// No name of a host, and no pattern of names.
    WrongName "wrong-name"
    /// No prefix of addresses.
    WrongPrefix "wrong-prefix"
    /// No port and no range of ports.
    WrongPort "wrong-port"
    /// No user and no range of uids.
    WrongUser "wrong-user"
    /// No whole path of a program, or of a cgroup.
    WrongPath "wrong-path"
    /// No JA4 fingerprint.
    WrongFingerprint "wrong-fingerprint"
    /// No rate.
    WrongRate "wrong-rate"
    /// A text that is empty, too long, or of several lines.
    WrongText "wrong-text"
    /// No host and port to dial.
    WrongAddress "wrong-address"
    /// A list of names that is not in the file.
    UnknownNames "unknown-names"
    /// An upstream that is not in the file.
    UnknownUpstream "unknown-upstream"
    /// A user that this host does not know.
    UnknownUser "unknown-user"
    /// A file that cannot be read.
    UnreadableFile "unreadable-file"
    /// What must be unique is there twice.
    Duplicate "duplicate"
}
