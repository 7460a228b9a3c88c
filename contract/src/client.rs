//! An application whose connections are redirected.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result};

/// Holds a connection to each until its service has closed it. What the last one says is printed.
pub fn connect(addresses: &[SocketAddr]) -> Result<()> {
    let connect = |&address| {
        TcpStream::connect(address)
            .map(|stream| (address, stream))
            .with_context(|| format!("cannot connect to {address}"))
    };
    let streams = addresses.iter().map(connect).collect::<Result<Vec<_>>>()?;
    let mut said = String::new();
    for (address, stream) in streams {
        said = heard(stream).with_context(|| format!("cannot read what comes from {address}"))?;
    }
    io::stdout().write_all(said.as_bytes()).context("cannot write to standard output")
}

/// Until it ends, or too much has come: where nothing redirects it is anybody who answers.
fn heard(stream: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.take(LIMIT).read_to_end(&mut bytes)?;
    let mut said = shown(&bytes);
    if bytes.len() as u64 == LIMIT {
        said.push_str("\n(there may be more)\n");
    }
    Ok(said)
}

/// Bytes that are no text, and those with which a terminal does something, are shown as U+FFFD.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Many times the longest report.
const LIMIT: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_is_printed_as_text_and_within_limits() {
        assert_eq!(heard(&b"CASE  RULE\n\xff\x1b[2Jok\n"[..]).expect("memory"), "CASE  RULE\n\u{fffd}\u{fffd}[2Jok\n");
        let endless = heard(io::repeat(b'.')).expect("memory");
        assert_eq!(endless.trim_start_matches('.'), "\n(there may be more)\n");
        assert_eq!(endless.matches('.').count() as u64, LIMIT);
    }
}
