//! Completion ports.

use std::{io, ptr};

use carnet::winsock::{self as ws, HANDLE, SOCKET};

use super::{Told, UNTOUCHED, forget_error, last_error, told};

/// A completion port.
pub struct Port(HANDLE);

/// What came out of a port.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// `ret` is 0 where the call says TRUE.
    pub told: Told,
    pub key: usize,
    pub operation: usize,
}

impl Port {
    pub fn new() -> io::Result<Self> {
        // SAFETY: numbers.
        let port = unsafe { ws::CreateIoCompletionPort(NO_HANDLE, ptr::null_mut(), 0, 0) };
        if port.is_null() {
            Err(io::Error::other(format!("CreateIoCompletionPort: {}", last_error())))
        } else {
            Ok(Self(port))
        }
    }

    /// Has the socket's operations told here. `ret` is 0 where that has worked.
    pub fn attach(&self, socket: SOCKET, key: usize) -> Told {
        forget_error();
        // SAFETY: numbers.
        let port = unsafe { ws::CreateIoCompletionPort(ptr::without_provenance_mut(socket), self.0, key, 0) };
        told("CreateIoCompletionPort", i32::from(port == self.0) - 1, None)
    }

    pub fn next(&self, milliseconds: u32) -> Packet {
        let (mut bytes, mut key, mut operation) = (UNTOUCHED, 0, ptr::without_provenance_mut(1));
        forget_error();
        // SAFETY: the variables are there during the call.
        let done = unsafe { ws::GetQueuedCompletionStatus(self.0, &mut bytes, &mut key, &mut operation, milliseconds) };
        let told = told("GetQueuedCompletionStatus", i32::from(done != 0) - 1, Some(bytes));
        Packet { told, key, operation: operation.addr() }
    }

    pub fn close(&self) -> Told {
        forget_error();
        // SAFETY: a port, or the number of one that was closed before.
        let done = unsafe { ws::CloseHandle(self.0) };
        told("CloseHandle", i32::from(done != 0) - 1, None)
    }
}

const NO_HANDLE: HANDLE = ptr::without_provenance_mut(usize::MAX);
