//! The caller's buffers: how an answer gets there, and what is said where it does not fit.

use std::{ffi::c_void, net::SocketAddr, slice};

use socket2::SockAddr;

use crate::carnet_error_t;

/// Room for an answer. `size` says how many bytes there are, and then how many the answer has.
pub(crate) struct Room {
    bytes: *mut u8,
    capacity: usize,
    size: *mut usize,
}

impl Room {
    /// `name` is that of the buffer in the header.
    ///
    /// # Safety
    ///
    /// `size` is null or may be read and written; `bytes` may be written for `*size` bytes, if it is not null.
    pub(crate) unsafe fn new(name: &str, bytes: *mut c_void, size: *mut usize) -> Result<Self, carnet_error_t> {
        if size.is_null() {
            return Err(carnet_error_t::argument(&format!(
                "the size is NULL; point it at a number: how many bytes there are at {name}"
            )));
        }
        // SAFETY: it may be read, as it is not null.
        let capacity = unsafe { size.read() };
        if bytes.is_null() && capacity != 0 {
            return Err(carnet_error_t::argument(&format!(
                "{name} is NULL, and its size is {capacity}; pass a size of 0 to ask how many bytes are needed"
            )));
        }
        Ok(Self { bytes: bytes.cast(), capacity, size })
    }

    /// Writes all of it, or only how much there is.
    pub(crate) fn fill(self, answer: &[u8]) -> Result<(), carnet_error_t> {
        // SAFETY: it may be written, as whoever made this room has promised.
        unsafe { self.size.write(answer.len()) };
        if answer.len() > self.capacity {
            return Err(carnet_error_t::buffer_too_small(answer.len(), self.capacity));
        }
        if !answer.is_empty() {
            // SAFETY: there is room for `capacity` bytes, which is not less; and the answer is this library's memory,
            // so the two do not overlap.
            unsafe { self.bytes.copy_from_nonoverlapping(answer.as_ptr(), answer.len()) };
        }
        Ok(())
    }

    /// Writes a sockaddr_in or sockaddr_in6, ready for connect().
    pub(crate) fn fill_address(self, address: SocketAddr) -> Result<(), carnet_error_t> {
        let address = SockAddr::from(address);
        // SAFETY: so many bytes of it are the address.
        let bytes = unsafe { slice::from_raw_parts(address.as_ptr().cast::<u8>(), address.len() as usize) };
        self.fill(bytes)
    }
}
