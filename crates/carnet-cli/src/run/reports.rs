//! What the built-in service tells: JSON lines from a pipe.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ChildStdout;

use anyhow::{Context, Result};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;

use crate::inspect::Message;

/// The reading end. Never waits.
pub struct Reports {
    pipe: Option<OwnedFd>,
    partial: Vec<u8>,
}

impl Reports {
    /// Reads from the service's standard output.
    pub fn new(stdout: ChildStdout) -> Result<Self> {
        let pipe = OwnedFd::from(stdout);
        let failed = "cannot prepare the report pipe";
        let flags = fcntl_getfl(&pipe).context(failed)?;
        fcntl_setfl(&pipe, flags | OFlags::NONBLOCK).context(failed)?;
        // Without room for it (a limit per user) names may be lost under load, and nothing else.
        let _ = fcntl_setpipe_size(pipe.as_fd(), PIPE_SIZE);
        Ok(Self { pipe: Some(pipe), partial: Vec::new() })
    }

    /// Gives all messages that are there.
    pub fn read(&mut self, each: &mut dyn FnMut(Message)) {
        let mut buffer = [0; 16 * 1024];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(size) => self.take(&buffer[..size], each),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    /// The service has no rights and reads what strangers send, so its words are not trusted: what is no message is
    /// dropped.
    fn take(&mut self, bytes: &[u8], each: &mut dyn FnMut(Message)) {
        self.partial.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(size) = self.partial[begin..].iter().position(|&byte| byte == b'\n') {
            if let Ok(message) = serde_json::from_slice(&self.partial[begin..begin + size]) {
                each(message);
            }
            begin += size + 1;
        }
        self.partial.drain(..begin);
        if self.partial.len() > LONGEST_LINE {
            self.partial.clear();
        }
    }
}

const PIPE_SIZE: usize = 1024 * 1024;
const LONGEST_LINE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cut_anywhere() {
        let line = b"{\"warning\":\"a\"}\nnonsense\n{\"warning\":\"b\"}\n";
        for cut in 0..line.len() {
            let mut reports = Reports { pipe: None, partial: Vec::new() };
            let mut messages = Vec::new();
            for part in [&line[..cut], &line[cut..]] {
                reports.take(part, &mut |message| messages.push(message));
            }
            assert_eq!(messages, ["a", "b"].map(|text| Message::Warning(text.into())), "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut reports = Reports { pipe: None, partial: Vec::new() };
        for _ in 0..1000 {
            reports.take(&[b'x'; 1000], &mut |_| panic!("no message"));
        }
        assert!(reports.partial.len() <= LONGEST_LINE + 1000);
    }
}
