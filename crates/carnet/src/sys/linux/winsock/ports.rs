//! Completion ports.

use std::{ptr, sync::Arc, time::Instant};

use super::{LAST_ERROR, Memory, is_true, sockets::named};
use crate::winsock::{
    BOOL, HANDLE, OVERLAPPED,
    linux::{
        objects::{self, Object},
        port::{Packet, Port, Received},
        wait,
    },
    numbers::*,
};

/// Makes a completion port (`filehandle` is -1, and `existingcompletionport` null), or attaches a socket to one: the end
/// of each operation that it begins from then on is told there, with `completionkey`. A socket has one port at most. Null
/// is failure. The last argument is not looked at.
///
/// # Safety
///
/// The socket is not closed during the call.
pub unsafe extern "system" fn CreateIoCompletionPort(
    filehandle: HANDLE,
    existingcompletionport: HANDLE,
    completionkey: usize,
    numberofconcurrentthreads: u32,
) -> HANDLE {
    let _not_looked_at = numberofconcurrentthreads;
    let new_port = || Port::new().map(Arc::new).map_err(|_no_descriptor| WSA_NOT_ENOUGH_MEMORY);
    let insert = |port| objects::insert(Object::Port(port));
    let existing = existingcompletionport.addr();
    let result = match (filehandle.addr(), existing) {
        (INVALID_SOCKET, 0) => new_port().map(insert),
        (INVALID_SOCKET, _) => Err(WSA_INVALID_PARAMETER),
        // SAFETY: the caller's promise.
        (number, _) => unsafe { named(number) }.ok_or(WSA_INVALID_HANDLE).and_then(|socket| {
            let port = if existing == 0 { new_port()? } else { objects::port(existing).ok_or(WSA_INVALID_HANDLE)? };
            if !socket.attach(&port, completionkey) {
                return Err(WSA_INVALID_PARAMETER);
            }
            Ok(if existing == 0 { insert(port) } else { existing })
        }),
    };
    let handle = result.unwrap_or_else(|error| {
        LAST_ERROR.set(error);
        0
    });
    ptr::without_provenance_mut(handle)
}

/// The oldest operation that has ended at a port. True: it has succeeded. False with a non-null `*lpoverlapped`: it has
/// failed, and [`WSAGetLastError`](super::WSAGetLastError) says why. False with null: none came ([`WSA_WAIT_TIMEOUT`], or
/// [`ERROR_ABANDONED_WAIT_0`] where the port has been closed).
///
/// # Safety
///
/// The pointers are null or valid for what is written there.
pub unsafe extern "system" fn GetQueuedCompletionStatus(
    completionport: HANDLE,
    lpnumberofbytestransferred: *mut u32,
    lpcompletionkey: *mut usize,
    lpoverlapped: *mut *mut OVERLAPPED,
    dwmilliseconds: u32,
) -> BOOL {
    let end = wait::end_of(dwmilliseconds);
    // SAFETY: the caller's promise.
    let (bytes, key, overlapped) = unsafe {
        (
            Memory::new(lpnumberofbytestransferred, size_of::<u32>()),
            Memory::new(lpcompletionkey, size_of::<usize>()),
            Memory::new(lpoverlapped, size_of::<usize>()),
        )
    };
    let put = |packet: Packet| -> Result<(), i32> {
        let written = bytes.write(&packet.bytes.to_ne_bytes());
        let written = written.and_then(|()| key.write(&packet.key.to_ne_bytes()));
        written.and_then(|()| overlapped.write(&packet.overlapped.to_ne_bytes())).map_err(|_fault| WSAEFAULT)
    };
    // Before a packet is taken: what cannot be told is not lost.
    let tellable = overlapped.write(&0usize.to_ne_bytes()).and_then(|()| bytes.read()).and_then(|_| key.read());
    let result = tellable.map_err(|_fault| WSAEFAULT).and_then(|_| receive(completionport, end));
    is_true(result.and_then(|packet| {
        put(packet)?;
        if packet.error == 0 { Ok(()) } else { Err(packet.error) }
    }))
}

/// Closes an event, a completion port (which ends the waits there) or a thread's handle. Sockets are closed by
/// [`closesocket`](super::closesocket).
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe.
pub unsafe extern "system" fn CloseHandle(hobject: HANDLE) -> BOOL {
    is_true(match objects::remove(hobject.addr()) {
        Some(Object::Port(port)) => {
            port.close();
            Ok(())
        }
        Some(_) => Ok(()),
        None => Err(WSA_INVALID_HANDLE),
    })
}

fn receive(port: HANDLE, end: Option<Instant>) -> Result<Packet, i32> {
    let port = objects::port(port.addr()).ok_or(WSA_INVALID_HANDLE)?;
    match port.receive(end) {
        Ok(Received::Packet(packet)) => Ok(packet),
        Ok(Received::TimedOut) => Err(WSA_WAIT_TIMEOUT.cast_signed()),
        Ok(Received::Closed) => Err(ERROR_ABANDONED_WAIT_0.cast_signed()),
        Err(_no_memory) => Err(WSAENOBUFS),
    }
}
