//! Standard output of commands that write once.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes it all. A reader who goes away has read enough, which is no failure.
pub fn write_out(bytes: &[u8]) -> Result<Reader> {
    match io::stdout().write_all(bytes) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error).context("cannot write"),
    }
}

/// Whether there is anybody to write more for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    There,
    Gone,
}
