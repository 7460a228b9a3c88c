//! Operations that are begun, and how they end.

use std::{
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

use carnet::winsock::{self as ws, OVERLAPPED, SOCKET};

use super::{Buffer, Event, Pages, Told, UNTOUCHED, as_u32, forget_error, record, told};

/// An operation: an `OVERLAPPED`, an input, an output and the bytes returned, none of which is ever freed.
pub struct Operation {
    pub(super) overlapped: *mut OVERLAPPED,
    pub(super) input: &'static [u8],
    pub(super) output: *mut u8,
    pub(super) capacity: usize,
    pub(super) returned: *mut u32,
}

// SAFETY: what it points to belongs to no thread, and is there for ever.
unsafe impl Send for Operation {}

/// How an operation is begun where it is not as usual.
#[derive(Clone, Copy, Default)]
pub struct Begin {
    /// With a completion routine.
    pub routine: bool,
    /// Without a variable for the bytes returned.
    pub returned_null: bool,
    /// With null for the output, and its length.
    pub output_null: bool,
}

impl Operation {
    /// With room for so many bytes.
    pub fn new(input: &[u8], capacity: usize, event: Option<&Event>) -> Self {
        Self::with_event_number(input, capacity, event.map_or(0, |event| event.number()))
    }

    /// With this number for its event's handle.
    pub fn with_event_number(input: &[u8], capacity: usize, event: usize) -> Self {
        let overlapped = OVERLAPPED { hEvent: ptr::without_provenance_mut(event), ..OVERLAPPED::default() };
        Self {
            overlapped: Box::leak(Box::new(overlapped)),
            input: Box::leak(Box::from(input)),
            output: Box::leak(vec![FILL; capacity].into_boxed_slice()).as_mut_ptr(),
            capacity,
            returned: Box::leak(Box::new(UNTOUCHED)),
        }
    }

    pub fn begin(&self, socket: SOCKET, code: u32) -> Told {
        self.begin_as(socket, code, Begin::default())
    }

    pub fn begin_as(&self, socket: SOCKET, code: u32, how: Begin) -> Told {
        forget_error();
        // SAFETY: all of it is there for ever, as long as it says, and used for nothing else. The call only reads the
        // input.
        let ret = unsafe {
            self.returned.write_volatile(UNTOUCHED);
            ws::WSAIoctl(
                socket,
                code,
                self.input.as_ptr().cast(),
                as_u32(self.input.len()),
                if how.output_null { ptr::null_mut() } else { self.output.cast() },
                as_u32(self.capacity),
                if how.returned_null { ptr::null_mut() } else { self.returned },
                self.overlapped,
                how.routine.then_some(routine),
            )
        };
        // SAFETY: as above.
        let bytes = unsafe { self.returned.read_volatile() };
        told("WSAIoctl, overlapped", ret, (!how.returned_null).then_some(bytes))
    }

    /// `WSAGetOverlappedResult`. Told as `ret` 0 where that says TRUE, so that it reads as the other calls do.
    pub fn result(&self, socket: SOCKET, wait: bool) -> Told {
        let (mut bytes, mut flags) = (UNTOUCHED, 0);
        forget_error();
        // SAFETY: the OVERLAPPED is there for ever, and the variables during the call.
        let done = unsafe { ws::WSAGetOverlappedResult(socket, self.overlapped, &mut bytes, wait.into(), &mut flags) };
        told("WSAGetOverlappedResult", i32::from(done != 0) - 1, Some(bytes))
    }

    /// `OVERLAPPED.Internal`: an NTSTATUS.
    pub fn status(&self) -> u32 {
        // SAFETY: it is there for ever; whoever writes meanwhile writes a whole word.
        let status = unsafe { (&raw const (*self.overlapped).Internal).read_volatile() };
        record(Told { call: "Internal", ret: status as i64, error: 0, bytes: None });
        status as u32
    }

    /// What is in the output now.
    pub fn output(&self) -> Vec<u8> {
        // SAFETY: it is there for ever, and as long as this.
        (0..self.capacity).map(|index| unsafe { self.output.add(index).read_volatile() }).collect()
    }

    pub fn address(&self) -> usize {
        self.overlapped.addr()
    }

    /// The completions of this operation's routine until now.
    pub fn completions(&self) -> Vec<Completion> {
        completions().iter().filter(|completion| completion.operation == self.address()).copied().collect()
    }
}

/// `WSAGetOverlappedResult` with null where there should be a pointer.
pub fn result_at_null(socket: SOCKET, operation: Option<&Operation>, bytes_null: bool, flags_null: bool) -> Told {
    let (mut bytes, mut flags) = (UNTOUCHED, 0);
    forget_error();
    let overlapped = operation.map_or(ptr::null_mut(), |operation| operation.overlapped);
    let bytes = if bytes_null { ptr::null_mut() } else { &raw mut bytes };
    let flags = if flags_null { ptr::null_mut() } else { &raw mut flags };
    // SAFETY: null, or there during the call.
    let done = unsafe { ws::WSAGetOverlappedResult(socket, overlapped, bytes, 0, flags) };
    told("WSAGetOverlappedResult", i32::from(done != 0) - 1, None)
}

/// `WSAIoctl` with an `OVERLAPPED` that leads nowhere.
pub fn begin_nowhere(socket: SOCKET, code: u32, pages: &Pages) -> Told {
    let mut bytes = UNTOUCHED;
    forget_error();
    let nowhere = Buffer::at_the_edge(pages, 0, size_of::<OVERLAPPED>()).pointer.cast();
    let (input, output) = (ptr::null(), ptr::null_mut());
    // SAFETY: nothing can be read or written where the OVERLAPPED should be, so no operation begins, and the variable is
    // there during the call.
    let ret = unsafe { ws::WSAIoctl(socket, code, input, 0, output, 0, &mut bytes, nowhere, None) };
    told("WSAIoctl, overlapped", ret, Some(bytes))
}

/// One run of the completion routine.
#[derive(Clone, Copy)]
pub struct Completion {
    /// The address of the `OVERLAPPED`.
    pub operation: usize,
    pub error: u32,
    pub bytes: u32,
    pub thread: ThreadId,
}

static COMPLETIONS: Mutex<Vec<Completion>> = Mutex::new(Vec::new());

fn completions() -> MutexGuard<'static, Vec<Completion>> {
    COMPLETIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs of the routine in this thread, of whatever operation.
pub fn completions_here() -> usize {
    let here = thread::current().id();
    completions().iter().filter(|completion| completion.thread == here).count()
}

/// `CancelIoEx`, of one operation or all of the socket's. Told as `ret` 0 where that says TRUE.
pub fn cancel(socket: SOCKET, operation: Option<&Operation>) -> Told {
    forget_error();
    let overlapped = operation.map_or(ptr::null_mut(), |operation| operation.overlapped);
    // SAFETY: a number, and null or an operation that is there for ever.
    let done = unsafe { ws::CancelIoEx(ptr::without_provenance_mut(socket), overlapped) };
    told("CancelIoEx", i32::from(done != 0) - 1, None)
}

/// What is in an output before the call.
pub const FILL: u8 = 0xA5;

/// Does not look behind the pointer.
pub(super) unsafe extern "system" fn routine(error: u32, bytes: u32, overlapped: *mut OVERLAPPED, _flags: u32) {
    let thread = thread::current().id();
    completions().push(Completion { operation: overlapped.addr(), error, bytes, thread });
}
