use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the process's soft limit of open files to the hard one, and returns the limit which then holds (`u64::MAX`:
/// none). A flow takes two files, so warn where this is less than twice the flows expected.
///
/// # Errors
///
/// Those of `setrlimit`; none is usual.
pub fn raise_file_limit() -> io::Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// The flows for which there are files: as many as the soft limit allows when the process needs [`FILES_BESIDE_FLOWS`].
pub(crate) fn flows_possible() -> usize {
    let files =
        getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    (files.saturating_sub(FILES_BESIDE_FLOWS) / 2).max(1)
}

/// Standard streams, listeners, the runtime's own, and room for whatever else the process has open.
const FILES_BESIDE_FLOWS: usize = 64;
