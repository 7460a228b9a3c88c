//! Events, and waiting.

use std::{io, ptr};

use carnet::winsock::{self as ws, BOOL, HANDLE};

use super::{Told, as_u32, forget_error, last_error, told};

/// An event, which is closed by [`close`](Event::close) alone: an operation may still signal it.
#[derive(Clone, Copy)]
pub struct Event(HANDLE);

// SAFETY: a handle is a number, good in every thread.
unsafe impl Send for Event {}

impl Event {
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes nothing.
        let event = unsafe { ws::WSACreateEvent() } as usize;
        match event {
            0 => Err(io::Error::other(format!("WSACreateEvent: {}", last_error()))),
            event => Ok(Self(ptr::without_provenance_mut(event))),
        }
    }

    pub fn number(self) -> usize {
        self.0.addr()
    }

    pub fn close(self) -> Told {
        forget_error();
        // SAFETY: an event's number, or that of one which was closed before.
        told("WSACloseEvent", unsafe { ws::WSACloseEvent(self.0.addr() as _) }, None)
    }

    pub fn set(self) -> Told {
        forget_error();
        // SAFETY: as above.
        told("WSASetEvent", unsafe { ws::WSASetEvent(self.0.addr() as _) }, None)
    }

    pub fn reset(self) -> Told {
        forget_error();
        // SAFETY: as above.
        told("WSAResetEvent", unsafe { ws::WSAResetEvent(self.0.addr() as _) }, None)
    }
}

/// `WSAWaitForMultipleEvents`.
pub fn wait(events: &[Event], all: bool, milliseconds: u32, alertable: bool) -> Told {
    let handles: Vec<HANDLE> = events.iter().map(|event| event.0).collect();
    wait_at(handles.as_ptr(), as_u32(handles.len()), all.into(), milliseconds, alertable.into())
}

/// The same with null for the events.
pub fn wait_at_null(count: u32) -> Told {
    wait_at(ptr::null(), count, 0, 0, 0)
}

fn wait_at(handles: *const HANDLE, count: u32, all: BOOL, milliseconds: u32, alertable: BOOL) -> Told {
    forget_error();
    // SAFETY: null, or as many handles as told, by the two callers.
    told(
        "WSAWaitForMultipleEvents",
        unsafe { ws::WSAWaitForMultipleEvents(count, handles, all, milliseconds, alertable) },
        None,
    )
}

/// `SleepEx`.
pub fn sleep(milliseconds: u32, alertable: bool) -> Told {
    forget_error();
    // SAFETY: the call takes numbers.
    told("SleepEx", unsafe { ws::SleepEx(milliseconds, alertable.into()) }, None)
}
