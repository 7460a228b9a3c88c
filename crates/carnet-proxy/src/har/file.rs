use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use serde::Serialize;

/// A HAR file that is whole after each entry: each is written over the end of the one before, together with a new end.
#[derive(Debug)]
pub(super) struct File {
    file: fs::File,
    /// Where the end is.
    end: u64,
    is_empty: bool,
}

impl File {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let version = env!("CARGO_PKG_VERSION");
        let head = format!(
            "{{\"log\":{{\"version\":\"1.2\",\"creator\":{{\"name\":\"carnet\",\"version\":\"{version}\"}},\"entries\":["
        );
        file.write_all_at([head.as_bytes(), END].concat().as_slice(), 0)?;
        Ok(Self { file, end: head.len() as u64, is_empty: true })
    }

    #[cfg(test)]
    pub(super) fn at(file: fs::File) -> Self {
        Self { file, end: 0, is_empty: true }
    }

    /// One call of the system where the kernel takes it whole, so that a process that is killed leaves a whole file.
    pub(super) fn append(&mut self, entry: &impl Serialize) -> io::Result<()> {
        let mut bytes = if self.is_empty { b"\n".to_vec() } else { b",\n".to_vec() };
        serde_json::to_writer(&mut bytes, entry)?;
        let length = bytes.len();
        bytes.extend_from_slice(END);
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            // The end again, where it was before: a disk that is full has room for that.
            let _ = self.file.write_all_at(END, self.end);
            let _ = self.file.set_len(self.end + END.len() as u64);
            return Err(error);
        }
        self.end += length as u64;
        self.is_empty = false;
        Ok(())
    }
}

const END: &[u8] = b"\n]}}\n";
