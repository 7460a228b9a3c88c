//! Cookies of network namespaces, asked of the kernel once for each.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// Those that have been asked for. While one is among them its inode is no other one's.
#[derive(Debug, Default)]
pub struct Namespaces {
    known: Mutex<HashMap<PathBuf, Known>>,
}

#[derive(Debug)]
struct Known {
    file: File,
    cookie: u64,
    asked: Instant,
}

impl Namespaces {
    /// The cookie of the namespace at this path.
    pub fn cookie(&self, path: &Path) -> io::Result<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let now = fs::metadata(path).map(identity);
        if let (Ok(now), Some(there)) = (&now, known.get_mut(path))
            && there.file.metadata().map(identity).is_ok_and(|then| then == *now)
        {
            there.asked = Instant::now();
            return Ok(there.cookie);
        }
        // One that is gone must not be kept alive here.
        known.remove(path);
        // Without opening what is there: that may be anything.
        let file = OpenOptions::new().read(true).custom_flags(OFlags::PATH.bits() as i32).open(path)?;
        let cookie = carnet_engine::netns_cookie(path)?;
        if file.metadata().map(identity)? == fs::metadata(path).map(identity)? {
            known.insert(path.to_owned(), Known { file, cookie, asked: Instant::now() });
        }
        Ok(cookie)
    }

    /// Lets those go that no policy names any more.
    pub fn forget_unused(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| known.asked.elapsed() < UNUSED);
    }
}

/// One that is named is asked for at each look.
const UNUSED: Duration = Duration::from_secs(10);
