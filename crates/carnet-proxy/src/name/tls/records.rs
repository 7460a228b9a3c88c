use super::HANDSHAKE;

/// Takes the headers of records from a stream.
#[derive(Debug, Default)]
pub(super) struct Records {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    begun: usize,
    /// Bytes of the record that have not.
    left: usize,
}

/// A record that cannot be part of a hello.
#[derive(Debug)]
pub(super) struct Unfit;

impl Records {
    /// What comes next of a record's content; `None` when `bytes` are used up.
    pub(super) fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Option<Result<&'b [u8], Unfit>> {
        while self.left == 0 {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            self.header[self.begun] = byte;
            self.begun += 1;
            if self.begun == HEADER {
                self.begun = 0;
                let [kind, major, _, high, low] = self.header;
                self.left = u16::from_be_bytes([high, low]).into();
                // Handshake records may not be empty (RFC 8446, section 5.1).
                if kind != HANDSHAKE || major != MAJOR || !(1..=CONTENT_MAX).contains(&self.left) {
                    return Some(Err(Unfit));
                }
            }
        }
        if bytes.is_empty() {
            return None;
        }
        let (content, rest) = bytes.split_at(bytes.len().min(self.left));
        *bytes = rest;
        self.left -= content.len();
        Some(Ok(content))
    }
}

const HEADER: usize = 5;
/// Of all versions from SSL 3.0 on.
const MAJOR: u8 = 3;
const CONTENT_MAX: usize = 1 << 14;
