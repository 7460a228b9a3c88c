//! Reads a policy file from disk, with the files that it names.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use carnet_policy::file::{Host, Loader, Mistakes, PolicyFile, Resolved};

/// What findings call standard input.
const INPUT: &str = "-";

/// A policy file, or what is wrong with it; `-` is standard input. The error is that it cannot be read at all.
pub fn read(path: &Path, host: &dyn Host) -> Result<Result<(PolicyFile, Resolved), Mistakes>> {
    let (name, folder, bytes) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        (INPUT.to_owned(), Folder::current(), io::stdin().read_to_end(&mut bytes).map(|_| bytes))
    } else {
        (path.display().to_string(), Folder::of(path), fs::read(path))
    };
    let bytes =
        bytes.with_context(|| format!("cannot read {}", if name == INPUT { "standard input" } else { &name }))?;
    Ok(PolicyFile::text(&name, bytes).and_then(|text| PolicyFile::read(&name, &text, &folder, host)))
}

/// Where paths that are not absolute begin.
pub struct Folder(PathBuf);

impl Folder {
    /// The one that a policy file is in.
    pub fn of(file: &Path) -> Self {
        Self(file.parent().unwrap_or(Path::new("")).to_owned())
    }

    /// The one that this process is in.
    pub fn current() -> Self {
        Self(PathBuf::new())
    }
}

impl Loader for Folder {
    fn load(&self, path: &Path) -> io::Result<String> {
        let path = self.0.join(path);
        // A pipe would be waited for, and a device has no end.
        if !fs::metadata(&path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        fs::read_to_string(path)
    }
}
