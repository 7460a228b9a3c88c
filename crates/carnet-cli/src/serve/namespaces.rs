//! Cookies of network namespaces, asked of the kernel once for each.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Those that have been asked for. While one is among them its inode is no other one's.
#[derive(Debug, Default)]
pub struct Namespaces {
    known: Mutex<HashMap<PathBuf, Known>>,
}

#[derive(Debug)]
struct Known {
    file: File,
    cookie: u64,
}

impl Namespaces {
    /// The cookie of the namespace at this path.
    pub fn cookie(&self, path: &Path) -> io::Result<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let now = fs::metadata(path).map(identity);
        if let (Ok(now), Some(there)) = (&now, known.get(path))
            && there.file.metadata().map(identity).is_ok_and(|then| then == *now)
        {
            return Ok(there.cookie);
        }
        // One that is gone must not be kept alive here.
        known.remove(path);
        let file = File::open(path)?;
        let cookie = carnet_engine::netns_cookie(path)?;
        if file.metadata().map(identity)? == fs::metadata(path).map(identity)? {
            known.insert(path.to_owned(), Known { file, cookie });
        }
        Ok(cookie)
    }
}
