use std::{io, path::PathBuf};

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or opened.
    #[error("cannot read {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file or folder cannot be made, written or removed.
    #[error("cannot write {path}; give a folder that this user may write to")]
    Write {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others could have the key, or change it.
    #[error("{path} {problem}, so the authority is not used; {}", problem.remedy())]
    Unsafe {
        /// Path of the file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// What is in a file is no authority.
    #[error("{path} {what}; `carnet ca remove` removes it, and the next use makes a new one")]
    Broken {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no authority in the folder.
    #[error("there is no certificate authority in {folder}; `carnet ca install` makes one")]
    None {
        /// The folder.
        folder: PathBuf,
    },
    /// There is nothing to make a bundle of.
    #[error("this system has no bundle of certificates; install the package ca-certificates")]
    NoSystemBundle,
    /// The key or the certificate cannot be made.
    #[error("cannot make a certificate authority; see that the clock is right")]
    Make {
        /// The cause.
        source: rcgen::Error,
    },
    /// The system gives no random numbers, or the clock no date that a certificate can have.
    #[error("cannot make a certificate authority: {what}")]
    System {
        /// What is missing.
        what: &'static str,
    },
}

/// Why a file or folder is not trusted with a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It is somebody else's.
    #[error("belongs to the user {uid}")]
    Owner {
        /// Whose.
        uid: u32,
    },
    /// Others can read it.
    #[error("can be read by others (mode {mode:04o})")]
    Readable {
        /// Its mode.
        mode: u32,
    },
    /// Others can write to it.
    #[error("can be written to by others (mode {mode:04o})")]
    Writable {
        /// Its mode.
        mode: u32,
    },
    /// It leads elsewhere.
    #[error("is a symbolic link")]
    Link,
    /// It is something else than it should be.
    #[error("is not a {expected}")]
    Kind {
        /// What it should be.
        expected: &'static str,
    },
}

impl Problem {
    /// What to do about it.
    fn remedy(self) -> &'static str {
        match self {
            Self::Readable { .. } => "others may have the key: `carnet ca remove` takes it out of use",
            Self::Writable { .. } => "take that right away with chmod, and see that what is in it is yours",
            Self::Owner { .. } => "run this as that user, or give another folder",
            Self::Link | Self::Kind { .. } => "give a folder of its own",
        }
    }
}

/// Why there is no certificate for a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// The authority's own certificate is not valid any more, or not yet.
    #[error(
        "the certificate authority is not valid at this time; `carnet ca show` tells until when it was, and a restart makes a new one"
    )]
    NotValidNow,
    /// What is asked for is no name or address of a server that a certificate can have.
    #[error("no certificate can be made for a server of this kind of name")]
    Name,
    /// It could not be signed.
    #[error("cannot sign a certificate")]
    Sign {
        /// The cause.
        source: rcgen::Error,
    },
    /// The system gives no random numbers.
    #[error("cannot sign a certificate: the system gives no random numbers")]
    Random,
}
