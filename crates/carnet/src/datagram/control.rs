//! Control data in Windows' form, as it is beside a datagram: a row of messages, each with its level, type and bytes.
//!
//! The form is that of the machine's width: on 64-bit machines a header of 16 bytes and rows of 8, on others 12 and 4.

use std::iter::FusedIterator;

/// A message of control data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'b> {
    /// The protocol it is of.
    pub level: i32,
    /// What it is, as a number of that protocol's.
    pub kind: i32,
    /// Its bytes, which may be none.
    pub data: &'b [u8],
}

/// The messages in control data, as [`messages`] finds them.
#[derive(Clone, Debug)]
pub struct Messages<'b> {
    rest: &'b [u8],
}

/// Walks through control data. It ends where a message is cut off, or says that it is shorter than its own header: the
/// whole ones before it count.
pub fn messages(control: &[u8]) -> Messages<'_> {
    Messages { rest: control }
}

/// Control data of these messages.
pub fn encode(messages: &[Message<'_>]) -> Vec<u8> {
    let mut control = Vec::new();
    for message in messages {
        control.extend((HEADER + message.data.len()).to_ne_bytes());
        control.extend(message.level.to_ne_bytes());
        control.extend(message.kind.to_ne_bytes());
        control.extend(message.data);
        control.resize(aligned(control.len()), 0);
    }
    control
}

impl<'b> Iterator for Messages<'b> {
    type Item = Message<'b>;

    fn next(&mut self) -> Option<Message<'b>> {
        let (length, fields) = self.rest.split_first_chunk()?;
        let (level, fields) = fields.split_first_chunk()?;
        let (kind, _) = fields.split_first_chunk()?;
        let length = usize::from_ne_bytes(*length);
        // None where the length is less than the header's or goes beyond the end: nothing moves, so that was the last.
        let data = self.rest.get(HEADER..length)?;

        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some(Message { level: i32::from_ne_bytes(*level), kind: i32::from_ne_bytes(*kind), data })
    }
}

impl FusedIterator for Messages<'_> {}

/// The length up to where the next message begins. What is rounded up is the length of bytes that are there, which is
/// far from the largest number.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// A pointer's width, and two numbers.
const HEADER: usize = size_of::<usize>() + 8;
const ALIGNMENT: usize = size_of::<usize>();
const _: () = assert!(HEADER.is_multiple_of(ALIGNMENT));
