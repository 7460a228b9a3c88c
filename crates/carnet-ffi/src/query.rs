use std::{
    ffi::{c_char, c_void},
    slice,
};

use carnet::{Records, Redirect};

use crate::{buffer::Room, carnet_error_t, carnet_socket_t, socket::borrow};

/// No records are larger. A buffer of this size fits them all.
#[cfg(not(windows))]
pub const CARNET_RECORDS_MAX: usize = 640;
/// The most that is asked for; Windows names no limit.
#[cfg(windows)]
pub const CARNET_RECORDS_MAX: usize = 65536;
/// Longest context.
#[cfg(not(windows))]
pub const CARNET_CONTEXT_MAX: usize = 2048;
/// The most that is asked for; Windows names no limit.
#[cfg(windows)]
pub const CARNET_CONTEXT_MAX: usize = 65536;
const _: () = assert!(CARNET_RECORDS_MAX == carnet::RECORDS_MAX && CARNET_CONTEXT_MAX == carnet::CONTEXT_MAX);

/// No record.
pub const CARNET_STATE_NOT_REDIRECTED: u32 = 0;
/// The newest redirect was to the calling service.
pub const CARNET_STATE_REDIRECTED_BY_SELF: u32 = 1;
/// No redirect was to the calling service.
pub const CARNET_STATE_REDIRECTED_BY_OTHER: u32 = 2;
/// A redirect was to the calling service, but not the newest.
pub const CARNET_STATE_PREVIOUSLY_REDIRECTED_BY_SELF: u32 = 3;

/// The version of the library that is running: "0.1.0". CARNET_VERSION is that of the header.
#[unsafe(no_mangle)]
pub extern "C" fn carnet_version() -> *const c_char {
    boundary!(c"".as_ptr(); { concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast() })
}

/// The record of an accepted connection: opaque bytes, to be set on the socket with which the service goes on.
///
/// `*size` is the size of the buffer, and then that of the records; CARNET_RECORDS_MAX bytes are always enough.
///
/// # Safety
///
/// `socket` stays open during the call; `records` may be written for `*size` bytes; `size` and `error` may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_records_query(
    socket: carnet_socket_t,
    records: *mut c_void,
    size: *mut usize,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        // SAFETY: the caller vouches for both.
        let (room, socket) = unsafe { (Room::new("records", records, size)?, borrow(socket)?) };
        room.fill(Redirect::of(&socket).records()?.as_bytes())
    })
}

/// Puts a record on an outgoing socket that has not connected yet; a second call replaces the first. Where it fails
/// do not connect: a connection without its record looks like a new one of the service's own.
///
/// # Safety
///
/// `socket` stays open during the call; `records` may be read for `size` bytes; `error` may be written, if not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_records_set(
    socket: carnet_socket_t,
    records: *const c_void,
    size: usize,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        // SAFETY: the caller vouches for it.
        let socket = unsafe { borrow(socket)? };
        if records.is_null() {
            return Err(carnet_error_t::argument("records is NULL; pass the bytes as carnet_records_query() gave them"));
        }
        // Too many cannot be records, and need not be looked at.
        let size = size.min(CARNET_RECORDS_MAX + 1);
        // SAFETY: they may be read, and nobody writes them during the call.
        let bytes = unsafe { slice::from_raw_parts(records.cast(), size) };
        Ok(Records::from_bytes(bytes)?.apply_to(&socket)?)
    })
}

/// The bytes which the filter that redirected gives to this service, at most CARNET_CONTEXT_MAX. `*size` is 0 where
/// it gives none; that is no error.
///
/// # Safety
///
/// `socket` stays open during the call; `context` may be written for `*size` bytes; `size` and `error` may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_context_query(
    socket: carnet_socket_t,
    context: *mut c_void,
    size: *mut usize,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        // SAFETY: the caller vouches for both.
        let (room, socket) = unsafe { (Room::new("context", context, size)?, borrow(socket)?) };
        room.fill(&Redirect::of(&socket).context()?.unwrap_or_default())
    })
}

/// Whether the calling service has had the flow: one of CARNET_STATE_*. A connection without a record is an answer
/// here, and no error.
///
/// # Safety
///
/// `socket` stays open during the call; `state` and `error` may be written, if they are not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_state_query(
    socket: carnet_socket_t,
    state: *mut u32,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        // SAFETY: the caller vouches for it.
        let socket = unsafe { borrow(socket)? };
        if state.is_null() {
            return Err(carnet_error_t::argument("state is NULL; point it at a number for the answer"));
        }
        let answer = Redirect::of(&socket).state()? as u32;
        // SAFETY: it may be written, as it is not null.
        unsafe { state.write(answer) };
        Ok(())
    })
}

/// Where this connection was going, by SO_ORIGINAL_DST: a sockaddr_in or sockaddr_in6. For a service that works
/// behind netfilter's REDIRECT, too; there, compare it with the socket's own address before dialling.
///
/// # Safety
///
/// `socket` stays open during the call; `address` may be written for `*size` bytes; `size` and `error` may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_original_destination(
    socket: carnet_socket_t,
    address: *mut c_void,
    size: *mut usize,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        // SAFETY: the caller vouches for both.
        let (room, socket) = unsafe { (Room::new("address", address, size)?, borrow(socket)?) };
        room.fill_address(Redirect::of(&socket).original_destination()?)
    })
}
