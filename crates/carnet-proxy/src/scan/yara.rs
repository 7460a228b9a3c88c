//! Rules of YARA, applied by YARA-X.

use std::{
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use yara_x::{Compiler, Rules, SourceCode};

use super::{Match, Matcher, Unscanned};

/// Compiled rules of YARA.
pub struct YaraRules {
    rules: Rules,
    warnings: Vec<String>,
}

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum YaraError {
    /// A file, or a folder, cannot be read.
    #[error("cannot read the YARA rules {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A folder has no files of rules.
    #[error("{} has no files of YARA rules: their names end in .yar or .yara", path.display())]
    Empty {
        /// Which one.
        path: PathBuf,
    },
    /// The rules have mistakes. YARA-X describes each, with file, line and an excerpt.
    #[error("{}", mistakes.join("\n"))]
    Mistakes {
        /// All of them.
        mistakes: Vec<String>,
    },
    /// YARA-X makes machine code of rules, and may not. What it said is on standard error.
    #[error(
        "YARA-X cannot make machine code of the rules; where this is a systemd unit with MemoryDenyWriteExecute=, take \
         that out"
    )]
    NoMachineCode,
}

impl YaraRules {
    /// Compiles rules of files, and of the files `*.yar` and `*.yara` of folders. Each file is a namespace, which is
    /// called as the file is. What it includes is looked for in its folder.
    ///
    /// # Errors
    ///
    /// [`YaraError`].
    pub fn load(paths: &[PathBuf]) -> Result<Self, YaraError> {
        let mut compiler = Compiler::new();
        for path in files(paths)? {
            let text = fs::read(&path).map_err(|source| YaraError::Read { path: path.clone(), source })?;
            let name = path.display().to_string();
            if let Some(folder) = path.parent() {
                compiler.add_include_dir(if folder == Path::new("") { Path::new(".") } else { folder });
            }
            compiler.new_namespace(&name);
            // All mistakes of all files are told at once, below.
            let _ = compiler.add_source(SourceCode::from(text.as_slice()).with_origin(name));
        }
        if !compiler.errors().is_empty() {
            return Err(YaraError::Mistakes { mistakes: compiler.errors().iter().map(ToString::to_string).collect() });
        }
        // It panics where memory may not be executable.
        let rules = catch_unwind(AssertUnwindSafe(|| compiler.build())).map_err(|_| YaraError::NoMachineCode)?;
        let warnings = rules.warnings().iter().map(ToString::to_string).collect();
        Ok(Self { rules, warnings })
    }

    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.rules.iter().len()
    }

    /// What YARA-X thinks of them: a pattern that makes scans slow, for example.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Folders are gone through, in the order of names.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, YaraError> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |source| YaraError::Read { path: path.clone(), source };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries: io::Result<Vec<_>> = fs::read_dir(path).map_err(failed)?.collect();
        let mut inside: Vec<_> = entries.map_err(failed)?.iter().map(fs::DirEntry::path).collect();
        inside.retain(|file| file.extension().is_some_and(|extension| extension == "yar" || extension == "yara"));
        if inside.is_empty() {
            return Err(YaraError::Empty { path: path.clone() });
        }
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}

impl Matcher for YaraRules {
    fn matches(&self, data: &[u8], limit: Duration) -> Result<Vec<Match>, Unscanned> {
        let mut scanner = yara_x::Scanner::new(&self.rules);
        // Where a pattern was found is not of interest, so one place is enough.
        scanner.fast_scan(true).set_timeout(limit).max_matches_per_pattern(MOST_MATCHES);
        let results = scanner.scan(data).map_err(|error| match error {
            yara_x::ScanError::Timeout => Unscanned::Time,
            other => Unscanned::Failed(other.to_string()),
        })?;
        let found = results.matching_rules().map(|rule| Match {
            rule: rule.identifier().to_owned(),
            namespace: rule.namespace().to_owned(),
            tags: rule.tags().map(|tag| tag.identifier().to_owned()).collect(),
        });
        Ok(found.collect())
    }
}

impl fmt::Debug for YaraRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("YaraRules").field("rules", &self.count()).finish_non_exhaustive()
    }
}

/// More are not counted: each takes memory, and a server can send a body that is made of nothing else.
const MOST_MATCHES: usize = 10_000;
