//! `WSAIoctl` without an `OVERLAPPED`, and the memory that its pointers lead to, or do not.

use std::{ffi::c_void, marker::PhantomData, ptr};

use carnet::winsock::{self as ws, SOCKET};

use super::{Told, UNTOUCHED, as_u32, forget_error, operation::routine, told};

/// Bytes that a call may read or write, or an address that leads nowhere.
#[derive(Clone, Copy)]
pub struct Buffer<'a> {
    pub(super) pointer: *mut c_void,
    length: u32,
    bytes: PhantomData<&'a mut [u8]>,
}

impl<'a> Buffer<'a> {
    /// A null pointer, and this length.
    pub fn null(length: u32) -> Self {
        Self { pointer: ptr::null_mut(), length, bytes: PhantomData }
    }

    /// These bytes.
    pub fn of(bytes: &'a mut [u8]) -> Self {
        Self { pointer: bytes.as_mut_ptr().cast(), length: as_u32(bytes.len()), bytes: PhantomData }
    }

    /// Their pointer, and a length of at most theirs.
    pub fn with_length(bytes: &'a mut [u8], length: usize) -> Self {
        assert!(length <= bytes.len());
        Self { length: as_u32(length), ..Self::of(bytes) }
    }

    /// The end of the memory that may be written, `before` bytes of it, and what lies behind: `length` bytes in all.
    pub fn at_the_edge(pages: &'a Pages, before: usize, length: usize) -> Self {
        assert!(before <= Pages::SIZE && length - before <= Pages::SIZE);
        let pointer = pages.base.wrapping_byte_add(Pages::SIZE - before);
        Self { pointer, length: as_u32(length), bytes: PhantomData }
    }

    /// Memory that may be read and not be written.
    pub fn read_only(pages: &'a Pages, length: usize) -> Self {
        assert!(length <= Pages::SIZE);
        Self { pointer: pages.base.wrapping_byte_add(2 * Pages::SIZE), length: as_u32(length), bytes: PhantomData }
    }
}

/// Where the bytes returned are told.
#[derive(Clone, Copy)]
pub enum Returned<'a> {
    /// In a variable.
    Variable,
    /// The pointer is null.
    Null,
    /// At an address that may not be written.
    At(Buffer<'a>),
}

/// A call without `OVERLAPPED`.
pub struct Ioctl<'a> {
    pub socket: SOCKET,
    pub code: u32,
    pub input: Buffer<'a>,
    pub output: Buffer<'a>,
    pub returned: Returned<'a>,
}

impl Ioctl<'_> {
    /// Nothing in, nothing out.
    pub fn new(socket: SOCKET, code: u32) -> Self {
        Self { socket, code, input: Buffer::null(0), output: Buffer::null(0), returned: Returned::Variable }
    }

    pub fn call(self) -> Told {
        self.call_with(None)
    }

    /// With a completion routine, whose operation is none.
    pub fn call_with_routine(self) -> Told {
        self.call_with(Some(routine))
    }

    fn call_with(self, routine: ws::LPWSAOVERLAPPED_COMPLETION_ROUTINE) -> Told {
        let mut bytes = UNTOUCHED;
        forget_error();
        // SAFETY: each pointer is null, leads to as many bytes as are told, which are borrowed during the call, or into
        // pages that are there for this. Without an OVERLAPPED nothing goes on after it.
        let ret = unsafe {
            ws::WSAIoctl(
                self.socket,
                self.code,
                self.input.pointer,
                self.input.length,
                self.output.pointer,
                self.output.length,
                self.returned.pointer(&mut bytes),
                ptr::null_mut(),
                routine,
            )
        };
        told("WSAIoctl", ret, matches!(self.returned, Returned::Variable).then_some(bytes))
    }
}

impl Returned<'_> {
    fn pointer(self, variable: *mut u32) -> *mut u32 {
        match self {
            Self::Variable => variable,
            Self::Null => ptr::null_mut(),
            Self::At(buffer) => buffer.pointer.cast(),
        }
    }
}

/// Three pieces of memory, one after the other: to be written, not to be touched, to be read. Never given back.
pub struct Pages {
    pub(super) base: *mut c_void,
}

// SAFETY: addresses; nobody reads or writes there but the calls that are asked to.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Of each; a multiple of every system's page.
    pub const SIZE: usize = 1 << 16;
}
