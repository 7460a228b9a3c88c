//! The calls of the contract, with every argument that a safe interface rules out. All unsafe code of this program.
//!
//! What a system makes of a wrong argument is the question here, so nothing is taken for granted: the memory of an
//! operation that was begun, its event and its buffer, is never freed. Where a system's answer is not known, it may be
//! written to at any time.
#![allow(clippy::missing_const_for_thread_local, reason = "it is const, which clippy does not see for Windows")]

use std::cell::RefCell;

use carnet::winsock as ws;

mod event;
mod ioctl;
mod operation;
mod port;
#[cfg(target_os = "linux")]
pub mod provider;
mod socket;
pub mod system;

pub use self::{
    event::{Event, sleep, wait, wait_at_null},
    ioctl::{Buffer, Ioctl, Pages, Returned},
    operation::{Begin, FILL, Operation, begin_nowhere, cancel, completions_here, result_at_null},
    port::{Packet, Port},
    socket::{NotOverlapped, close, close_invalid},
};

/// What a call answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Told {
    pub call: &'static str,
    pub ret: i64,
    /// The last error after the call, which means nothing where it has succeeded.
    pub error: i32,
    /// The bytes returned, where there was a variable for them; [`UNTOUCHED`] as it was before.
    pub bytes: Option<u32>,
}

/// In the variable for the bytes returned before the call.
pub const UNTOUCHED: u32 = 0xA5A5_A5A5;

thread_local! {
    static TOLD: RefCell<Vec<Told>> = const { RefCell::new(Vec::new()) };
}

/// All that this thread was told since the last time.
pub fn take_told() -> Vec<Told> {
    TOLD.take()
}

fn told(call: &'static str, ret: impl Into<i64>, bytes: Option<u32>) -> Told {
    let told = Told { call, ret: ret.into(), error: last_error(), bytes };
    record(told);
    told
}

fn record(told: Told) {
    TOLD.with_borrow_mut(|all| all.push(told));
}

pub fn last_error() -> i32 {
    // SAFETY: the call takes nothing.
    unsafe { ws::WSAGetLastError() }
}

pub fn set_last_error(error: i32) {
    // SAFETY: the call takes a number.
    unsafe { ws::WSASetLastError(error) }
}

fn forget_error() {
    set_last_error(0);
}

fn as_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
