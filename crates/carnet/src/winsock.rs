//! The contract this library started from: the ioctls by which a redirect service of the Windows Filtering Platform asks
//! for records and context, and sets the records on the socket with which it goes on.
//!
//! A source written for [`WSAIoctl`] builds on both systems: on Windows these are Winsock's own functions, on Linux they
//! have the same names, signatures and numbers, and ask Carnet's engine. `docs/contract.md` lists every rule and answer,
//! the test that shows it, and what was chosen where Microsoft's pages disagree.
//!
//! For new code there is [`Redirect`](crate::Redirect), which has no pointers and one error for each cause.
//!
//! # Overlapped operations
//!
//! An operation that is begun with an [`OVERLAPPED`] is performed by a thread of this library, on Linux as in Windows'
//! kernel, and its end is told by an event, by a completion routine in the thread that began it and waits alertably, or
//! by a completion port. It may be cancelled until it is performed; it ends with its socket, and with its thread.
//! [`Operation`] and [`CompletionQueue`] are the same without `unsafe`: an operation owns its buffer until it has ended.
//!
//! On Linux a socket is the number of its descriptor. What a process has begun is not its child's after `fork()`; the child
//! may begin operations of its own.

#[cfg(target_os = "linux")]
pub(crate) mod linux;
pub(crate) mod numbers;
mod request;

pub use self::{
    numbers::*,
    request::{Code, IoctlError, Outcome, Request, ioctl},
};
pub use crate::sys::{Attached, Completion, CompletionQueue, Operation, begin_with, wait_alertable};
#[cfg(windows)]
pub use windows_sys::{
    Win32::{
        Foundation::{CloseHandle, HANDLE},
        Networking::WinSock::{
            LPWSAOVERLAPPED_COMPLETION_ROUTINE, SOCKET, WSACloseEvent, WSACreateEvent, WSAEVENT, WSAGetLastError,
            WSAGetOverlappedResult, WSAIoctl, WSAResetEvent, WSASetEvent, WSASetLastError, WSASocketW, WSATHREADID,
            WSAWaitForMultipleEvents, closesocket,
        },
        System::{
            IO::{
                CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatus, OVERLAPPED, OVERLAPPED_0, OVERLAPPED_0_0,
            },
            Threading::SleepEx,
        },
    },
    core::BOOL,
};
#[cfg(target_os = "linux")]
pub use {crate::sys::linux::winsock::*, linux::types::*};
