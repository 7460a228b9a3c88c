//! Operations that stay pending until a test performs them, so that each race has the winner which the test is about.
//! No engine is needed: its answer to a socket outside is an answer like any other. What an engine answers is the
//! contract suite's.

use std::{
    cell::{RefCell, UnsafeCell},
    ffi::c_void,
    net::{TcpListener, UdpSocket},
    os::fd::{AsRawFd, IntoRawFd},
    ptr, thread,
};

use crate::winsock::{linux::operations::by_hand, *};

/// What every socket outside an engine answers.
const ANSWER: i32 = WSAEOPNOTSUPP;

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
fn the_last_event_of_all_ends_a_wait() {
    for alertable in [0, 1] {
        wait_for_all(alertable);
    }
}

fn wait_for_all(alertable: BOOL) {
    let events = [Call::new(), Call::new()];
    let handles = events.each_ref().map(|call| handle(call.event.cast_unsigned()).addr());
    thread::scope(|scope| {
        let (start, started) = std::sync::mpsc::channel();
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

/// The arguments of a call for the records, with an `OVERLAPPED` and its event.
struct Call {
    memory: Box<UnsafeCell<Memory>>,
    event: WSAEVENT,
    no_bytes_returned: bool,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
}

/// What the operation uses.
struct Memory {
    overlapped: OVERLAPPED,
    output: [u8; 64],
    bytes: u32,
}

// SAFETY: the tests give it from thread to thread, and the memory stays where it is.
unsafe impl Send for Call {}

impl Call {
    fn new() -> Self {
        // SAFETY: no memory is passed.
        let event = unsafe { WSACreateEvent() };
        let overlapped = OVERLAPPED { hEvent: handle(event.cast_unsigned()), ..OVERLAPPED::default() };
        let memory = Box::new(UnsafeCell::new(Memory { overlapped, output: [0; 64], bytes: 1 }));
        Self { memory, event, no_bytes_returned: false, routine: None }
    }

    fn begin(&mut self, socket: SOCKET) {
        assert_eq!(self.ioctl(socket), Err(WSA_IO_PENDING));
    }

    fn ioctl(&mut self, socket: SOCKET) -> Result<(), i32> {
        let (output, bytes) = self.pointers();
        let code = SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS;
        // SAFETY: the memory outlives the operation: each test sees its end.
        match unsafe { WSAIoctl(socket, code, ptr::null(), 0, output, 64, bytes, self.overlapped(), self.routine) } {
            0 => Ok(()),
            _ => Err(last()),
        }
    }

    /// As a service provider; `thread` is the handle of the one that runs the routine.
    fn spi(&mut self, socket: SOCKET, thread: usize) -> Result<(), i32> {
        let (output, bytes) = self.pointers();
        let (code, mut error) = (SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, -1);
        let id = WSATHREADID { ThreadHandle: handle(thread), Reserved: 0 };
        // SAFETY: as above; the last two are this function's own, and used by the call alone.
        let result = unsafe {
            WSPIoctl(
                socket,
                code,
                ptr::null(),
                0,
                output,
                64,
                bytes,
                self.overlapped(),
                self.routine,
                &raw const id,
                &raw mut error,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(error),
        }
    }

    fn pointers(&self) -> (*mut c_void, *mut u32) {
        let memory = self.memory.get();
        // SAFETY: places in the test's own memory; nothing is read.
        unsafe {
            (
                (&raw mut (*memory).output).cast(),
                if self.no_bytes_returned { ptr::null_mut() } else { &raw mut (*memory).bytes },
            )
        }
    }

    fn overlapped(&self) -> *mut OVERLAPPED {
        // SAFETY: a place in the test's own memory; nothing is read.
        unsafe { &raw mut (*self.memory.get()).overlapped }
    }

    fn result(&self, wait: bool) -> Result<u32, i32> {
        let (mut bytes, mut flags) = (1, 1);
        // SAFETY: the operation's own memory, and this function's own.
        match unsafe { WSAGetOverlappedResult(0, self.overlapped(), &raw mut bytes, wait.into(), &raw mut flags) } {
            0 => Err(last()),
            _ => Ok(bytes),
        }
    }

    /// As programs look at it that do not ask.
    fn status(&self) -> i32 {
        // SAFETY: the operation's own memory.
        unsafe { (&raw const (*self.overlapped()).Internal).read_volatile() as i32 }
    }

    fn event_is_set(&self) -> bool {
        self.event_is_set_within(0)
    }

    fn event_is_set_within(&self, milliseconds: u32) -> bool {
        let event = handle(self.event.cast_unsigned());
        // SAFETY: one handle is read.
        unsafe { WSAWaitForMultipleEvents(1, &raw const event, 0, milliseconds, 0) == WSA_WAIT_EVENT_0 }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: no memory is passed.
        unsafe { WSACloseEvent(self.event) };
    }
}

thread_local! {
    /// Calls of [`mark`] in this thread: error, bytes, address of the operation.
    static MARKS: RefCell<Vec<(i32, u32, usize)>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "system" fn mark(error: u32, bytes: u32, overlapped: *mut OVERLAPPED, flags: u32) {
    assert_eq!(flags, 0);
    MARKS.with_borrow_mut(|marks| marks.push((error as i32, bytes, overlapped.addr())));
}

unsafe extern "system" fn never(_: u32, _: u32, _: *mut OVERLAPPED, _: u32) {
    unreachable!("this routine belongs to an operation that has not begun");
}

/// Does something in a child process, and fails where it is false.
fn in_a_child(act: impl FnOnce() -> bool) {
    // SAFETY: the child calls nothing but the library and _exit(); no other thread is inside the library.
    match unsafe { libc::fork() } {
        0 => {
            let code = if act() { 0 } else { 1 };
            // SAFETY: ends the child, and nothing of the parent's.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = -1;
            // SAFETY: the status is this function's own.
            assert_eq!((unsafe { libc::waitpid(child, &raw mut status, 0) }, status), (child, 0));
        }
    }
}

fn socket() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn number(socket: &TcpListener) -> SOCKET {
    SOCKET::try_from(socket.as_raw_fd()).unwrap()
}

fn handle(number: usize) -> HANDLE {
    ptr::without_provenance_mut(number)
}

fn last() -> i32 {
    // SAFETY: no memory is passed.
    unsafe { WSAGetLastError() }
}

fn cancel(socket: SOCKET, call: &Call) -> Result<(), i32> {
    // SAFETY: of the operation only the address is used.
    match unsafe { CancelIoEx(handle(socket), call.overlapped()) } {
        0 => Err(last()),
        _ => Ok(()),
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
