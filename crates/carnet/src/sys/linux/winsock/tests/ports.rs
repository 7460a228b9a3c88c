//! Completion ports.

use std::{ptr, thread};

use super::*;

#[test]
fn a_thread_leaves_its_operations_to_their_port() {
    let _held = by_hand::hold();
    let (socket, mut call) = (socket(), Call::new());
    let port = port_of(number(&socket), 5);
    thread::scope(|scope| scope.spawn(|| call.begin(number(&socket))).join().unwrap());

    assert_eq!(receive(port), Err((0, WSA_WAIT_TIMEOUT.cast_signed())));
    by_hand::perform();
    assert_eq!(receive(port), Err((5, ANSWER)));
    // SAFETY: no memory is passed.
    unsafe { CloseHandle(port) };
}

/// Closing what was inherited is good manners in a child.
#[test]
fn a_port_that_a_child_closes_is_the_parents_still() {
    let _held = by_hand::hold();
    let (socket, mut call) = (socket(), Call::new());
    let port = port_of(number(&socket), 3);
    // SAFETY: no memory is passed.
    in_a_child(|| unsafe { CloseHandle(port) } == 1);

    assert_eq!(receive(port), Err((0, WSA_WAIT_TIMEOUT.cast_signed())));
    call.begin(number(&socket));
    by_hand::perform();
    assert_eq!(receive(port), Err((3, ANSWER)));
    // SAFETY: no memory is passed.
    unsafe { CloseHandle(port) };
}

#[test]
fn a_port_is_told_unless_the_event_forbids_it() {
    let _held = by_hand::hold();
    let (socket, mut told, mut untold) = (socket(), Call::new(), Call::new());
    let port = port_of(number(&socket), 7);
    told.begin(number(&socket));
    // SAFETY: nothing uses it yet.
    unsafe { (*untold.overlapped()).hEvent = handle(untold.event.cast_unsigned() | 1) };
    untold.begin(number(&socket));
    assert_eq!(receive(port), Err((0, WSA_WAIT_TIMEOUT.cast_signed())));

    by_hand::perform();
    by_hand::perform();
    assert_eq!(receive(port), Err((7, ANSWER)));
    assert_eq!(receive(port), Err((0, WSA_WAIT_TIMEOUT.cast_signed())));
    assert!(told.event_is_set() && untold.event_is_set());
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { CloseHandle(port) }, 1);
    assert_eq!(receive(port), Err((0, WSA_INVALID_HANDLE)));
}

#[test]
fn a_port_that_is_closed_ends_its_waits() {
    let _held = by_hand::hold();
    let port = port_of(number(&socket()), 0).addr();
    let waiting = thread::spawn(move || {
        let (mut bytes, mut key, mut overlapped) = (0, 0, ptr::null_mut());
        // SAFETY: this thread's own variables.
        let got = unsafe {
            GetQueuedCompletionStatus(handle(port), &raw mut bytes, &raw mut key, &raw mut overlapped, WSA_INFINITE)
        };
        (got, last())
    });
    // Whether the wait begins before or after: it ends.
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { CloseHandle(handle(port)) }, 1);
    let (got, error) = waiting.join().unwrap();
    assert_eq!(got, 0);
    assert!([ERROR_ABANDONED_WAIT_0.cast_signed(), WSA_INVALID_HANDLE].contains(&error), "{error}");
}

#[test]
fn a_socket_has_one_port_and_no_routine_then() {
    let _held = by_hand::hold();
    let socket = socket();
    let port = port_of(number(&socket), 1);
    // SAFETY: no memory is passed.
    assert!(unsafe { CreateIoCompletionPort(handle(number(&socket)), port, 2, 0) }.is_null());
    assert_eq!(last(), WSA_INVALID_PARAMETER);

    let mut call = Call::new();
    call.routine = Some(never);
    assert_eq!(call.ioctl(number(&socket)), Err(WSAEINVAL));

    // A closed one is none, and leaves no descriptor.
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { CloseHandle(port) }, 1);
    for key in 0..100 {
        let port = port_of(number(&socket), key);
        // SAFETY: no memory is passed.
        assert_eq!(unsafe { CloseHandle(port) }, 1);
    }
}

fn port_of(socket: SOCKET, key: usize) -> HANDLE {
    // SAFETY: no memory is passed.
    let port = unsafe { CreateIoCompletionPort(handle(socket), ptr::null_mut(), key, 0) };
    assert!(!port.is_null());
    port
}

/// Without waiting; fails with the key and the error.
fn receive(port: HANDLE) -> Result<usize, (usize, i32)> {
    let (mut bytes, mut key, mut overlapped) = (0, 0, ptr::null_mut());
    // SAFETY: this function's own variables.
    match unsafe { GetQueuedCompletionStatus(port, &raw mut bytes, &raw mut key, &raw mut overlapped, 0) } {
        0 => Err((key, last())),
        _ => Ok(key),
    }
}
