//! How operations end.

use std::{
    net::UdpSocket,
    os::fd::{AsRawFd, IntoRawFd},
    ptr, thread,
};

use super::*;

#[test]
fn cancelled_before_it_is_performed() {
    let _held = by_hand::hold();
    let (socket, mut call) = (socket(), Call::new());
    call.begin(number(&socket));
    assert_eq!((call.status(), call.result(false)), (STATUS_PENDING, Err(WSA_IO_INCOMPLETE)));
    assert!(!call.event_is_set());

    assert_eq!(cancel(number(&socket), &call), Ok(()));
    assert_eq!((call.status(), call.result(false)), (STATUS_CANCELLED, Err(WSA_OPERATION_ABORTED)));
    assert!(call.event_is_set());
    assert_eq!(cancel(number(&socket), &call), Err(ERROR_NOT_FOUND.cast_signed()), "it has ended");
}

#[test]
fn only_the_one_that_was_named_is_cancelled() {
    let _held = by_hand::hold();
    let (socket, mut first, mut second) = (socket(), Call::new(), Call::new());
    first.begin(number(&socket));
    second.begin(number(&socket));

    assert_eq!(cancel(number(&socket), &second), Ok(()));
    by_hand::perform();
    assert_eq!((first.result(false), second.result(false)), (Err(ANSWER), Err(WSA_OPERATION_ABORTED)));
}

#[test]
fn all_of_a_socket_are_cancelled_and_no_others() {
    let _held = by_hand::hold();
    let (one, other) = (socket(), socket());
    let (mut first, mut second, mut others) = (Call::new(), Call::new(), Call::new());
    for (call, socket) in [(&mut first, &one), (&mut second, &one), (&mut others, &other)] {
        call.begin(number(socket));
    }

    // SAFETY: no memory is passed.
    assert_eq!(unsafe { CancelIoEx(handle(number(&one)), ptr::null()) }, 1);
    by_hand::perform();
    assert_eq!([&first, &second].map(|call| call.result(false)), [Err(WSA_OPERATION_ABORTED); 2]);
    assert_eq!(others.result(false), Err(ANSWER));
}

#[test]
fn closed_while_pending() {
    let _held = by_hand::hold();
    let (socket, mut call) = (socket().into_raw_fd() as usize, Call::new());
    call.begin(socket);

    // SAFETY: the test's own.
    assert_eq!(unsafe { closesocket(socket) }, 0);
    assert_eq!(call.result(true), Err(WSA_OPERATION_ABORTED));
    assert!(call.event_is_set());
}

#[test]
fn closed_by_the_systems_own_call_while_pending() {
    let _held = by_hand::hold();
    let (socket, mut call) = (socket(), Call::new());
    call.begin(number(&socket));

    drop(socket);
    by_hand::perform();
    assert_eq!(call.result(false), Err(WSA_OPERATION_ABORTED));
}

/// The number is another socket's by then: that one is not asked.
#[test]
fn closed_and_the_number_used_again_while_pending() {
    let _held = by_hand::hold();
    let (socket, mut call) = (socket(), Call::new());
    call.begin(number(&socket));

    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    // SAFETY: both are the test's own; dup2() closes the first.
    assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), socket.as_raw_fd()) }, socket.as_raw_fd());
    by_hand::perform();
    assert_eq!(call.result(false), Err(WSA_OPERATION_ABORTED), "not WSAENOPROTOOPT, the answer of a UDP socket");
}

#[test]
fn flushed_while_pending() {
    let _held = by_hand::hold();
    let (socket, mut call) = (socket(), Call::new());
    call.begin(number(&socket));

    let mut bytes = 0;
    // SAFETY: the number is the test's own.
    let result = unsafe {
        WSAIoctl(number(&socket), SIO_FLUSH, ptr::null(), 0, ptr::null_mut(), 0, &raw mut bytes, ptr::null_mut(), None)
    };
    assert_eq!((result, call.result(false)), (0, Err(WSA_OPERATION_ABORTED)));
}

#[test]
fn a_thread_takes_its_operations_with_it() {
    let _held = by_hand::hold();
    let (socket, mut call, mut others) = (socket(), Call::new(), Call::new());
    others.begin(number(&socket));
    let call = thread::scope(|scope| {
        scope
            .spawn(|| {
                call.begin(number(&socket));
                call
            })
            .join()
            .unwrap()
    });

    assert_eq!(call.result(true), Err(WSA_OPERATION_ABORTED));
    by_hand::perform();
    assert_eq!(others.result(false), Err(ANSWER), "this thread's own");
}

/// A service that forks for each connection, and has begun operations before.
#[test]
fn a_child_performs_its_own_operations_and_not_its_parents() {
    let _held = by_hand::hold();
    let (socket, mut parents, mut childs) = (socket(), Call::new(), Call::new());
    parents.begin(number(&socket));
    in_a_child(|| {
        childs.begin(number(&socket));
        childs.event_is_set_within(20_000) && childs.result(false) == Err(ANSWER)
    });

    assert_eq!((parents.event_is_set(), parents.result(false)), (false, Err(WSA_IO_INCOMPLETE)));
    by_hand::perform();
    assert_eq!((parents.event_is_set(), parents.result(false)), (true, Err(ANSWER)));
}

#[test]
fn one_overlapped_is_one_operation() {
    let _held = by_hand::hold();
    let (socket, mut call) = (socket(), Call::new());
    call.begin(number(&socket));
    assert_eq!(call.ioctl(number(&socket)), Err(WSAEINVAL), "pending");
    by_hand::perform();
    assert_eq!(call.result(false), Err(ANSWER), "the first is as it was");

    call.begin(number(&socket));
    assert!(!call.event_is_set(), "the event of the last one is reset");
    by_hand::perform();
    assert_eq!(call.result(false), Err(ANSWER));
}

#[test]
fn a_socket_without_the_attribute_is_asked_at_once() {
    let _held = by_hand::hold();
    // SAFETY: no memory is passed.
    let socket = unsafe { WSASocketW(libc::AF_INET, libc::SOCK_STREAM, 0, ptr::null(), 0, WSA_FLAG_NO_HANDLE_INHERIT) };
    let mut call = Call::new();

    assert_eq!(call.ioctl(socket), Err(ANSWER));
    assert_eq!((call.status(), call.event_is_set()), (STATUS_SUCCESS, false), "not looked at");
    call.no_bytes_returned = true;
    assert_eq!(call.ioctl(socket), Err(WSAEFAULT), "may be null only where the operation is overlapped");
    // SAFETY: the test's own.
    unsafe { closesocket(socket) };
}
