//! The threads that run completion routines, as a service provider names them.

use super::{Memory, told_in};
use crate::winsock::{
    WSATHREADID,
    linux::{
        apc,
        objects::{self, Object},
    },
    numbers::*,
};

/// Names the calling thread for [`WSPIoctl`](super::WSPIoctl): 0, or [`SOCKET_ERROR`] and the number in `lperrno`.
///
/// # Safety
///
/// The pointers are null or valid for what is written there.
pub unsafe extern "system" fn WPUOpenCurrentThread(lpthreadid: *mut WSATHREADID, lperrno: *mut i32) -> i32 {
    // SAFETY: the caller's promise.
    let (thread, error) =
        unsafe { (Memory::new(lpthreadid, size_of::<WSATHREADID>()), Memory::new(lperrno, size_of::<i32>())) };
    // A handle that nobody can be told of would never be closed.
    if error.write(&0i32.to_ne_bytes()).is_err() {
        return SOCKET_ERROR;
    }
    let result = apc::current().map_err(|_no_descriptor| WSAENOBUFS).and_then(|apcs| {
        let handle = objects::insert(Object::Thread(apcs));
        let mut bytes = [0; size_of::<WSATHREADID>()];
        bytes[..size_of::<usize>()].copy_from_slice(&handle.to_ne_bytes());
        thread.write(&bytes).map_err(|_fault| {
            objects::remove(handle);
            WSAEFAULT
        })
    });
    told_in(result, error)
}

/// Closes what [`WPUOpenCurrentThread`] has opened: 0, or [`SOCKET_ERROR`] and the number in `lperrno`.
///
/// # Safety
///
/// The pointers are null or valid.
pub unsafe extern "system" fn WPUCloseThread(lpthreadid: *mut WSATHREADID, lperrno: *mut i32) -> i32 {
    // SAFETY: the caller's promise.
    let (thread, error) =
        unsafe { (Memory::new(lpthreadid, size_of::<WSATHREADID>()), Memory::new(lperrno, size_of::<i32>())) };
    let result = objects::handle_of(thread).and_then(|handle| {
        objects::thread(handle).and_then(|_| objects::remove(handle)).map(drop).ok_or(WSA_INVALID_HANDLE)
    });
    told_in(result, error)
}
