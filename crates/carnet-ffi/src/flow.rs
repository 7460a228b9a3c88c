mod origin;

use std::ffi::{CString, c_char, c_void};

use carnet::{Flow, Hop, Redirect};

pub use self::origin::*;
use crate::{buffer::Room, carnet_error_t, carnet_socket_t, socket::borrow};

/// One application connection, as a service on its way sees it. It does not change, so threads may share it. Free it
/// with carnet_flow_free(). Where a function that gives a number is given NULL, the number is 0.
pub struct carnet_flow_t {
    flow: Flow,
    destination: CString,
    comm: CString,
}

/// Asks an accepted socket where its connection was going, who made it, and which services have had it.
///
/// # Safety
///
/// `socket` stays open during the call; `flow` and `error` may be written, if they are not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_query(
    socket: carnet_socket_t,
    flow: *mut *mut carnet_flow_t,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        if flow.is_null() {
            return Err(carnet_error_t::argument("flow is NULL; point it at a pointer for the flow"));
        }
        // SAFETY: it may be written, as it is not null.
        unsafe { flow.write(std::ptr::null_mut()) };
        // SAFETY: the caller vouches for it.
        let socket = unsafe { borrow(socket)? };
        let answer = carnet_flow_t::new(Redirect::of(&socket).flow()?);
        // SAFETY: as above.
        unsafe { flow.write(Box::into_raw(Box::new(answer))) };
        Ok(())
    })
}

/// Frees a flow. Does nothing for NULL.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_free(flow: *mut carnet_flow_t) {
    boundary!((); {
        if !flow.is_null() {
            // SAFETY: it was a Box's, and the caller gives it back.
            drop(unsafe { Box::from_raw(flow) });
        }
    })
}

/// The lower half of the flow's id, which is the same at every hop and in the engine's events.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_id_low(flow: *const carnet_flow_t) -> u64 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.id() as u64) } })
}

/// The upper half of it.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_id_high(flow: *const carnet_flow_t) -> u64 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| (flow.id() >> 64) as u64) } })
}

/// Where this hop's connection was going: a sockaddr_in or sockaddr_in6, to be dialled. `*size` is the size of the
/// buffer, and then that of the address. A sockaddr_storage has room.
///
/// # Safety
///
/// `flow` is NULL or a flow; `address` may be written for `*size` bytes; `size` and `error` may be written, if not
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_destination(
    flow: *const carnet_flow_t,
    address: *mut c_void,
    size: *mut usize,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        // SAFETY: the caller vouches for both.
        let (flow, room) = unsafe { (known(flow)?, Room::new("address", address, size)?) };
        room.fill_address(flow.destination())
    })
}

/// The same as text, "192.0.2.7:443" or "[2001:db8::1]:443". It lives as long as the flow. "" for NULL.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_destination_text(flow: *const carnet_flow_t) -> *const c_char {
    boundary!(c"".as_ptr(); {
        // SAFETY: the caller vouches for it.
        unsafe { flow.as_ref() }.map_or(c"".as_ptr(), |flow| flow.destination.as_ptr())
    })
}

/// Redirects so far, the one to this service included.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_depth(flow: *const carnet_flow_t) -> u32 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.depth() as u32) } })
}

/// The redirect handle of the service to which a redirect went, never used again within an engine's life. The oldest
/// hop has index 0, and the one to this service the index depth - 1. 0 where there is no such hop; no handle is 0.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_hop_handle(flow: *const carnet_flow_t, index: u32) -> u32 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { hop(flow, index, |hop| hop.handle) } })
}

/// Id of the filter that redirected; 0 where a client dialled the service itself, and where there is no such hop.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_hop_filter(flow: *const carnet_flow_t, index: u32) -> u32 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { hop(flow, index, |hop| hop.filter.unwrap_or(0)) } })
}

/// When it was redirected, in nanoseconds of CLOCK_BOOTTIME; 0 where there is no such hop.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_hop_time(flow: *const carnet_flow_t, index: u32) -> u64 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { hop(flow, index, |hop| nanoseconds(hop.time)) } })
}

impl carnet_flow_t {
    /// `from_bytes` of the library, and no more: for tests.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, carnet::Error> {
        Flow::from_bytes(bytes).map(Self::new)
    }

    fn new(flow: Flow) -> Self {
        let text = |text: String| CString::new(text.replace('\0', "?")).unwrap_or_default();
        Self { destination: text(flow.destination().to_string()), comm: text(flow.origin().comm.clone()), flow }
    }
}

/// # Safety
///
/// `flow` is null or a flow that lives as long as the result.
unsafe fn known<'f>(flow: *const carnet_flow_t) -> Result<&'f Flow, carnet_error_t> {
    // SAFETY: the caller's promise is ours.
    match unsafe { flow.as_ref() } {
        Some(known) => Ok(&known.flow),
        None => Err(carnet_error_t::argument("the flow is NULL; pass one that carnet_flow_query() gave")),
    }
}

/// # Safety
///
/// `flow` is null or a flow.
unsafe fn number<T: Default>(flow: *const carnet_flow_t, of: impl FnOnce(&Flow) -> T) -> T {
    // SAFETY: the caller's promise is ours.
    unsafe { flow.as_ref() }.map_or_else(T::default, |known| of(&known.flow))
}

/// # Safety
///
/// `flow` is null or a flow.
unsafe fn hop<T: Default>(flow: *const carnet_flow_t, index: u32, of: impl FnOnce(&Hop) -> T) -> T {
    let find = |flow: &Flow| flow.chain().get(index as usize).map_or_else(T::default, of);
    // SAFETY: the caller's promise is ours.
    unsafe { number(flow, find) }
}

/// Enough for 584 years since boot.
fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
