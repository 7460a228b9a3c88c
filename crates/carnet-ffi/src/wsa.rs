//! `carnet::winsock` for C: Windows' calls on redirect records, under names of ours. `include/carnet_winsock.h` gives
//! them Windows' names, for sources that were written there.
//!
//! Each hands its arguments on as they are: the pointers of these calls are judged by the crate `carnet`.
#![allow(non_snake_case, reason = "fields have Windows' names, for sources written there")]

use std::{
    ffi::c_void,
    mem::{self, offset_of},
    ptr,
};

use carnet::winsock::{self, OVERLAPPED, SOCKET_ERROR, WSAEVENT, WSATHREADID};

/// One operation. All zero, or with an event, when it begins; not to be touched, nor moved, until it has ended.
#[repr(C)]
#[derive(Debug)]
pub struct carnet_wsa_overlapped_t {
    /// Carnet's.
    pub Internal: usize,
    /// Carnet's.
    pub InternalHigh: usize,
    /// Not used by sockets.
    pub Offset: u32,
    /// Not used by sockets.
    pub OffsetHigh: u32,
    /// Signalled when the operation has ended; NULL: none.
    pub hEvent: *mut c_void,
}

/// A thread that runs completion routines.
#[repr(C)]
#[derive(Debug)]
pub struct carnet_wsa_thread_t {
    /// Names it.
    pub ThreadHandle: *mut c_void,
    /// Not used.
    pub Reserved: usize,
}

/// Told of an operation's end, by the thread that began it, when that waits alertably: an error number or 0, and
/// bytes.
pub type carnet_wsa_routine_t =
    Option<unsafe extern "C" fn(error: u32, transferred: u32, overlapped: *mut carnet_wsa_overlapped_t, flags: u32)>;

const _: () = {
    assert!(size_of::<carnet_wsa_overlapped_t>() == size_of::<OVERLAPPED>());
    assert!(align_of::<carnet_wsa_overlapped_t>() == align_of::<OVERLAPPED>());
    assert!(offset_of!(carnet_wsa_overlapped_t, hEvent) == offset_of!(OVERLAPPED, hEvent));
    assert!(offset_of!(carnet_wsa_overlapped_t, InternalHigh) == offset_of!(OVERLAPPED, InternalHigh));
    assert!(size_of::<carnet_wsa_thread_t>() == size_of::<WSATHREADID>());
    assert!(offset_of!(carnet_wsa_thread_t, ThreadHandle) == offset_of!(WSATHREADID, ThreadHandle));
};

/// Performs one of the three operations on redirect records, or begins it; the codes are in carnet_winsock.h. 0, or
/// -1 and carnet_wsa_last_error() says why. An output buffer and an OVERLAPPED of an operation that has begun (997)
/// stay where they are until it has ended.
///
/// # Safety
///
/// As WSAIoctl() of Windows: pointers are NULL or lead to memory of the size that is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_ioctl(
    socket: usize,
    code: u32,
    input: *const c_void,
    input_size: u32,
    output: *mut c_void,
    output_size: u32,
    returned: *mut u32,
    overlapped: *mut carnet_wsa_overlapped_t,
    routine: carnet_wsa_routine_t,
) -> i32 {
    boundary!(failed(SOCKET_ERROR); {
        // SAFETY: the caller's promise, handed on.
        unsafe {
            let (overlapped, routine) = (overlapped.cast(), theirs(routine));
            winsock::WSAIoctl(socket, code, input, input_size, output, output_size, returned, overlapped, routine)
        }
    })
}

/// The same as a service provider has it: the error goes to *error, and the routine is run by the thread which
/// carnet_wsa_open_current_thread() has named.
///
/// # Safety
///
/// As carnet_wsa_ioctl().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_provider_ioctl(
    socket: usize,
    code: u32,
    input: *const c_void,
    input_size: u32,
    output: *mut c_void,
    output_size: u32,
    returned: *mut u32,
    overlapped: *mut carnet_wsa_overlapped_t,
    routine: carnet_wsa_routine_t,
    thread: *const carnet_wsa_thread_t,
    error: *mut i32,
) -> i32 {
    boundary!(failed(SOCKET_ERROR); {
        // SAFETY: the caller's promise, handed on.
        unsafe {
            let (overlapped, routine, thread) = (overlapped.cast(), theirs(routine), thread.cast());
            winsock::WSPIoctl(
                socket, code, input, input_size, output, output_size, returned, overlapped, routine, thread, error,
            )
        }
    })
}

/// Names the calling thread. 0, or -1 and *error says why.
///
/// # Safety
///
/// The pointers are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_open_current_thread(thread: *mut carnet_wsa_thread_t, error: *mut i32) -> i32 {
    boundary!(failed(SOCKET_ERROR); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::WPUOpenCurrentThread(thread.cast(), error) }
    })
}

/// Ends what carnet_wsa_open_current_thread() has begun. 0, or -1 and *error says why.
///
/// # Safety
///
/// The pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_close_thread(thread: *mut carnet_wsa_thread_t, error: *mut i32) -> i32 {
    boundary!(failed(SOCKET_ERROR); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::WPUCloseThread(thread.cast(), error) }
    })
}

/// Why this thread's last call of those in this header failed. It knows nothing of the system's own calls, such as
/// connect(): for those there is errno.
#[unsafe(no_mangle)]
pub extern "C" fn carnet_wsa_last_error() -> i32 {
    boundary!(SYSTEM_CALL_FAILURE; {
        // SAFETY: it needs none here; on Windows it is unsafe.
        unsafe { winsock::WSAGetLastError() }
    })
}

/// Sets what carnet_wsa_last_error() answers.
#[unsafe(no_mangle)]
pub extern "C" fn carnet_wsa_set_last_error(error: i32) {
    boundary!((); {
        // SAFETY: it needs none here; on Windows it is unsafe.
        unsafe { winsock::WSASetLastError(error) }
    })
}

/// How an operation has ended. 1: well. 0: carnet_wsa_last_error() says why; 996 where it goes on and wait is 0.
///
/// # Safety
///
/// overlapped is that of an operation that was begun; the others are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_overlapped_result(
    socket: usize,
    overlapped: *const carnet_wsa_overlapped_t,
    transferred: *mut u32,
    wait: i32,
    flags: *mut u32,
) -> i32 {
    boundary!(failed(0); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::WSAGetOverlappedResult(socket, overlapped.cast(), transferred, wait, flags) }
    })
}

/// An event that is not signalled, and stays signalled once it is. NULL where there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn carnet_wsa_create_event() -> *mut c_void {
    boundary!(fail_with_null(); {
        // SAFETY: it needs none here; on Windows it is unsafe.
        unsafe { winsock::WSACreateEvent() as *mut c_void }
    })
}

/// Closes an event. 1, or 0 and carnet_wsa_last_error() says why.
#[unsafe(no_mangle)]
pub extern "C" fn carnet_wsa_close_event(event: *mut c_void) -> i32 {
    boundary!(failed(0); {
        // SAFETY: it needs none here; on Windows it is unsafe.
        unsafe { winsock::WSACloseEvent(event as WSAEVENT) }
    })
}

/// Signals an event. 1, or 0 and carnet_wsa_last_error() says why.
#[unsafe(no_mangle)]
pub extern "C" fn carnet_wsa_set_event(event: *mut c_void) -> i32 {
    boundary!(failed(0); {
        // SAFETY: it needs none here; on Windows it is unsafe.
        unsafe { winsock::WSASetEvent(event as WSAEVENT) }
    })
}

/// Makes an event not signalled. 1, or 0 and carnet_wsa_last_error() says why.
#[unsafe(no_mangle)]
pub extern "C" fn carnet_wsa_reset_event(event: *mut c_void) -> i32 {
    boundary!(failed(0); {
        // SAFETY: it needs none here; on Windows it is unsafe.
        unsafe { winsock::WSAResetEvent(event as WSAEVENT) }
    })
}

/// Waits for one of the events, or for all; an alertable wait ends, too, when completion routines have run. Index of
/// the event, 0xC0 (routines), 258 (the time is over) or 0xFFFFFFFF (carnet_wsa_last_error() says why).
///
/// # Safety
///
/// events is NULL or can be read for count handles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_wait_for_events(
    count: u32,
    events: *const *mut c_void,
    all: i32,
    milliseconds: u32,
    alertable: i32,
) -> u32 {
    boundary!(failed(u32::MAX); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::WSAWaitForMultipleEvents(count, events, all, milliseconds, alertable) }
    })
}

/// Sleeps; alertably, until completion routines have run. 0, or 0xC0 where some have.
#[unsafe(no_mangle)]
pub extern "C" fn carnet_wsa_sleep(milliseconds: u32, alertable: i32) -> u32 {
    boundary!(failed(0); {
        // SAFETY: it needs none here; on Windows it is unsafe.
        unsafe { winsock::SleepEx(milliseconds, alertable) }
    })
}

/// Cancels the operation of overlapped, or, where that is NULL, all of the socket's. 1, or 0 where there is none that
/// can be cancelled (1168). A cancelled one ends with 995.
///
/// # Safety
///
/// None: overlapped is only compared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_cancel(socket: *mut c_void, overlapped: *const carnet_wsa_overlapped_t) -> i32 {
    boundary!(failed(0); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::CancelIoEx(socket, overlapped.cast()) }
    })
}

/// Closes a socket; its operations end with 995. 0, or -1 and carnet_wsa_last_error() says why.
///
/// # Safety
///
/// Nobody uses the socket after this.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_close_socket(socket: usize) -> i32 {
    boundary!(failed(SOCKET_ERROR); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::closesocket(socket) }
    })
}

/// A socket, as socket() makes them. One without WSA_FLAG_OVERLAPPED (1) among its flags takes no overlapped
/// operations. SIZE_MAX, which is INVALID_SOCKET, and carnet_wsa_last_error() says why.
///
/// # Safety
///
/// protocol_information is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_socket(
    family: i32,
    kind: i32,
    protocol: i32,
    protocol_information: *const c_void,
    group: u32,
    flags: u32,
) -> usize {
    boundary!(failed(usize::MAX); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::WSASocketW(family, kind, protocol, protocol_information, group, flags) }
    })
}

/// Makes a completion port (socket is -1 and port NULL), or attaches a socket to one: the ends of its operations are
/// told there, with this key. NULL and carnet_wsa_last_error() says why.
///
/// # Safety
///
/// None: handles are looked up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_completion_port(
    socket: *mut c_void,
    port: *mut c_void,
    key: usize,
    threads: u32,
) -> *mut c_void {
    boundary!(fail_with_null(); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::CreateIoCompletionPort(socket, port, key, threads) }
    })
}

/// The oldest end at a port. 1: that operation went well. 0 and *overlapped is not NULL: it did not. 0 and
/// *overlapped is NULL: none came. carnet_wsa_last_error() says why.
///
/// # Safety
///
/// The pointers are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_dequeue(
    port: *mut c_void,
    transferred: *mut u32,
    key: *mut usize,
    overlapped: *mut *mut carnet_wsa_overlapped_t,
    milliseconds: u32,
) -> i32 {
    boundary!(failed(0); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::GetQueuedCompletionStatus(port, transferred, key, overlapped.cast(), milliseconds) }
    })
}

/// Closes an event, a completion port or a thread's name. 1, or 0 and carnet_wsa_last_error() says why.
///
/// # Safety
///
/// None: handles are looked up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_wsa_close_handle(handle: *mut c_void) -> i32 {
    boundary!(failed(0); {
        // SAFETY: the caller's promise, handed on.
        unsafe { winsock::CloseHandle(handle) }
    })
}

/// The same routine, as the crate's own type has it.
fn theirs(routine: carnet_wsa_routine_t) -> winsock::LPWSAOVERLAPPED_COMPLETION_ROUTINE {
    // SAFETY: both are a pointer to a function or null, with the same arguments; the two structures are alike (above).
    unsafe { mem::transmute(routine) }
}

/// After a panic, which is a bug of Carnet's.
fn failed<T>(value: T) -> T {
    // SAFETY: as in carnet_wsa_set_last_error().
    unsafe { winsock::WSASetLastError(SYSTEM_CALL_FAILURE) };
    value
}

fn fail_with_null() -> *mut c_void {
    failed(ptr::null_mut())
}

/// WSASYSCALLFAILURE: what never fails has failed.
const SYSTEM_CALL_FAILURE: i32 = 10107;
