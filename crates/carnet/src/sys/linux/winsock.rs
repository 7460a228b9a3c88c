//! The calls by Windows' names and with Windows' signatures: raw pointers in, error numbers out.
//!
//! Each takes its arguments for what they are, the caller's memory and handles that may be wrong, and leaves the rest to
//! the safe code in `winsock/linux/`.
#![allow(non_snake_case, reason = "Windows' names")]

mod control;
mod events;
mod operations;
mod ports;
mod sockets;
#[cfg(test)]
mod tests;
mod threads;

use std::cell::Cell;

pub use self::{control::*, events::*, operations::*, ports::*, sockets::*, threads::*};
use super::{descriptors, memory::Memory};
use crate::winsock::{BOOL, numbers::*};

/// The number of this thread's last failure.
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe.
pub unsafe extern "system" fn WSAGetLastError() -> i32 {
    LAST_ERROR.get()
}

/// Sets what [`WSAGetLastError`] answers.
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe.
pub unsafe extern "system" fn WSASetLastError(ierror: i32) {
    LAST_ERROR.set(ierror);
}

thread_local! {
    static LAST_ERROR: Cell<i32> = const { Cell::new(0) };
}

/// 0, or the last error and [`SOCKET_ERROR`].
fn told(result: Result<(), i32>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            LAST_ERROR.set(error);
            SOCKET_ERROR
        }
    }
}

/// The same with an error of the caller's.
fn told_in(result: Result<(), i32>, error: Memory) -> i32 {
    let number = result.err().unwrap_or(0);
    match error.write(&number.to_ne_bytes()) {
        Ok(()) if number == 0 => 0,
        _ => SOCKET_ERROR,
    }
}

/// True, or the last error and false.
fn is_true(result: Result<(), i32>) -> BOOL {
    match result {
        Ok(()) => 1,
        Err(error) => {
            LAST_ERROR.set(error);
            0
        }
    }
}

/// A `u32` fits: there is no Linux with pointers of 16 bits.
fn length(bytes: u32) -> usize {
    bytes as usize
}
