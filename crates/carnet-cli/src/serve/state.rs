//! What the next daemon has to know beside what is in the kernel: the policy's text, who has which handle, and what
//! sessions have registered.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use carnet_policy::Handles;
use serde::{Deserialize, Serialize};

use super::programs::SavedProgram;

/// Kept in a file that is replaced as a whole, before what it says is put in force.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// Instance id of the engine that it is about. Of another engine's, nothing is of use.
    pub engine: u64,
    /// Those given.
    pub handles: Handles,
    /// The policy in force.
    pub policy: PolicyText,
    /// The daemon's own policy file as it was when that policy came into force. Where it is still the same, a policy that
    /// was put in its place over the control socket stays.
    pub file: String,
    /// Inodes of listeners that were held, which the kernel program knows by their marks.
    #[serde(default)]
    pub marked: BTreeSet<u32>,
    /// Programs that the policy names.
    #[serde(default)]
    pub programs: Vec<SavedProgram>,
    /// Registrations in force.
    pub sessions: Vec<SavedSession>,
}

/// A policy as it was given.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyText {
    /// All of it.
    pub text: String,
    /// Where it came from, for people.
    pub source: String,
}

/// A registration as the next daemon keeps it for a while, so that its provider can come back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SavedSession {
    /// In the words of the policy file.
    pub text: String,
    /// Names of its providers.
    pub providers: Vec<String>,
    /// Who registered it.
    pub uid: u32,
    /// Inodes of the listeners that were passed, which the kernel program knows by their marks.
    pub marked: BTreeSet<u32>,
}

/// Its place.
#[derive(Debug)]
pub struct StateFile(PathBuf);

impl StateFile {
    /// In a folder, which is made where it is not there.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder.join("state.json")))
    }

    /// What the last daemon left. `Ok(None)`: nothing. What cannot be read is put aside, and said.
    pub fn read(&self) -> Result<Option<State>> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.0.display())),
        };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", self.0.display()))
    }

    /// Puts it in the place of what is there.
    pub fn write(&self, state: &State) -> Result<()> {
        let new = self.0.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(state)?)?;
            fs::rename(&new, &self.0)
        };
        write().with_context(|| format!("cannot write {}", self.0.display()))
    }

    /// Takes it away.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_folder(&folder.path().join("new")).unwrap();
        assert!(file.read().unwrap().is_none());
        let saved = SavedSession { text: "x".into(), providers: vec!["p".into()], uid: 7, marked: [9].into() };
        let state = State { engine: u64::MAX, sessions: vec![saved], ..State::default() };
        file.write(&state).unwrap();
        let read = file.read().unwrap().unwrap();
        assert_eq!((read.engine, read.sessions), (state.engine, state.sessions));
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(file.read().unwrap().is_none());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("state.json"), "{").unwrap();
        let error = StateFile::in_folder(folder.path()).unwrap().read().unwrap_err();
        assert!(error.to_string().ends_with("state.json is damaged"), "{error:#}");
    }
}
