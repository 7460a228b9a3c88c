//! The one call, synchronous, as the size protocol wants it.

use std::{io, os::windows::io::BorrowedSocket};

use crate::{
    sys::{self, size_protocol::Refusal},
    winsock::IoctlError,
};

/// Returns the length of the answer in `output`, as the system tells it.
pub(super) fn ioctl(socket: BorrowedSocket<'_>, code: u32, input: &[u8], output: &mut [u8]) -> Result<usize, Refusal> {
    sys::ioctl(socket, code, input, output).map_err(Refusal::from)
}

impl From<IoctlError> for Refusal {
    fn from(error: IoctlError) -> Self {
        Self {
            error: io::Error::from_raw_os_error(error.number()),
            too_small: error.is_too_small(),
            needed: error.needed().unwrap_or(0),
        }
    }
}
