//! The call itself: its arguments' rules, then the answer, or the beginning of an operation.

use std::{mem::offset_of, os::fd::BorrowedFd, sync::Arc};

use super::{
    answer::{Failure, Request},
    apc, objects,
    operations::{self, Operation, Routine},
    port::Port,
    sockets::{Kept, Named},
};
use crate::{
    RECORDS_MAX,
    sys::{Item, Memory},
    winsock::{OVERLAPPED, numbers::*},
};

/// The arguments of `WSAIoctl`, and the thread that `WSPIoctl` adds.
pub(crate) struct Arguments<'a> {
    /// `None`: the number can be no descriptor's.
    pub(crate) socket: Option<BorrowedFd<'a>>,
    pub(crate) code: u32,
    pub(crate) input: Memory,
    pub(crate) output: Memory,
    /// Of a `u32`.
    pub(crate) bytes_returned: Memory,
    /// Of an `OVERLAPPED`.
    pub(crate) overlapped: Memory,
    pub(crate) routine: Option<Box<dyn FnOnce(i32, u32) + Send>>,
    /// Of a `WSATHREADID`, the one that runs the routine; null: the calling one.
    pub(crate) thread: Memory,
}

/// `Err(`[`WSA_IO_PENDING`]`)`: it has begun.
pub(crate) fn ioctl(arguments: Arguments<'_>) -> Result<(), i32> {
    // In this order: the pointer for the answer's size, the code, the socket, the other arguments, the engine.
    let returned = arguments.bytes_returned;
    if !returned.is_null() {
        put_size(returned, 0)?;
    } else if arguments.overlapped.is_null() {
        return Err(WSAEFAULT);
    }
    let code = Code::from_number(arguments.code).ok_or(WSAEOPNOTSUPP)?;
    let socket = arguments.socket.and_then(|socket| Named::of(socket).ok()).ok_or(WSAENOTSOCK)?;
    let is_overlapped = !arguments.overlapped.is_null() && socket.is_overlapped();
    if returned.is_null() && !is_overlapped {
        return Err(WSAEFAULT);
    }
    let request = match code {
        Code::Query(item) => query(item, arguments.input, arguments.output)?,
        Code::Set => set(arguments.input, arguments.output)?,
        Code::Flush => {
            operations::abort(|operation| operation.socket.is(socket));
            return Ok(());
        }
    };
    if is_overlapped {
        let port = socket.port();
        // It has a descriptor of its own until its end.
        let socket = socket.keep().map_err(|_no_descriptor| WSAENOBUFS)?;
        return begin(socket, port, request, arguments);
    }
    match request.perform(&socket) {
        Ok(bytes) => put_size(returned, bytes),
        Err(Failure { error, bytes }) => {
            put_size(returned, bytes)?;
            Err(error)
        }
    }
}

#[derive(Clone, Copy)]
enum Code {
    Query(Item),
    Set,
    Flush,
}

impl Code {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS => Self::Query(Item::Records),
            SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT => Self::Query(Item::Context),
            SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS => Self::Set,
            SIO_FLUSH => Self::Flush,
            _ => return None,
        })
    }
}

fn query(item: Item, input: Memory, output: Memory) -> Result<Request, i32> {
    if input.length() != 0 {
        return Err(WSAEINVAL);
    }
    if output.is_null() && output.length() != 0 {
        return Err(WSAEFAULT);
    }
    Ok(Request::Query { item, output })
}

fn set(input: Memory, output: Memory) -> Result<Request, i32> {
    // Too large is not read at all.
    if output.length() != 0 || input.length() == 0 || input.length() > RECORDS_MAX {
        return Err(WSAEINVAL);
    }
    match input.read() {
        Ok(records) => Ok(Request::Set { records }),
        Err(_fault) => Err(WSAEFAULT),
    }
}

fn begin(
    socket: Kept,
    port: Option<(Arc<Port>, usize)>,
    request: Request,
    arguments: Arguments<'_>,
) -> Result<(), i32> {
    let Arguments { overlapped, routine, thread, .. } = arguments;
    let outlives_its_thread = port.is_some();
    let begun_by = apc::current().map_err(|_no_descriptor| WSAENOBUFS)?;
    let event = overlapped.word(offset_of!(OVERLAPPED, hEvent)).map_err(|_fault| WSAEFAULT)?;
    let (event, port, routine) = match routine {
        Some(_) if port.is_some() => return Err(WSAEINVAL),
        // The routine's event is the caller's to use.
        Some(call) => {
            let thread = if thread.is_null() { Arc::clone(&begun_by) } else { objects::thread_of(thread)? };
            (None, None, Some(Routine { thread, call }))
        }
        None => {
            let port = port.filter(|_| event & TELL_NO_PORT == 0);
            let event = match event & !TELL_NO_PORT {
                0 => None,
                handle => Some(objects::event(handle).ok_or(WSA_INVALID_HANDLE)?),
            };
            (event, port, None)
        }
    };
    let operation = Operation { socket, request, overlapped, event, routine, port, begun_by, outlives_its_thread };
    operations::begin(operation)?;
    Err(WSA_IO_PENDING)
}

/// The lowest bit of an event's handle.
const TELL_NO_PORT: usize = 1;

fn put_size(returned: Memory, bytes: u32) -> Result<(), i32> {
    returned.write(&bytes.to_ne_bytes()).map_err(|_fault| WSAEFAULT)
}
