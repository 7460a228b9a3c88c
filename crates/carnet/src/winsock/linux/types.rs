//! Structures and types of the calls, laid out as on Windows.

use std::ffi::c_void;

/// A socket: on Linux the number of its descriptor.
pub type SOCKET = usize;
/// An event, a completion port or, in [`CreateIoCompletionPort`](crate::winsock::CreateIoCompletionPort), a socket.
pub type HANDLE = *mut c_void;
/// A [`HANDLE`] of an event, as a number.
pub type WSAEVENT = isize;
/// 0 is false.
pub type BOOL = i32;

/// An operation that goes on after the call that began it. Memory of the caller's, which it neither moves nor uses for
/// another operation before this one has ended.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct OVERLAPPED {
    /// `STATUS_PENDING`, and then how the operation ended: an NTSTATUS.
    pub Internal: usize,
    /// The bytes returned.
    pub InternalHigh: usize,
    /// Not used.
    pub Anonymous: OVERLAPPED_0,
    /// Signalled at the end; may be null. With a completion routine it is the caller's to use. Where its lowest bit is
    /// set, the socket's completion port is not told.
    pub hEvent: HANDLE,
}

/// A place in a file; not used.
#[derive(Clone, Copy)]
#[repr(C)]
pub union OVERLAPPED_0 {
    /// In two halves.
    pub Anonymous: OVERLAPPED_0_0,
    /// Or as a pointer.
    pub Pointer: *mut c_void,
}

/// A place in a file; not used.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct OVERLAPPED_0_0 {
    /// Low half.
    pub Offset: u32,
    /// High half.
    pub OffsetHigh: u32,
}

impl Default for OVERLAPPED {
    fn default() -> Self {
        let place = OVERLAPPED_0 { Anonymous: OVERLAPPED_0_0::default() };
        Self { Internal: 0, InternalHigh: 0, Anonymous: place, hEvent: std::ptr::null_mut() }
    }
}

/// Called with the error (0: none), the bytes, the operation, and flags that are 0.
pub type LPWSAOVERLAPPED_COMPLETION_ROUTINE =
    Option<unsafe extern "system" fn(dwerror: u32, cbtransferred: u32, lpoverlapped: *mut OVERLAPPED, dwflags: u32)>;

/// The thread that runs the completion routine of a [`WSPIoctl`](crate::winsock::WSPIoctl).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WSATHREADID {
    /// From [`WPUOpenCurrentThread`](crate::winsock::WPUOpenCurrentThread).
    pub ThreadHandle: HANDLE,
    /// 0.
    pub Reserved: usize,
}
