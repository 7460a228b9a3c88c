use super::{Found, Progress};
use crate::rules::Protocol;

/// The line with which an SSH client begins: `SSH-2.0-OpenSSH_9.2p1 and more`.
#[derive(Debug, Default)]
pub(super) struct Banner {
    line: Vec<u8>,
}

pub(super) const BEGIN: &[u8] = b"SSH-";

impl Banner {
    pub(super) fn read(&mut self, bytes: &[u8]) -> Progress {
        let room = LINE_MAX - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        match self.line.iter().position(|&byte| byte == b'\n') {
            Some(end) => found(&self.line[..end]).map_or(Progress::Nothing, Progress::Found),
            None if self.line.len() < LINE_MAX => Progress::More,
            None => Progress::Nothing,
        }
    }
}

fn found(line: &[u8]) -> Option<Found> {
    let rest = line.strip_prefix(BEGIN)?;
    let dash = rest.iter().position(|&byte| byte == b'-')?;
    let (version, rest) = (&rest[..dash], &rest[dash + 1..]);
    if version.is_empty() || !version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return None;
    }
    let software = rest.split(|byte| b" \r".contains(byte)).next().filter(|software| !software.is_empty());
    let software = software.map(|software| software.escape_ascii().to_string());
    Some(Found { software, ..Found::new(Protocol::Ssh) })
}

/// RFC 4253, section 4.2, the line's end included.
const LINE_MAX: usize = 255;
