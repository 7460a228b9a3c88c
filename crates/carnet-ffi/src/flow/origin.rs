//! The first application's connect(), the same at every hop.

use std::ffi::{c_char, c_void};

use carnet::Family;

use super::{known, nanoseconds, number};
use crate::{buffer::Room, carnet_error_t, carnet_flow_t};

/// Where the application asked to go: a sockaddr_in or sockaddr_in6. A service on the way may have changed that.
///
/// # Safety
///
/// `flow` is NULL or a flow; `address` may be written for `*size` bytes; `size` and `error` may be written, if not
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_origin_destination(
    flow: *const carnet_flow_t,
    address: *mut c_void,
    size: *mut usize,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        // SAFETY: the caller vouches for both.
        let (flow, room) = unsafe { (known(flow)?, Room::new("address", address, size)?) };
        room.fill_address(flow.origin().destination)
    })
}

/// The application's own address. `*size` is 0 where it had none before it connected; that is no error.
///
/// # Safety
///
/// `flow` is NULL or a flow; `address` may be written for `*size` bytes; `size` and `error` may be written, if not
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_origin_source(
    flow: *const carnet_flow_t,
    address: *mut c_void,
    size: *mut usize,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        // SAFETY: the caller vouches for both.
        let (flow, room) = unsafe { (known(flow)?, Room::new("address", address, size)?) };
        match flow.origin().source {
            Some(source) => room.fill_address(source),
            None => room.fill(&[]),
        }
    })
}

/// Name of the process's first thread, at most 15 bytes before what is not UTF-8 was replaced. The process chooses
/// it: it proves nothing, and may hold what a terminal would obey. It lives as long as the flow. "" for NULL.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_comm(flow: *const carnet_flow_t) -> *const c_char {
    boundary!(c"".as_ptr(); {
        // SAFETY: the caller vouches for it.
        unsafe { flow.as_ref() }.map_or(c"".as_ptr(), |flow| flow.comm.as_ptr())
    })
}

/// Path of the running executable with its NUL, as seen by the caller now. `*size` is 0 where it cannot be told for
/// certain: the process is gone, runs another program now, or its file is not to be found; that is no error.
///
/// # Safety
///
/// `flow` is NULL or a flow; `path` may be written for `*size` bytes; `size` and `error` may be written, if not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_executable_path(
    flow: *const carnet_flow_t,
    path: *mut c_char,
    size: *mut usize,
    error: *mut *mut carnet_error_t,
) -> i32 {
    boundary!(error => {
        // SAFETY: the caller vouches for both.
        let (flow, room) = unsafe { (known(flow)?, Room::new("path", path.cast(), size)?) };
        match flow.origin().executable_path() {
            Some(path) => room.fill(&[path.as_os_str().as_encoded_bytes(), &[0]].concat()),
            None => room.fill(&[]),
        }
    })
}

/// Process id (thread group), in the initial namespace, as all ids here.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_pid(flow: *const carnet_flow_t) -> u32 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.origin().pid) } })
}

/// When the process began, in nanoseconds of CLOCK_BOOTTIME: with the pid the only name of a process that is never
/// used again.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_start_time(flow: *const carnet_flow_t) -> u64 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| nanoseconds(flow.origin().start_time)) } })
}

/// Real user id.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_uid(flow: *const carnet_flow_t) -> u32 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.origin().uid) } })
}

/// Real group id.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_gid(flow: *const carnet_flow_t) -> u32 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.origin().gid) } })
}

/// When the application connected, in nanoseconds of CLOCK_BOOTTIME.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_time(flow: *const carnet_flow_t) -> u64 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| nanoseconds(flow.origin().time)) } })
}

/// Device of the running executable in the kernel's own encoding, major << 20 | minor; not what stat() reports.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_executable_device(flow: *const carnet_flow_t) -> u32 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.origin().exe.device) } })
}

/// Inode number of it on that device.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_executable_inode(flow: *const carnet_flow_t) -> u64 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.origin().exe.inode) } })
}

/// cgroup2 id (inode) of the process.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_cgroup_id(flow: *const carnet_flow_t) -> u64 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.origin().cgroup_id) } })
}

/// Network namespace of the socket, as SO_NETNS_COOKIE tells it.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_netns_cookie(flow: *const carnet_flow_t) -> u64 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.origin().netns_cookie) } })
}

/// Index of the interface which the socket was bound to, or 0.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_bound_interface(flow: *const carnet_flow_t) -> u32 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| flow.origin().bound_interface.unwrap_or(0)) } })
}

/// Family of the application's socket: 4 or 6. One of 6 may have gone to an IPv4 destination.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_family(flow: *const carnet_flow_t) -> u32 {
    // SAFETY: the caller vouches for it.
    boundary!(0; { unsafe { number(flow, |flow| match flow.origin().family { Family::V4 => 4, Family::V6 => 6 }) } })
}

/// Whether a service before this one set no record, so that the engine took this one from the flows which that
/// service holds to this destination.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_is_inferred(flow: *const carnet_flow_t) -> bool {
    // SAFETY: the caller vouches for it.
    boundary!(false; { unsafe { number(flow, |flow| flow.origin().inferred) } })
}

/// Whether those flows are of several applications, so that the identity here is the service's own.
///
/// # Safety
///
/// `flow` is NULL or comes from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_flow_is_ambiguous(flow: *const carnet_flow_t) -> bool {
    // SAFETY: the caller vouches for it.
    boundary!(false; { unsafe { number(flow, |flow| flow.origin().ambiguous) } })
}
