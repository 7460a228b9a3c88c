//! Operations that stay pending until a test performs them, so that each race has the winner which the test is about.
//! No engine is needed: its answer to a socket outside is an answer like any other. What an engine answers is the
//! contract suite's.

mod ending;
mod ports;
mod waits;

use std::{cell::UnsafeCell, ffi::c_void, net::TcpListener, os::fd::AsRawFd, ptr};

use crate::winsock::{linux::operations::by_hand, *};

/// What every socket outside an engine answers.
const ANSWER: i32 = WSAEOPNOTSUPP;

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
