use std::ffi::{CString, c_char};

use carnet::ErrorKind;

/// No error.
pub const CARNET_OK: i32 = 0;
/// Something this version of carnet.h has no name for. The message says what.
pub const CARNET_ERROR_OTHER: i32 = 1;
/// The operating system refused, and Carnet has no more to say: carnet_error_os_error() is its number. Refusals of a
/// dialled destination are here.
pub const CARNET_ERROR_IO: i32 = 10;
/// There is no record: the connection was not redirected. Close it.
pub const CARNET_ERROR_NOT_REDIRECTED: i32 = 20;
/// The connection came to a redirect service's listener, but its record is missing. Close it.
pub const CARNET_ERROR_CONTEXT_LOST: i32 = 30;
/// No engine answers on this socket: none is loaded, or the service runs outside the cgroups it covers.
pub const CARNET_ERROR_NO_ENGINE: i32 = 40;
/// Only sockets of TCP and MPTCP have records.
pub const CARNET_ERROR_NOT_TCP: i32 = 50;
/// Bytes of a length or version that cannot be records or an answer; or the socket listens.
pub const CARNET_ERROR_MALFORMED: i32 = 60;
/// The records are not as the engine gave them.
pub const CARNET_ERROR_FORGED: i32 = 70;
/// The records were read too long ago, or come from another engine.
pub const CARNET_ERROR_STALE: i32 = 80;
/// Records are accepted only from the service to which the newest redirect went.
pub const CARNET_ERROR_NOT_OWNER: i32 = 90;
/// The outgoing socket has connected, or was accepted: records are set before connect().
pub const CARNET_ERROR_ALREADY_CONNECTED: i32 = 100;
/// An argument that cannot be: a null pointer, or a number that is no descriptor.
pub const CARNET_ERROR_ARGUMENT: i32 = 200;
/// The buffer is too small. What is needed is where its size was.
pub const CARNET_ERROR_BUFFER_TOO_SMALL: i32 = 210;
/// A bug of Carnet's, which has not harmed the program: please report the message.
pub const CARNET_ERROR_PANIC: i32 = 220;

/// An error. Free it with carnet_error_free().
pub struct carnet_error_t {
    kind: i32,
    os_error: i32,
    message: CString,
}

/// What a program can act on: one of CARNET_ERROR_*. CARNET_OK for NULL.
///
/// # Safety
///
/// `error` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_error_kind(error: *const carnet_error_t) -> i32 {
    boundary!(CARNET_ERROR_PANIC; {
        // SAFETY: the caller vouches for it.
        unsafe { error.as_ref() }.map_or(CARNET_OK, carnet_error_t::kind)
    })
}

/// The operating system's error number, such as ECONNREFUSED of a dialled destination. 0 where there is none.
///
/// # Safety
///
/// `error` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_error_os_error(error: *const carnet_error_t) -> i32 {
    boundary!(0; {
        // SAFETY: the caller vouches for it.
        unsafe { error.as_ref() }.map_or(0, |error| error.os_error)
    })
}

/// What failed, what to do next, and the operating system's reason: one line, in UTF-8. It lives as long as the
/// error. For NULL "no error".
///
/// # Safety
///
/// `error` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_error_message(error: *const carnet_error_t) -> *const c_char {
    boundary!(c"no message".as_ptr(); {
        // SAFETY: the caller vouches for it.
        unsafe { error.as_ref() }.map_or(c"no error".as_ptr(), |error| error.message.as_ptr())
    })
}

/// Frees an error. Does nothing for NULL.
///
/// # Safety
///
/// `error` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_error_free(error: *mut carnet_error_t) {
    boundary!((); {
        if !error.is_null() {
            // SAFETY: it was a Box's, and the caller gives it back.
            drop(unsafe { Box::from_raw(error) });
        }
    })
}

/// The name of one of CARNET_ERROR_*, for logs: "not-redirected". "unknown" for any other number.
#[unsafe(no_mangle)]
pub extern "C" fn carnet_error_kind_name(kind: i32) -> *const c_char {
    boundary!(c"unknown".as_ptr(); {
        NAMES.iter().find(|(named, _)| *named == kind).map_or(c"unknown", |(_, name)| name).as_ptr()
    })
}

const NAMES: [(i32, &std::ffi::CStr); 15] = [
    (CARNET_OK, c"ok"),
    (CARNET_ERROR_OTHER, c"other"),
    (CARNET_ERROR_IO, c"io"),
    (CARNET_ERROR_NOT_REDIRECTED, c"not-redirected"),
    (CARNET_ERROR_CONTEXT_LOST, c"context-lost"),
    (CARNET_ERROR_NO_ENGINE, c"no-engine"),
    (CARNET_ERROR_NOT_TCP, c"not-tcp"),
    (CARNET_ERROR_MALFORMED, c"malformed"),
    (CARNET_ERROR_FORGED, c"forged"),
    (CARNET_ERROR_STALE, c"stale"),
    (CARNET_ERROR_NOT_OWNER, c"not-owner"),
    (CARNET_ERROR_ALREADY_CONNECTED, c"already-connected"),
    (CARNET_ERROR_ARGUMENT, c"argument"),
    (CARNET_ERROR_BUFFER_TOO_SMALL, c"buffer-too-small"),
    (CARNET_ERROR_PANIC, c"panic"),
];

impl carnet_error_t {
    pub(crate) fn kind(&self) -> i32 {
        self.kind
    }

    /// `what` says which argument, and what to pass instead.
    pub(crate) fn argument(what: &str) -> Self {
        Self::new(CARNET_ERROR_ARGUMENT, 0, what)
    }

    pub(crate) fn buffer_too_small(needed: usize, given: usize) -> Self {
        let message =
            format!("the buffer is too small: {given} bytes, and {needed} are needed; call again with a larger one");
        Self::new(CARNET_ERROR_BUFFER_TOO_SMALL, 0, &message)
    }

    pub(crate) fn panic(text: &str) -> Self {
        Self::new(CARNET_ERROR_PANIC, 0, &format!("a bug of Carnet's, please report it: {text}"))
    }

    fn new(kind: i32, os_error: i32, message: &str) -> Self {
        // C sees the text to its first NUL.
        let message = CString::new(message.replace('\0', "?")).unwrap_or_default();
        Self { kind, os_error, message }
    }
}

impl From<carnet::Error> for carnet_error_t {
    fn from(error: carnet::Error) -> Self {
        Self::new(number(error.kind()), error.os_error().unwrap_or(0), &format!("{error:#}"))
    }
}

fn number(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::AlreadyConnected => CARNET_ERROR_ALREADY_CONNECTED,
        ErrorKind::ContextLost => CARNET_ERROR_CONTEXT_LOST,
        ErrorKind::Forged => CARNET_ERROR_FORGED,
        ErrorKind::Io => CARNET_ERROR_IO,
        ErrorKind::Malformed => CARNET_ERROR_MALFORMED,
        ErrorKind::NoEngine => CARNET_ERROR_NO_ENGINE,
        ErrorKind::NotOwner => CARNET_ERROR_NOT_OWNER,
        ErrorKind::NotRedirected => CARNET_ERROR_NOT_REDIRECTED,
        ErrorKind::NotTcp => CARNET_ERROR_NOT_TCP,
        ErrorKind::Stale => CARNET_ERROR_STALE,
        _ => CARNET_ERROR_OTHER,
    }
}
