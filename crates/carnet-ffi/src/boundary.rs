//! Where calls come in from C: panics end here, and results become numbers and error objects.

use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use crate::carnet_error_t;

/// The whole body of every exported function.
///
/// - `boundary!(error => { Result<(), carnet_error_t> })`: the kind of the error, or `CARNET_OK`.
/// - `boundary!(error, otherwise => { Result<T, carnet_error_t> })`: the value, or `otherwise` after an error.
/// - `boundary!(otherwise; { T })`: the value; a function that cannot fail. `otherwise` after a panic.
macro_rules! boundary {
    ($error:expr => $body:block) => {{
        let result = $crate::boundary::outcome(|| $body);
        // SAFETY: the caller of the exported function vouches for `error`, as its documentation says.
        unsafe { $crate::boundary::settle(result, $error) }.map_or_else(|kind| kind, |()| $crate::CARNET_OK)
    }};
    ($error:expr, $otherwise:expr => $body:block) => {{
        let result = $crate::boundary::outcome(|| $body);
        // SAFETY: as above.
        unsafe { $crate::boundary::settle(result, $error) }.unwrap_or_else(|_kind| $otherwise)
    }};
    ($otherwise:expr; $body:block) => {
        $crate::boundary::caught(|| $body).unwrap_or_else(|_panic| $otherwise)
    };
}

/// What came of a call; a panic is an error.
pub(crate) fn outcome<T>(act: impl FnOnce() -> Result<T, carnet_error_t>) -> Result<T, carnet_error_t> {
    caught(act).unwrap_or_else(Err)
}

/// Hands the error over, or says that there is none. Its kind stays here.
///
/// # Safety
///
/// `error` is null, or may be written.
pub(crate) unsafe fn settle<T>(result: Result<T, carnet_error_t>, error: *mut *mut carnet_error_t) -> Result<T, i32> {
    let (object, result) = match result {
        Ok(value) => (ptr::null_mut(), Ok(value)),
        Err(failure) => {
            let kind = failure.kind();
            let object = if error.is_null() { ptr::null_mut() } else { Box::into_raw(Box::new(failure)) };
            (object, Err(kind))
        }
    };
    if !error.is_null() {
        // SAFETY: it may be written where it is not null.
        unsafe { error.write(object) };
    }
    result
}

/// Nothing is left half changed by a panic: this library has no state, and what the caller gave is only written
/// whole.
pub(crate) fn caught<T>(act: impl FnOnce() -> T) -> Result<T, carnet_error_t> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|payload| {
        let failure = carnet_error_t::panic(text(&*payload));
        // Its destructor is somebody's code, too, and might panic.
        mem::forget(payload);
        failure
    })
}

fn text(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::CStr, ptr};

    use super::*;
    use crate::{CARNET_ERROR_PANIC, CARNET_OK, carnet_error_free, carnet_error_kind, carnet_error_message};

    /// As C would see them: unwinding out of these aborts the process.
    extern "C" fn status_that_panics(error: *mut *mut carnet_error_t) -> i32 {
        boundary!(error => { panic!("on {} purpose", 1) })
    }

    extern "C" fn value_that_panics(error: *mut *mut carnet_error_t) -> i32 {
        boundary!(error, -1 => { panic!("on purpose") })
    }

    extern "C" fn plain_that_panics() -> u64 {
        boundary!(7; { panic!("on purpose") })
    }

    extern "C" fn payload_that_panics_too(error: *mut *mut carnet_error_t) -> i32 {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("and again");
            }
        }
        boundary!(error => { std::panic::panic_any(Bomb) })
    }

    #[test]
    fn a_panic_is_an_error_and_goes_no_further() {
        for (function, said) in [
            (status_that_panics as extern "C" fn(_) -> _, "a bug of Carnet's, please report it: on 1 purpose"),
            (payload_that_panics_too, "a bug of Carnet's, please report it: no message"),
        ] {
            assert_eq!(message_of(|error| assert_eq!(function(error), CARNET_ERROR_PANIC)), said);
            assert_eq!(function(ptr::null_mut()), CARNET_ERROR_PANIC, "and nobody need ask for the object");
        }
        let said = message_of(|error| assert_eq!(value_that_panics(error), -1));
        assert_eq!(said, "a bug of Carnet's, please report it: on purpose");
        assert_eq!(plain_that_panics(), 7);
    }

    #[test]
    fn success_says_that_there_is_no_error() {
        let mut error = ptr::dangling_mut();
        let all_went_well = boundary!(&raw mut error => { Ok(()) });
        assert_eq!((all_went_well, error), (CARNET_OK, ptr::null_mut()));
    }

    fn message_of(act: impl FnOnce(*mut *mut carnet_error_t)) -> String {
        let mut error = ptr::null_mut();
        act(&raw mut error);
        // SAFETY: the error comes from this library, and is freed once, after its message was copied.
        unsafe {
            assert_eq!(carnet_error_kind(error), CARNET_ERROR_PANIC);
            let message = CStr::from_ptr(carnet_error_message(error)).to_str().unwrap().to_owned();
            carnet_error_free(error);
            message
        }
    }
}
