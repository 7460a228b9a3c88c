//! Overlapped operations that own their memory: one source over the calls of `winsock`, which on Windows are Winsock's.
//!
//! A block holds all that the system uses until the operation ends. It is on the heap, never moved, and from the call
//! that begins the operation to the one that sees its end it is reached by raw pointers alone.

use std::{
    cell::UnsafeCell,
    collections::BTreeSet,
    fmt,
    marker::PhantomData,
    ptr::{self, NonNull},
    sync::{
        Mutex, PoisonError,
        atomic::{Ordering, fence},
    },
    time::{Duration, Instant},
};

use crate::{
    sys::{self, AsSocket, BorrowedSocket},
    winsock::{
        BOOL, CancelIoEx, CloseHandle, Code, CreateIoCompletionPort, GetQueuedCompletionStatus, HANDLE, IoctlError,
        LPWSAOVERLAPPED_COMPLETION_ROUTINE, OVERLAPPED, Outcome, Request, SOCKET, SleepEx, WSACloseEvent,
        WSACreateEvent, WSAEVENT, WSAGetLastError, WSAGetOverlappedResult, WSAIoctl, WSAWaitForMultipleEvents,
        numbers::*,
    },
};

/// Performs an operation at once.
pub(crate) fn ioctl(
    socket: BorrowedSocket<'_>,
    code: u32,
    input: &[u8],
    output: &mut [u8],
) -> Result<usize, IoctlError> {
    let mut bytes = 0;
    // SAFETY: the slices are readable and writable for their lengths, for the whole call: nothing is overlapped.
    let result = unsafe {
        WSAIoctl(
            sys::number(socket),
            code,
            pointer_or_null(input.as_ptr(), input.len()).cast(),
            length(input.len()),
            pointer_or_null(output.as_mut_ptr(), output.len()).cast_mut().cast(),
            length(output.len()),
            &raw mut bytes,
            ptr::null_mut(),
            None,
        )
    };
    if result == 0 { Ok(in_bounds(bytes, output.len())) } else { Err(last_error(bytes)) }
}

/// An operation whose end is asked for.
///
/// It owns its buffer until it has ended. Dropped before, it is cancelled; and it is cancelled when the thread ends that
/// began it.
#[derive(Debug)]
pub struct Operation {
    block: NonNull<Block>,
    event: Event,
}

// SAFETY: nothing of it belongs to a thread; a block with a routine, which might, is never in here.
unsafe impl Send for Operation {}

impl Operation {
    /// Begins it. The socket may be closed while it is pending, which aborts it.
    ///
    /// # Errors
    ///
    /// Nothing is pending, and the outcome is here already: why it was refused; or, where the socket takes no overlapped
    /// operations, the answer.
    pub fn begin(socket: &impl AsSocket, request: Request) -> Result<Self, Outcome> {
        let event = match Event::new() {
            Ok(event) => event,
            Err(error) => return Err(request.ended(Err(error))),
        };
        let block = Block::new(
            sys::number(sys::borrow(socket)),
            request,
            event.handle().map_addr(|event| event | TELL_NO_PORT),
        );
        // SAFETY: the block is new; it is freed below, or by `Drop`, after the end.
        match unsafe { Block::begin(block, None) } {
            Ok(()) => Ok(Self { block, event }),
            // SAFETY: nothing is pending.
            Err(result) => Err(unsafe { Block::free(block) }.request.ended(result)),
        }
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        // SAFETY: the block lives as long as this.
        unsafe { Block::is_finished(self.block) }
    }

    /// Cancels it, if nobody performs it yet; says whether it did. Its end is told as any other.
    pub fn cancel(&self) -> bool {
        // SAFETY: the block lives as long as this.
        unsafe { Block::cancel(self.block) }
    }

    /// Waits for its end.
    pub fn wait(self) -> Outcome {
        self.wait_until(None);
        self.into_outcome()
    }

    /// Waits for its end for so long; gives itself back if it has not come by then.
    ///
    /// # Errors
    ///
    /// It is pending.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Outcome, Self> {
        self.wait_until(Instant::now().checked_add(timeout));
        if self.is_finished() { Ok(self.into_outcome()) } else { Err(self) }
    }

    fn wait_until(&self, end: Option<Instant>) {
        while !self.is_finished() {
            let left = end.map_or(LOOK_AGAIN, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            // Not for the event alone: Wine does not signal it where it does not know the code.
            self.event.wait(left.min(LOOK_AGAIN));
        }
    }

    /// It has ended.
    fn into_outcome(self) -> Outcome {
        let block = self.block;
        // SAFETY: the block is this one's, and freed here alone: `Drop` does not see it.
        let outcome = unsafe { Block::outcome(block) };
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: not used after this.
        unsafe { ptr::drop_in_place(&raw mut this.event) };
        outcome
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.cancel();
        self.wait_until(Instant::now().checked_add(GIVE_UP));
        if self.is_finished() {
            // SAFETY: it has ended, and nobody has it any more.
            drop(unsafe { Block::outcome(self.block) });
        }
        // Else the system may still write there: the memory is left to it.
    }
}

/// Begins an operation whose end is told by a call of `routine`, in this thread, while it waits in [`wait_alertable`] or
/// in one of the alertable waits of the contract. A routine that panics ends the process. A thread that ends without
/// such a wait never calls it.
///
/// # Errors
///
/// As [`Operation::begin`]; and [`WSAEINVAL`] where a [`CompletionQueue`] serves the socket. The routine is not called.
pub fn begin_with(
    socket: &impl AsSocket,
    request: Request,
    routine: impl FnOnce(Outcome) + 'static,
) -> Result<(), Outcome> {
    let mut block = Block::boxed(sys::number(sys::borrow(socket)), request, ptr::null_mut());
    block.routine = Some(Box::new(routine));
    let block = Block::leak(block);
    // SAFETY: the block is new, and freed by the routine, or below.
    unsafe { Block::begin(block, Some(run_routine)) }.map_err(|result| {
        // SAFETY: nothing is pending, and the routine will not run.
        unsafe { Block::free(block) }.request.ended(result)
    })
}

/// Waits for completion routines and runs them; false: there was none in all this time.
pub fn wait_alertable(timeout: Duration) -> bool {
    // SAFETY: no memory is passed.
    unsafe { SleepEx(milliseconds(timeout), TRUE) == WSA_WAIT_IO_COMPLETION }
}

unsafe extern "system" fn run_routine(error: u32, bytes: u32, overlapped: *mut OVERLAPPED, _flags: u32) {
    let Some(block) = NonNull::new(overlapped.cast::<Block>()) else { return };
    // SAFETY: `begin_with` alone gives this routine to the system, with a block's OVERLAPPED; it has ended.
    let block = unsafe { Block::free(block) };
    let result = if error == 0 { Ok(bytes) } else { Err(IoctlError::new(error.cast_signed(), bytes)) };
    let result = result.map(|bytes| in_bounds(bytes, block.request.buffer.len()));
    let outcome = block.request.ended(result);
    if let Some(routine) = block.routine {
        routine(outcome);
    }
}

/// Where the ends of many operations come together, for a thread, for several, or for an async runtime: on Linux it is
/// readable (`AsFd`) while there are any.
///
/// Dropped, it cancels what is pending.
#[derive(Debug)]
pub struct CompletionQueue {
    port: HANDLE,
    /// Addresses of the blocks whose end has not come.
    pending: Mutex<BTreeSet<usize>>,
    #[cfg(target_os = "linux")]
    readiness: sys::Readiness,
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsFd for CompletionQueue {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsRawFd for CompletionQueue {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsFd::as_fd(self).as_raw_fd()
    }
}

// SAFETY: the handle is not a thread's, and the system serialises what is done with it.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

/// A socket that a [`CompletionQueue`] serves.
#[derive(Clone, Copy, Debug)]
pub struct Attached<'a> {
    queue: &'a CompletionQueue,
    socket: SOCKET,
    open: PhantomData<BorrowedSocket<'a>>,
}

/// An operation's end, from a [`CompletionQueue`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Completion {
    /// What the socket was attached with.
    pub key: usize,
    /// How it has ended.
    pub outcome: Outcome,
}

impl CompletionQueue {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// [`WSA_NOT_ENOUGH_MEMORY`]: there are no more descriptors.
    pub fn new() -> Result<Self, IoctlError> {
        // SAFETY: no memory is passed.
        let port =
            unsafe { CreateIoCompletionPort(ptr::without_provenance_mut(INVALID_SOCKET), ptr::null_mut(), 0, 0) };
        if port.is_null() {
            return Err(last_error(0));
        }
        Ok(Self {
            port,
            pending: Mutex::default(),
            #[cfg(target_os = "linux")]
            readiness: sys::Readiness::of(port.addr()).ok_or(IoctlError::new(WSA_INVALID_HANDLE, 0))?,
        })
    }

    /// Tells the ends of the socket's operations here, with `key`. For as long as the socket is open: a socket has one
    /// queue at most.
    ///
    /// # Errors
    ///
    /// [`WSA_INVALID_PARAMETER`]: it has one already.
    pub fn attach<'a>(&'a self, socket: &'a impl AsSocket, key: usize) -> Result<Attached<'a>, IoctlError> {
        let socket = sys::number(sys::borrow(socket));
        // SAFETY: no memory is passed.
        let port = unsafe { CreateIoCompletionPort(ptr::without_provenance_mut(socket), self.port, key, 0) };
        if port.is_null() { Err(last_error(0)) } else { Ok(Attached { queue: self, socket, open: PhantomData }) }
    }

    /// The oldest end; waits for it for so long (`None`: without end).
    ///
    /// # Errors
    ///
    /// The system's, for lack of memory.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Completion>, IoctlError> {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            match self.receive(left.map_or(WSA_INFINITE, milliseconds))? {
                Received::Completion(completion) => return Ok(Some(completion)),
                Received::Nothing if left.is_some_and(|left| left <= LONGEST) => return Ok(None),
                Received::Nothing | Received::Foreign => {}
            }
        }
    }

    fn receive(&self, timeout: u32) -> Result<Received, IoctlError> {
        let (mut bytes, mut key, mut overlapped) = (0, 0, ptr::null_mut());
        // SAFETY: the three are this function's own.
        let ok =
            unsafe { GetQueuedCompletionStatus(self.port, &raw mut bytes, &raw mut key, &raw mut overlapped, timeout) };
        let Some(block) = NonNull::new(overlapped.cast::<Block>()) else {
            let error = last_error(0);
            return if error.number() == WSA_WAIT_TIMEOUT.cast_signed() { Ok(Received::Nothing) } else { Err(error) };
        };
        let _the_result_says = ok;
        let address = block.addr().get();
        let mut pending = self.lock();
        // Begun by a raw call on a socket that was attached here. Such a call's memory may have been a block's before, and
        // be one again: so a block that has not ended is not taken, either.
        // SAFETY: a block of ours is there while it is in the set.
        if !pending.contains(&address) || !unsafe { Block::is_finished(block) } {
            return Ok(Received::Foreign);
        }
        pending.remove(&address);
        drop(pending);
        // SAFETY: it is a block of ours that has ended, and nobody else can take it now.
        Ok(Received::Completion(Completion { key, outcome: unsafe { Block::outcome(block) } }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<usize>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Received {
    Completion(Completion),
    /// Not an operation of [`Attached::begin`].
    Foreign,
    Nothing,
}

impl Attached<'_> {
    /// Begins an operation, whose end comes to the queue.
    ///
    /// # Errors
    ///
    /// As [`Operation::begin`].
    pub fn begin(&self, request: Request) -> Result<(), Outcome> {
        let block = Block::new(self.socket, request, ptr::null_mut());
        // Held over the call: its end may be taken from the queue at once, and is only then the taker's.
        let mut pending = self.queue.lock();
        pending.insert(block.addr().get());
        // SAFETY: the block is new, and freed by `CompletionQueue::receive`, or below.
        unsafe { Block::begin(block, None) }.map_err(|result| {
            pending.remove(&block.addr().get());
            // SAFETY: nothing is pending.
            unsafe { Block::free(block) }.request.ended(result)
        })
    }

    /// Cancels the socket's operations that nobody performs yet; says whether there were any.
    pub fn cancel(&self) -> bool {
        // SAFETY: no memory is passed.
        unsafe { CancelIoEx(ptr::without_provenance_mut(self.socket), ptr::null()) != 0 }
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        let pending: Vec<usize> = self.lock().iter().copied().collect();
        for address in pending {
            if let Some(block) = NonNull::new(ptr::with_exposed_provenance_mut::<Block>(address)) {
                // SAFETY: it has not ended, or its end has not been taken: the block is there.
                unsafe { Block::cancel(block) };
            }
        }
        let end = Instant::now().checked_add(GIVE_UP);
        while !self.lock().is_empty() && end.is_none_or(|end| Instant::now() < end) {
            // What does not come leaves its memory to the system.
            if self.receive(milliseconds(LOOK_AGAIN)).is_err() {
                break;
            }
        }
        // SAFETY: the handle is this one's.
        unsafe { CloseHandle(self.port) };
    }
}

/// What the system uses until the operation ends. The `OVERLAPPED` comes first: its address is the block's.
#[repr(C)]
struct Block {
    overlapped: UnsafeCell<OVERLAPPED>,
    bytes: UnsafeCell<u32>,
    socket: SOCKET,
    request: Request,
    routine: Option<Box<dyn FnOnce(Outcome)>>,
}

impl Block {
    fn new(socket: SOCKET, request: Request, event: HANDLE) -> NonNull<Self> {
        Self::leak(Self::boxed(socket, request, event))
    }

    fn boxed(socket: SOCKET, request: Request, event: HANDLE) -> Box<Self> {
        let overlapped = UnsafeCell::new(OVERLAPPED { hEvent: event, ..OVERLAPPED::default() });
        Box::new(Self { overlapped, bytes: UnsafeCell::new(0), socket, request, routine: None })
    }

    fn leak(block: Box<Self>) -> NonNull<Self> {
        let block = NonNull::from(Box::leak(block));
        // The set of a queue has addresses, from which pointers are made again.
        let _exposed = block.as_ptr().expose_provenance();
        block
    }

    /// Begins the operation. `Err`: nothing is pending, and this has come of it.
    ///
    /// # Safety
    ///
    /// The block is not in use, and is freed after the operation's end.
    unsafe fn begin(
        block: NonNull<Self>,
        routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    ) -> Result<(), Result<usize, IoctlError>> {
        let this = block.as_ptr();
        // SAFETY: the block is ours until the call. The buffer is not touched by us from then on.
        let result = unsafe {
            (*(*this).overlapped.get()).Internal = NOT_LOOKED_AT;
            let buffer = &mut (*this).request.buffer;
            let (pointer, size) = (buffer.as_mut_ptr(), buffer.len());
            let is_query = (*this).request.code != Code::SetRecords;
            let (input, output) = if is_query { (0, size) } else { (size, 0) };
            WSAIoctl(
                (*this).socket,
                (*this).request.code.number(),
                pointer_or_null(pointer, input).cast(),
                length(input),
                pointer_or_null(pointer, output).cast_mut().cast(),
                length(output),
                (*this).bytes.get(),
                this.cast(),
                routine,
            )
        };
        if result != 0 {
            let error = last_error(0);
            return if error.number() == WSA_IO_PENDING { Ok(()) } else { Err(Err(error)) };
        }
        // Ended at once, and told all the same; unless the socket takes no overlapped operations.
        // SAFETY: the block is there until its end is taken, by the caller or the caller's routine or queue.
        match unsafe { Self::status(block) } {
            NOT_LOOKED_AT => {
                // SAFETY: nothing is pending.
                let (bytes, room) = unsafe { (*(*this).bytes.get(), (*this).request.buffer.len()) };
                Err(Ok(in_bounds(bytes, room)))
            }
            _ => Ok(()),
        }
    }

    /// # Safety
    ///
    /// The block has not been freed.
    unsafe fn status(block: NonNull<Self>) -> usize {
        // SAFETY: the system writes this word last, and whole.
        unsafe { (&raw const (*block.cast::<OVERLAPPED>().as_ptr()).Internal).read_volatile() }
    }

    /// # Safety
    ///
    /// The block has not been freed.
    unsafe fn is_finished(block: NonNull<Self>) -> bool {
        // SAFETY: the caller's promise. An NTSTATUS is 32 bits of the word.
        let is_finished = unsafe { Self::status(block) as u32 != STATUS_PENDING.cast_unsigned() };
        // What was written before the status is read after it.
        fence(Ordering::Acquire);
        is_finished
    }

    /// # Safety
    ///
    /// The block has not been freed.
    unsafe fn cancel(block: NonNull<Self>) -> bool {
        // SAFETY: of the operation only the address is used.
        unsafe { CancelIoEx(ptr::without_provenance_mut((*block.as_ptr()).socket), block.cast().as_ptr()) != 0 }
    }

    /// How it has ended. Frees the block.
    ///
    /// # Safety
    ///
    /// The operation has ended, and nobody else frees the block.
    unsafe fn outcome(block: NonNull<Self>) -> Outcome {
        // SAFETY: the block is there.
        let result = unsafe { Self::result(block) };
        // SAFETY: the caller's promise.
        let block = unsafe { Self::free(block) };
        let result = result.map(|bytes| in_bounds(bytes, block.request.buffer.len()));
        block.request.ended(result)
    }

    /// # Safety
    ///
    /// The operation has ended, and the block has not been freed.
    unsafe fn result(block: NonNull<Self>) -> Result<u32, IoctlError> {
        let (mut bytes, mut flags) = (0, 0);
        let overlapped = block.cast::<OVERLAPPED>().as_ptr();
        // SAFETY: the block is there, and nobody writes to it any more.
        let (status, count, socket) =
            unsafe { (Self::status(block), (*overlapped).InternalHigh, (*block.as_ptr()).socket) };
        if status as u32 == STATUS_SUCCESS.cast_unsigned() {
            // A count is 32 bits of its word.
            return Ok(count as u32);
        }
        // SAFETY: the block is there, and the numbers are this function's own.
        match unsafe { WSAGetOverlappedResult(socket, overlapped, &raw mut bytes, FALSE, &raw mut flags) } {
            FALSE => match last_error(bytes) {
                // Windows looks at the socket, which may have been closed: that ended it.
                error if error.number() == WSAENOTSOCK => Err(IoctlError::new(WSA_OPERATION_ABORTED, 0)),
                error => Err(error),
            },
            _ => Ok(bytes),
        }
    }

    /// # Safety
    ///
    /// The operation has not begun, or has ended, and nobody else frees the block.
    unsafe fn free(block: NonNull<Self>) -> Self {
        // SAFETY: it came from `leak`, and is freed once.
        *unsafe { Box::from_raw(block.as_ptr()) }
    }
}

struct Event(WSAEVENT);

impl Event {
    fn new() -> Result<Self, IoctlError> {
        // SAFETY: no memory is passed.
        match unsafe { WSACreateEvent() } {
            0 => Err(last_error(0)),
            event => Ok(Self(event)),
        }
    }

    fn handle(&self) -> HANDLE {
        ptr::without_provenance_mut(self.0.cast_unsigned())
    }

    fn wait(&self, timeout: Duration) {
        let handle = self.handle();
        // SAFETY: one handle can be read there.
        unsafe { WSAWaitForMultipleEvents(1, &raw const handle, FALSE, milliseconds(timeout), FALSE) };
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event").field(&self.0).finish()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the handle is this one's.
        unsafe { WSACloseEvent(self.0) };
    }
}

/// The lowest bit of an event's handle. Were the socket's completion port told as well, a queue that has the socket would
/// hear of a block that is not its own, and is gone.
const TELL_NO_PORT: usize = 1;

/// How long a wait relies on being told.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a drop waits for an operation that it has cancelled. They end within microseconds.
const GIVE_UP: Duration = Duration::from_secs(5);

/// More is waited for in parts: the system counts milliseconds in 32 bits.
const LONGEST: Duration = Duration::from_millis((WSA_INFINITE - 1) as u64);

/// A status that no operation has.
const NOT_LOOKED_AT: usize = usize::MAX;

const TRUE: BOOL = 1;
const FALSE: BOOL = 0;

fn last_error(bytes: u32) -> IoctlError {
    // SAFETY: no memory is passed.
    IoctlError::new(unsafe { WSAGetLastError() }, bytes)
}

/// Rounded up, so that a time that is not over is not 0; the longest there is for what does not fit.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(WSA_INFINITE - 1).min(WSA_INFINITE - 1)
}

/// The system does not say more than it was given room for. Were it to, the buffer's end is the end.
fn in_bounds(bytes: u32, room: usize) -> usize {
    usize::try_from(bytes).unwrap_or(room).min(room)
}

/// No buffer, no pointer: an empty one's leads nowhere.
fn pointer_or_null(pointer: *const u8, length: usize) -> *const u8 {
    if length == 0 { ptr::null() } else { pointer }
}

/// What is larger than any answer may be named smaller.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
