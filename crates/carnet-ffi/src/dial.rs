use std::time::Duration;

use carnet::Redirect;

use crate::{
    carnet_error_t, carnet_socket_t,
    socket::{INVALID, borrow, release},
};

/// Goes on: a new TCP socket with the record of the accepted connection on it, connected to where that was going. It
/// blocks, and is closed by exec(). The caller closes it. -1 (INVALID_SOCKET on Windows) where it fails; the
/// operating system's number in the error is then what to pass on to the client.
///
/// # Safety
///
/// `accepted` stays open during the call; `error` may be written, if it is not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_dial(accepted: carnet_socket_t, error: *mut *mut carnet_error_t) -> carnet_socket_t {
    boundary!(error, INVALID => {
        // SAFETY: the caller vouches for it.
        let accepted = unsafe { borrow(accepted)? };
        Ok(release(Redirect::of(&accepted).dial()?))
    })
}

/// As carnet_dial(), but gives up after so many milliseconds, at least 1: CARNET_ERROR_IO with ETIMEDOUT.
///
/// # Safety
///
/// `accepted` stays open during the call; `error` may be written, if it is not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carnet_dial_timeout(
    accepted: carnet_socket_t,
    milliseconds: u32,
    error: *mut *mut carnet_error_t,
) -> carnet_socket_t {
    boundary!(error, INVALID => {
        // SAFETY: the caller vouches for it.
        let accepted = unsafe { borrow(accepted)? };
        if milliseconds == 0 {
            return Err(carnet_error_t::argument("a timeout of 0 milliseconds; carnet_dial() waits without limit"));
        }
        Ok(release(Redirect::of(&accepted).dial_timeout(Duration::from_millis(milliseconds.into()))?))
    })
}
