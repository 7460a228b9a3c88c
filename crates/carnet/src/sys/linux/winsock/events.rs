//! Events, and waits in which completion routines run.

use std::{io, sync::Arc};

use super::{LAST_ERROR, Memory, is_true, length};
use crate::winsock::{
    BOOL, HANDLE, WSAEVENT,
    linux::{
        event::Event,
        objects::{self, Object},
        wait::{self, Waited},
    },
    numbers::*,
};

/// An event that is not signalled, stays signalled once it is, and is closed by [`WSACloseEvent`];
/// 0 ([`WSA_NOT_ENOUGH_MEMORY`]): there are no more descriptors.
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe.
pub unsafe extern "system" fn WSACreateEvent() -> WSAEVENT {
    match Event::new() {
        Ok(event) => number(objects::insert(Object::Event(Arc::new(event)))),
        Err(_no_descriptor) => {
            LAST_ERROR.set(WSA_NOT_ENOUGH_MEMORY);
            0
        }
    }
}

/// Closes an event. An operation that is to signal it does so all the same.
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe.
pub unsafe extern "system" fn WSACloseEvent(hevent: WSAEVENT) -> BOOL {
    let handle = hevent.cast_unsigned();
    is_true(objects::event(handle).and_then(|_| objects::remove(handle)).map(drop).ok_or(WSA_INVALID_HANDLE))
}

/// Signals an event.
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe.
pub unsafe extern "system" fn WSASetEvent(hevent: WSAEVENT) -> BOOL {
    is_true(objects::event(hevent.cast_unsigned()).map(|event| event.set()).ok_or(WSA_INVALID_HANDLE))
}

/// Makes an event not signalled.
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe.
pub unsafe extern "system" fn WSAResetEvent(hevent: WSAEVENT) -> BOOL {
    is_true(objects::event(hevent.cast_unsigned()).map(|event| event.reset()).ok_or(WSA_INVALID_HANDLE))
}

/// Waits for one of the events, or for all; where `falertable` is true, completion routines end the wait, too.
///
/// [`WSA_WAIT_EVENT_0`] plus the index, [`WSA_WAIT_IO_COMPLETION`], [`WSA_WAIT_TIMEOUT`] or [`WSA_WAIT_FAILED`].
///
/// # Safety
///
/// `lphevents` is null, or `cevents` handles can be read there.
pub unsafe extern "system" fn WSAWaitForMultipleEvents(
    cevents: u32,
    lphevents: *const HANDLE,
    fwaitall: BOOL,
    dwtimeout: u32,
    falertable: BOOL,
) -> u32 {
    let end = wait::end_of(dwtimeout);
    if !(1..=WSA_MAXIMUM_WAIT_EVENTS).contains(&cevents) {
        return wait_failed(WSA_INVALID_PARAMETER);
    }
    // SAFETY: the caller's promise.
    let handles = unsafe { Memory::new(lphevents, length(cevents) * size_of::<HANDLE>()) };
    let Ok(handles) = handles.read() else { return wait_failed(WSAEFAULT) };
    let (handles, _) = handles.as_chunks();
    let events: Option<Vec<_>> = handles.iter().map(|handle| objects::event(usize::from_ne_bytes(*handle))).collect();
    let Some(events) = events else { return wait_failed(WSA_INVALID_HANDLE) };
    waited(wait::wait(&events, fwaitall != 0, end, falertable != 0))
}

/// Sleeps; where `balertable` is true, completion routines end the sleep. 0, or [`WSA_WAIT_IO_COMPLETION`].
///
/// # Safety
///
/// None is needed here; Windows' own function is unsafe.
pub unsafe extern "system" fn SleepEx(dwmilliseconds: u32, balertable: BOOL) -> u32 {
    match waited(wait::wait(&[], false, wait::end_of(dwmilliseconds), balertable != 0)) {
        WSA_WAIT_TIMEOUT => 0,
        other => other,
    }
}

fn waited(result: io::Result<Waited>) -> u32 {
    match result {
        Ok(Waited::Event(index)) => WSA_WAIT_EVENT_0 + u32::try_from(index).unwrap_or(0),
        Ok(Waited::Routines) => WSA_WAIT_IO_COMPLETION,
        Ok(Waited::TimedOut) => WSA_WAIT_TIMEOUT,
        Err(_no_memory) => wait_failed(WSA_NOT_ENOUGH_MEMORY),
    }
}

fn wait_failed(error: i32) -> u32 {
    LAST_ERROR.set(error);
    WSA_WAIT_FAILED
}

fn number(handle: usize) -> WSAEVENT {
    handle.cast_signed()
}
