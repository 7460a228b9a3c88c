use std::{fmt, io};

use super::numbers::*;
use crate::sys::{self, AsSocket};

/// One of the three operations.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Code {
    /// [`SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS`]
    QueryRecords,
    /// [`SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT`]
    QueryContext,
    /// [`SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS`]
    SetRecords,
}

impl Code {
    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Self::QueryRecords => SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS,
            Self::QueryContext => SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT,
            Self::SetRecords => SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS,
        }
    }
}

/// Performs an operation at once; how many bytes were put out. A query takes no input and SET no output.
///
/// # Errors
///
/// Those of the contract; [`IoctlError::needed`] where `output` is too small, which may be empty to ask just that.
pub fn ioctl(socket: &impl AsSocket, code: Code, input: &[u8], output: &mut [u8]) -> Result<usize, IoctlError> {
    sys::ioctl(sys::borrow(socket), code.number(), input, output)
}

/// What an operation is to do, with the memory for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    pub(crate) code: Code,
    pub(crate) buffer: Vec<u8>,
}

impl Request {
    /// Asks for the records, in at most so many bytes.
    pub fn query_records(room: usize) -> Self {
        Self { code: Code::QueryRecords, buffer: vec![0; room] }
    }

    /// Asks for the context, in at most so many bytes.
    pub fn query_context(room: usize) -> Self {
        Self { code: Code::QueryContext, buffer: vec![0; room] }
    }

    /// Sets these records.
    pub fn set_records(records: Vec<u8>) -> Self {
        Self { code: Code::SetRecords, buffer: records }
    }

    /// What it is to do, and the memory.
    pub fn into_parts(self) -> (Code, Vec<u8>) {
        (self.code, self.buffer)
    }

    /// The end of it: a query's buffer has the answer alone, and after a failure it is as long as it was.
    pub(crate) fn ended(mut self, result: Result<usize, IoctlError>) -> Outcome {
        if let (Ok(bytes), true) = (&result, self.code != Code::SetRecords) {
            self.buffer.truncate(*bytes);
        }
        Outcome { result, buffer: self.buffer }
    }
}

/// How an operation has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// How many bytes were put out, or why it failed.
    pub result: Result<usize, IoctlError>,
    /// The request's memory: the answer of a query that succeeded, or the records that were to be set.
    pub buffer: Vec<u8>,
}

/// Why the system refused: a number of [`winsock`](crate::winsock), the same on both systems.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IoctlError {
    number: i32,
    bytes: u32,
}

impl IoctlError {
    pub(crate) fn new(number: i32, bytes: u32) -> Self {
        Self { number, bytes }
    }

    /// The number, as `WSAGetLastError` has it.
    pub fn number(&self) -> i32 {
        self.number
    }

    /// How large the buffer must be, where it was too small.
    ///
    /// Windows is documented to say [`ERROR_INSUFFICIENT_BUFFER`]; programs have seen other numbers there.
    pub fn needed(&self) -> Option<usize> {
        (self.is_too_small() && self.bytes > 0).then(|| usize::try_from(self.bytes).ok()).flatten()
    }

    /// By the documented number, or one of those that the kernel's STATUS_BUFFER_TOO_SMALL and STATUS_BUFFER_OVERFLOW may
    /// become on their way.
    pub(crate) fn is_too_small(&self) -> bool {
        const NUMBERS: [i32; 4] =
            [ERROR_INSUFFICIENT_BUFFER.cast_signed(), WSAEFAULT, WSAENOBUFS, ERROR_MORE_DATA.cast_signed()];
        NUMBERS.contains(&self.number)
    }
}

impl fmt::Display for IoctlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(needed) = self.needed() {
            return write!(f, "the buffer is too small: give {needed} bytes");
        }
        f.write_str(match self.number {
            WSA_OPERATION_ABORTED => "the operation was cancelled, or its socket was closed",
            WSAEACCES => "not permitted: only the service to which the newest redirect went may set the records",
            WSAEFAULT => "a pointer leads nowhere",
            WSAEINVAL => "no record, or an argument that is not acceptable",
            WSAENOTSOCK => "not a socket",
            WSAENOPROTOOPT => "not a TCP socket",
            WSAEOPNOTSUPP => "no engine answers on this socket",
            WSAENOBUFS => "no memory",
            WSAEISCONN => "the socket has connected: set the records on a new one",
            WSAENOTCONN => "the socket is not connected: ask the accepted one",
            FWP_E_NOT_FOUND => "the connection was redirected, and has no context",
            _ => "the system refused",
        })?;
        write!(f, " (error {})", self.number)
    }
}

impl std::error::Error for IoctlError {}

impl From<IoctlError> for io::Error {
    fn from(error: IoctlError) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_small_by_any_of_its_numbers() {
        for number in [122, 10014, 10055, 234] {
            assert_eq!(IoctlError::new(number, 440).needed(), Some(440));
            assert_eq!(IoctlError::new(number, 0).needed(), None);
        }
        assert_eq!(IoctlError::new(WSAEINVAL, 440).needed(), None);
    }

    #[test]
    fn a_message_says_what_to_do() {
        assert_eq!(IoctlError::new(122, 440).to_string(), "the buffer is too small: give 440 bytes");
        assert_eq!(IoctlError::new(10045, 0).to_string(), "no engine answers on this socket (error 10045)");
    }
}
