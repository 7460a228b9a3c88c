//! Waits, and the routines that run in them.

use std::{cell::RefCell, ptr, sync::mpsc, thread};

use super::*;

#[test]
fn the_last_event_of_all_ends_a_wait() {
    for alertable in [0, 1] {
        wait_for_all(alertable);
    }
}

fn wait_for_all(alertable: BOOL) {
    let events = [Call::new(), Call::new()];
    let handles = events.each_ref().map(|call| handle(call.event.cast_unsigned()).addr());
    thread::scope(|scope| {
        let (start, started) = mpsc::channel();
        scope.spawn(move || {
            for () in started {
                for event in handles {
                    // SAFETY: no memory is passed.
                    unsafe { WSASetEvent(event.cast_signed()) };
                }
            }
        });
        for round in 0..20_000 {
            // SAFETY: no memory is passed.
            events.iter().for_each(|call| assert_eq!(unsafe { WSAResetEvent(call.event) }, 1));
            start.send(()).unwrap();
            let handles = handles.map(handle);
            // SAFETY: two handles are read.
            let waited = unsafe { WSAWaitForMultipleEvents(2, handles.as_ptr(), 1, 20_000, alertable) };
            assert_eq!(waited, WSA_WAIT_EVENT_0, "round {round}");
            assert!(events.iter().all(Call::event_is_set));
        }
    });
}

#[test]
fn a_routine_runs_in_an_alertable_wait_and_nowhere_else() {
    let _held = by_hand::hold();
    let (socket, mut call) = (socket(), Call::new());
    call.routine = Some(mark);
    call.begin(number(&socket));
    by_hand::perform();
    assert_eq!(call.result(true), Err(ANSWER), "it has ended");
    assert!(!call.event_is_set(), "with a routine it is the caller's");

    // SAFETY: no memory is passed.
    unsafe {
        assert_eq!(SleepEx(0, 0), 0);
        assert_eq!(MARKS.take(), []);
        assert_eq!(SleepEx(WSA_INFINITE, 1), WSA_WAIT_IO_COMPLETION);
        assert_eq!(MARKS.take(), [(ANSWER, 0, call.overlapped().addr())]);
        assert_eq!(SleepEx(0, 1), 0, "once");
    }
}

#[test]
fn a_provider_names_the_thread_that_runs_the_routine() {
    let _held = by_hand::hold();
    let socket = socket();
    let (mut id, mut error) = (WSATHREADID { ThreadHandle: ptr::null_mut(), Reserved: 1 }, -1);
    // SAFETY: the two are this test's own.
    assert_eq!((unsafe { WPUOpenCurrentThread(&raw mut id, &raw mut error) }, error), (0, 0));

    let thread = id.ThreadHandle.addr();
    let call = thread::scope(|scope| {
        scope
            .spawn(|| {
                let mut call = Call::new();
                call.routine = Some(mark);
                assert_eq!(call.spi(number(&socket), thread), Err(WSA_IO_PENDING));
                by_hand::perform();
                // SAFETY: no memory is passed.
                assert_eq!(unsafe { SleepEx(0, 1) }, 0, "not this thread's");
                call
            })
            .join()
            .unwrap()
    });
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { SleepEx(0, 1) }, WSA_WAIT_IO_COMPLETION);
    assert_eq!(MARKS.take(), [(ANSWER, 0, call.overlapped().addr())]);

    // SAFETY: the two are this test's own.
    assert_eq!((unsafe { WPUCloseThread(&raw mut id, &raw mut error) }, error), (0, 0));
    let mut call = Call::new();
    call.routine = Some(never);
    assert_eq!(call.spi(number(&socket), thread), Err(WSA_INVALID_HANDLE), "closed");
}

thread_local! {
    /// Calls of [`mark`] in this thread: error, bytes, address of the operation.
    static MARKS: RefCell<Vec<(i32, u32, usize)>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "system" fn mark(error: u32, bytes: u32, overlapped: *mut OVERLAPPED, flags: u32) {
    assert_eq!(flags, 0);
    MARKS.with_borrow_mut(|marks| marks.push((error as i32, bytes, overlapped.addr())));
}
