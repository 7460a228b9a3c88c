//! System calls as they are: socket options with every argument that a safe interface rules out, and a thread without
//! privileges. Errors are errnos.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::{ptr, thread};

/// The uid and gid that own nothing.
pub const NOBODY: u32 = 65534;

/// `getsockopt` into a buffer. Returns the length that the kernel says, which may be more than the buffer's.
pub fn get(socket: &impl AsFd, level: i32, name: i32, buffer: &mut [u8]) -> Result<usize, i32> {
    let length = buffer.len().try_into().expect("a length");
    // SAFETY: the kernel writes at most as many bytes as it is told that the buffer has.
    unsafe { get_at(socket, level, name, buffer.as_mut_ptr(), length) }
}

/// `getsockopt` with NULL for the buffer, and a length that says otherwise.
pub fn get_at_null(socket: &impl AsFd, level: i32, name: i32, length: i32) -> Result<usize, i32> {
    // SAFETY: no process has memory at address 0, so the kernel writes nothing.
    unsafe { get_at(socket, level, name, ptr::null_mut(), length) }
}

/// `getsockopt` into memory that there is not.
pub fn get_at_nowhere(socket: &impl AsFd, level: i32, name: i32, length: i32) -> Result<usize, i32> {
    // SAFETY: no address of a process is so high, so the kernel writes nothing.
    unsafe { get_at(socket, level, name, ptr::without_provenance_mut(NOWHERE), length) }
}

/// `setsockopt`.
pub fn set(socket: &impl AsFd, level: i32, name: i32, value: &[u8]) -> Result<(), i32> {
    let length = value.len().try_into().expect("a length");
    // SAFETY: the kernel reads at most as many bytes as it is told that there are.
    unsafe { set_at(socket, level, name, value.as_ptr(), length) }
}

/// `setsockopt` with a true value and a length that is a lie: at most the value's.
pub fn set_with_length(socket: &impl AsFd, level: i32, name: i32, value: &[u8], length: i32) -> Result<(), i32> {
    assert!(usize::try_from(length).is_ok_and(|length| length <= value.len()) || length < 0);
    // SAFETY: `length` bytes are there, or it is negative and the kernel refuses it.
    unsafe { set_at(socket, level, name, value.as_ptr(), length) }
}

/// `setsockopt` with NULL for the value.
pub fn set_at_null(socket: &impl AsFd, level: i32, name: i32, length: i32) -> Result<(), i32> {
    // SAFETY: no process has memory at address 0, so the kernel reads nothing.
    unsafe { set_at(socket, level, name, ptr::null(), length) }
}

/// `connect` with `AF_UNSPEC`: takes back the connection, or what connecting it has begun.
pub fn disconnect(socket: &impl AsFd) -> Result<(), i32> {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>().try_into().expect("a length");
    // SAFETY: the descriptor is open, for it is borrowed, and the address has the length that is told.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &nowhere, length) };
    if result == 0 { Ok(()) } else { Err(errno()) }
}

/// Bytes that were sent and that the other side has not acknowledged (`SIOCOUTQ`), its FIN included.
pub fn unacknowledged(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, for it is borrowed, and the kernel writes one integer.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    bytes.try_into().expect("a count")
}

/// Does something on a thread that is [`NOBODY`] and has no capability. The rest of the process stays what it is.
pub fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let nobody = || {
        // glibc's functions would change every thread; the bare calls change the calling one.
        for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
            // SAFETY: the calls take three ids and touch no memory.
            let result = unsafe { libc::syscall(call, NOBODY, NOBODY, NOBODY) };
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
        }
        act()
    };
    thread::scope(|scope| scope.spawn(nobody).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Ends the calling thread, also where it is the process's first one, and nothing else of the process.
pub fn end_thread() -> ! {
    // SAFETY: the call takes one number and does not return.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

/// The highest page: the kernel's, on every machine with 64 bits.
const NOWHERE: usize = usize::MAX - 0xfff;

/// # Safety
///
/// `value` is NULL, an address outside the process, or writable for `length` bytes.
unsafe fn get_at(socket: &impl AsFd, level: i32, name: i32, value: *mut u8, length: i32) -> Result<usize, i32> {
    let mut length = length.cast_unsigned();
    // SAFETY: the descriptor is open, for it is borrowed; `length` outlives the call; the rest is the caller's word.
    let result = unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value.cast(), &mut length) };
    if result == 0 { Ok(length.try_into().expect("a length")) } else { Err(errno()) }
}

/// # Safety
///
/// `value` is NULL, or readable for `length` bytes unless that is negative.
unsafe fn set_at(socket: &impl AsFd, level: i32, name: i32, value: *const u8, length: i32) -> Result<(), i32> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, for it is borrowed; the rest is the caller's word.
    let result = unsafe { libc::setsockopt(fd, level, name, value.cast(), length.cast_unsigned()) };
    if result == 0 { Ok(()) } else { Err(errno()) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}
