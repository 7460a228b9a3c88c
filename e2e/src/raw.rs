//! System calls as they are: socket options with every argument that a safe interface rules out, and a thread without
//! privileges. Errors are errnos.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU8;
use std::{ptr, thread};

use carnet::winsock::{INVALID_SOCKET, WSA_FLAG_NO_HANDLE_INHERIT, WSASocketW};
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use socket2::{SockAddr, Socket};

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

/// A TCP socket of IPv4 that takes no overlapped operations.
pub fn socket_without_overlapped() -> Socket {
    // SAFETY: no memory is passed.
    let number = unsafe { WSASocketW(libc::AF_INET, libc::SOCK_STREAM, 0, ptr::null(), 0, WSA_FLAG_NO_HANDLE_INHERIT) };
    assert_ne!(number, INVALID_SOCKET);
    // SAFETY: the descriptor is new, and nobody else's.
    unsafe { Socket::from_raw_fd(number.try_into().expect("a descriptor")) }
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

/// `setsockopt` with a value that other threads may change meanwhile.
pub fn set_shared(socket: &impl AsFd, level: i32, name: i32, value: &[AtomicU8]) -> Result<(), i32> {
    let length = value.len().try_into().expect("a length");
    // SAFETY: the kernel reads at most as many bytes as it is told that there are, and those may change at any time.
    unsafe { set_at(socket, level, name, value.as_ptr().cast(), length) }
}

/// `connect` with an address that other threads may change meanwhile.
pub fn connect_shared(socket: &impl AsFd, to: &[AtomicU8]) -> Result<(), i32> {
    let length = to.len().try_into().expect("a length");
    // SAFETY: the descriptor is open, for it is borrowed; so many bytes are there, and they may change at any time.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), to.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(errno()) }
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

/// An IPv4 address whose family says `AF_UNSPEC`.
pub fn of_no_family(address: SocketAddr) -> SockAddr {
    let address = SockAddr::from(address);
    let length = address.len();
    let mut storage = address.as_storage();
    // SAFETY: every address begins with its family, and the length is the one it had.
    unsafe {
        storage.view_as::<libc::sockaddr>().sa_family = libc::AF_UNSPEC as libc::sa_family_t;
        SockAddr::new(storage, length)
    }
}

/// `sendmmsg`: the same bytes to each address, in one call. Returns how many were sent, where the first was.
pub fn send_to_each(socket: &impl AsFd, bytes: &[u8], to: &[SockAddr]) -> Result<usize, i32> {
    let mut part = part(bytes);
    let header = |to| libc::mmsghdr { msg_hdr: message(&mut part, to), msg_len: 0 };
    let mut headers: Vec<_> = to.iter().map(header).collect();
    let (fd, count) = (socket.as_fd().as_raw_fd(), headers.len().try_into().expect("a count"));
    // SAFETY: there are so many headers; they, and what they point to, outlive the call.
    let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count, 0) };
    if sent < 0 { Err(errno()) } else { Ok(sent.try_into().expect("a count")) }
}

/// Attaches a BPF program to a cgroup as programs were before there were links: `BPF_PROG_ATTACH`. It stays until the
/// cgroup goes.
pub fn attach_without_link(program: &impl AsFd, cgroup: &impl AsFd, hook: u32, flags: u32) -> Result<(), i32> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    // target_fd, attach_bpf_fd, attach_type and attach_flags of union bpf_attr.
    let descriptors = [cgroup.as_fd().as_raw_fd(), program.as_fd().as_raw_fd()].map(RawFd::cast_unsigned);
    let attributes: [u32; 4] = [descriptors[0], descriptors[1], hook, flags];
    // SAFETY: the kernel reads the attributes, as many bytes as it is told, and they outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attributes.as_ptr(), size_of_val(&attributes)) };
    if result == 0 { Ok(()) } else { Err(errno()) }
}

/// A descriptor that this process was started with, such as 3 with socket activation.
pub fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: the call takes numbers and touches no memory.
    let own = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    assert_ne!(own, -1, "descriptor {number}: {}", io::Error::last_os_error());
    // SAFETY: the descriptor is new, so nobody else has it.
    unsafe { OwnedFd::from_raw_fd(own) }
}

/// System calls by way of `io_uring`, one at a time.
pub struct Ring {
    ring: IoUring,
    flags: Flags,
}

impl Ring {
    /// The calls are made while the process enters the kernel, or by a worker thread where they would block.
    pub fn inline() -> Self {
        Self { ring: IoUring::new(4).expect("io_uring"), flags: Flags::empty() }
    }

    /// The calls are all made by worker threads (`IOSQE_ASYNC`).
    pub fn workers() -> Self {
        Self { flags: Flags::ASYNC, ..Self::inline() }
    }

    /// The calls are made by a thread of the kernel's that looks for them (`IORING_SETUP_SQPOLL`).
    pub fn poller() -> Self {
        let ring = IoUring::builder().setup_sqpoll(1000).build(4).expect("io_uring");
        Self { ring, flags: Flags::empty() }
    }

    /// `socket`.
    pub fn socket(&mut self, domain: i32, r#type: i32, protocol: i32) -> Result<OwnedFd, i32> {
        // SAFETY: the call takes numbers and touches no memory.
        unsafe { self.call(opcode::Socket::new(domain, r#type, protocol).build()) }.map(new_descriptor)
    }

    /// `connect`, as far as it comes without waiting where the socket does not block.
    pub fn connect(&mut self, socket: &impl AsFd, to: &SockAddr) -> Result<(), i32> {
        let fd = types::Fd(socket.as_fd().as_raw_fd());
        let connect = opcode::Connect::new(fd, to.as_ptr().cast(), to.len()).build();
        // SAFETY: descriptor and address are borrowed until the call has completed.
        unsafe { self.call(connect) }.map(drop)
    }

    /// The same with an address that other threads may change meanwhile.
    pub fn connect_shared(&mut self, socket: &impl AsFd, to: &[AtomicU8]) -> Result<(), i32> {
        let fd = types::Fd(socket.as_fd().as_raw_fd());
        let length = to.len().try_into().expect("a length");
        let connect = opcode::Connect::new(fd, to.as_ptr().cast(), length).build();
        // SAFETY: descriptor and address are borrowed until the call has completed; its bytes may change at any time.
        unsafe { self.call(connect) }.map(drop)
    }

    /// `sendmsg` of one datagram.
    pub fn send_to(&mut self, socket: &impl AsFd, bytes: &[u8], to: &SockAddr) -> Result<usize, i32> {
        let fd = types::Fd(socket.as_fd().as_raw_fd());
        let mut part = part(bytes);
        let message = message(&mut part, to);
        // SAFETY: descriptor, bytes and address are borrowed until the call has completed, and so is what points to them.
        let sent = unsafe { self.call(opcode::SendMsg::new(fd, &message).build()) }?;
        Ok(sent.try_into().expect("a length"))
    }

    /// `sendmsg` with `MSG_FASTOPEN`: connects, with bytes in the first packet where it may be.
    pub fn send_first(&mut self, socket: &impl AsFd, bytes: &[u8], to: &SockAddr) -> Result<usize, i32> {
        let fd = types::Fd(socket.as_fd().as_raw_fd());
        let mut part = part(bytes);
        let message = message(&mut part, to);
        let send = opcode::SendMsg::new(fd, &message).flags(libc::MSG_FASTOPEN.cast_unsigned()).build();
        // SAFETY: descriptor, bytes and address are borrowed until the call has completed, and so is what points to them.
        let sent = unsafe { self.call(send) }?;
        Ok(sent.try_into().expect("a length"))
    }

    /// `accept`.
    pub fn accept(&mut self, listener: &impl AsFd) -> Result<OwnedFd, i32> {
        let fd = types::Fd(listener.as_fd().as_raw_fd());
        let accept = opcode::Accept::new(fd, ptr::null_mut(), ptr::null_mut()).build();
        // SAFETY: the descriptor is borrowed until the call has completed, and the peer's address is not wanted.
        unsafe { self.call(accept) }.map(new_descriptor)
    }

    /// # Safety
    ///
    /// What the entry points to is there until this returns.
    unsafe fn call(&mut self, entry: Entry) -> Result<i32, i32> {
        // SAFETY: the caller's word, and this waits for the completion.
        unsafe { self.ring.submission().push(&entry.flags(self.flags)) }.expect("room for one call");
        let completed = loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("io_uring: {error}"),
                Ok(_) => {}
            }
            if let Some(completed) = self.ring.completion().next() {
                break completed.result();
            }
        };
        if completed < 0 { Err(-completed) } else { Ok(completed) }
    }
}

/// Forks a process that does this and ends; whatever it fails with is its exit code. Returns its id.
///
/// Panics where the calling process has more than one thread: the others' locks would never be released there.
pub fn fork(act: impl FnOnce() -> Result<(), i32>) -> u32 {
    let threads = std::fs::read_dir("/proc/self/task").expect("/proc is mounted").count();
    assert_eq!(threads, 1, "fork() in a process with {threads} threads");
    // SAFETY: this is the only thread, so what the new process has is whole.
    match unsafe { libc::fork() } {
        // SAFETY: the call takes one number and does not return; nothing of the parent's is flushed or dropped twice.
        0 => unsafe { libc::_exit(act().err().unwrap_or_default()) },
        child => u32::try_from(child).unwrap_or_else(|_| panic!("fork: {}", io::Error::last_os_error())),
    }
}

/// `clone3` with `CLONE_INTO_CGROUP`: a process that is in this cgroup from its beginning, and ends at once.
pub fn clone_into(cgroup: &impl AsFd) -> Result<(), i32> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
    let mut arguments = [0_u64; 11];
    arguments[0] = CLONE_INTO_CGROUP;
    arguments[4] = u64::from(libc::SIGCHLD.cast_unsigned());
    arguments[10] = u64::from(cgroup.as_fd().as_raw_fd().cast_unsigned());
    // SAFETY: the kernel reads the arguments, as many bytes as it is told. The new process has a copy of the memory, as
    // with fork(), and does nothing but end.
    match unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) } {
        // SAFETY: the call takes one number and does not return.
        0 => unsafe { libc::_exit(0) },
        -1 => Err(errno()),
        child => {
            let child = child.try_into().expect("a process id");
            // SAFETY: NULL is allowed for the status, which nobody wants.
            assert_eq!(unsafe { libc::waitpid(child, ptr::null_mut(), 0) }, child);
            Ok(())
        }
    }
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

/// For a call that sends these bytes: it reads them only.
fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// For a call that sends: it only reads what this points to.
fn message(part: &mut libc::iovec, to: &SockAddr) -> libc::msghdr {
    // SAFETY: all zero is a message without address, parts and control data. It has padding with some C libraries, so
    // it cannot be written out.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

/// Of a call that has just made this descriptor.
fn new_descriptor(number: i32) -> OwnedFd {
    // SAFETY: the descriptor is new, so nobody else has it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}
