//! Sockets by their number, as C programs have them, and a thread of our own.

use std::{
    io, mem,
    os::fd::{BorrowedFd, RawFd},
    ptr, thread,
};

/// What `number` is; `None` where no descriptor can have it.
///
/// # Safety
///
/// Nobody closes it while the answer is used. It may be closed already: the kernel's answer is EBADF then.
pub(crate) unsafe fn borrow<'a>(number: usize) -> Option<BorrowedFd<'a>> {
    let number = RawFd::try_from(number).ok()?;
    // SAFETY: not negative; and the caller's promise.
    Some(unsafe { BorrowedFd::borrow_raw(number) })
}

/// The kernel's name of the socket that has this number now.
pub(crate) fn cookie_of(number: usize) -> io::Result<u64> {
    let number = RawFd::try_from(number).map_err(|_too_large| io::Error::from_raw_os_error(libc::EBADF))?;
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: both are this function's own. A number that is no socket's is an error.
    let result = unsafe {
        libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_COOKIE, (&raw mut cookie).cast(), &raw mut length)
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Closes a descriptor.
///
/// # Safety
///
/// It is the caller's to close.
pub(crate) unsafe fn close(number: usize) {
    if let Ok(number) = RawFd::try_from(number) {
        // SAFETY: the caller's promise. The descriptor is gone whatever close() says.
        unsafe { libc::close(number) };
    }
}

/// The number of a new socket.
pub(crate) fn socket(family: i32, kind: i32, protocol: i32, close_on_exec: bool) -> io::Result<usize> {
    let flags = if close_on_exec { libc::SOCK_CLOEXEC } else { 0 };
    // SAFETY: no memory is passed.
    let number = unsafe { libc::socket(family, kind | flags, protocol) };
    usize::try_from(number).map_err(|_negative| io::Error::last_os_error())
}

/// Starts a thread that handles none of the process's signals: they are for the program's own threads.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // SAFETY: a set of no signals; filled by the call that follows.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    let mut before = all;
    // SAFETY: both sets are this function's own. A thread begins with its parent's mask.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
    }
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    // SAFETY: the set is the one that was in force.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    spawned.map(drop)
}
