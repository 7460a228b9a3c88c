//! Memory that a caller names by a raw pointer, touched through the kernel: a pointer that leads nowhere is an answer
//! (`WSAEFAULT`), and not the end of the process. Unless a sandbox forbids the call that looks.

use std::{ffi::c_void, io, ptr};

/// Memory of the caller's. May be null, and may lead nowhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    address: usize,
    length: usize,
}

/// The memory is not all there, or may not be read or written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Fault;

impl Memory {
    /// `length` bytes at `pointer`.
    ///
    /// # Safety
    ///
    /// What is mapped there is the caller's own: nobody else uses it, or expects it unchanged, until the last call of
    /// [`read`](Self::read) and [`write`](Self::write) has returned.
    pub(crate) unsafe fn new<T>(pointer: *const T, length: usize) -> Self {
        Self { address: pointer.expose_provenance(), length }
    }

    pub(crate) fn is_null(self) -> bool {
        self.address == 0
    }

    pub(crate) fn address(self) -> usize {
        self.address
    }

    pub(crate) fn length(self) -> usize {
        self.length
    }

    /// The part from `offset` on, `length` bytes long; empty where that is not inside.
    pub(crate) fn part(self, offset: usize, length: usize) -> Self {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Self { address: self.address.wrapping_add(offset), length },
            _ => Self { address: self.address, length: 0 },
        }
    }

    /// Reads all of it.
    pub(crate) fn read(self) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; self.length];
        copy(ptr::with_exposed_provenance(self.address), bytes.as_mut_ptr().cast(), bytes.len())?;
        Ok(bytes)
    }

    /// Reads the word at `offset`: a handle, or a field of an `OVERLAPPED`.
    pub(crate) fn word(self, offset: usize) -> Result<usize, Fault> {
        let bytes = self.part(offset, size_of::<usize>()).read()?;
        bytes.first_chunk().map(|word| usize::from_ne_bytes(*word)).ok_or(Fault)
    }

    /// Writes `bytes` to its beginning.
    pub(crate) fn write(self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() > self.length {
            return Err(Fault);
        }
        copy(bytes.as_ptr().cast(), ptr::with_exposed_provenance_mut(self.address), bytes.len())
    }
}

/// Copies within this process. The kernel calls the destination "local": tools like valgrind take it for written then.
fn copy(from: *const c_void, to: *mut c_void, length: usize) -> Result<(), Fault> {
    if length == 0 {
        return Ok(());
    }
    if from.is_null() || to.is_null() {
        return Err(Fault);
    }
    let local = libc::iovec { iov_base: to, iov_len: length };
    let remote = libc::iovec { iov_base: from.cast_mut(), iov_len: length };
    // Any thread of the process stands for its memory, but not the first one, whose id is the process's: it may have ended.
    // SAFETY: no memory is passed.
    let this = unsafe { libc::gettid() };
    // SAFETY: the kernel checks both ranges and reports what is not mapped. One of them is a slice of `read` or
    // `write`, of this length; the other is the caller's own by the promise made to `Memory::new`.
    let copied = unsafe { libc::process_vm_readv(this, &local, 1, &remote, 1, 0) };
    if usize::try_from(copied) == Ok(length) {
        return Ok(());
    }
    match io::Error::last_os_error().raw_os_error() {
        // A kernel or a sandbox without the call: as any C code does it, which ends where the pointer leads nowhere.
        Some(libc::ENOSYS | libc::EPERM) if copied < 0 => {
            // SAFETY: as above, but for the check.
            unsafe { ptr::copy(from.cast::<u8>(), to.cast::<u8>(), length) };
            Ok(())
        }
        _ => Err(Fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_and_go() {
        let mut bytes = *b"0123456789";
        // SAFETY: this test's own array.
        let memory = unsafe { Memory::new(&raw mut bytes, bytes.len()) };

        memory.part(2, 3).write(b"abc").unwrap();
        assert_eq!(memory.read().unwrap(), b"01abc56789");
        assert_eq!(memory.part(2, 3).write(b"abcd"), Err(Fault), "longer than the part");
        assert_eq!(memory.part(8, 3).write(b"a"), Err(Fault), "a part that is not inside");
        assert_eq!(memory.part(usize::MAX, 3).length(), 0);
    }

    #[test]
    fn a_pointer_that_leads_nowhere_is_a_fault() {
        let page = NoAccess::new();
        for address in [0, 1, page.address(), page.address() + 4090, usize::MAX - 3] {
            // SAFETY: nothing that anybody uses is mapped there.
            let memory = unsafe { Memory::new(address as *const u8, 8) };
            assert_eq!(memory.write(&[1]), Err(Fault), "{address:#x}");
            assert_eq!(memory.read(), Err(Fault), "{address:#x}");
        }
        // SAFETY: nothing is written.
        let read_only = unsafe { Memory::new(b"literal".as_ptr(), 7) };
        assert_eq!(read_only.write(b"L"), Err(Fault));
        assert_eq!(read_only.read().unwrap(), b"literal");
    }

    #[test]
    fn nothing_of_nothing_is_no_fault() {
        // SAFETY: nothing is read or written.
        let nothing = unsafe { Memory::new(ptr::null::<u8>(), 0) };
        assert_eq!((nothing.write(&[]), nothing.read()), (Ok(()), Ok(vec![])));
    }

    /// Two pages which nobody may touch.
    struct NoAccess(*mut c_void);

    impl NoAccess {
        const SIZE: usize = 8192;

        fn new() -> Self {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a mapping of the kernel's choice replaces none.
            let page = unsafe { libc::mmap(ptr::null_mut(), Self::SIZE, libc::PROT_NONE, flags, -1, 0) };
            assert_ne!(page, libc::MAP_FAILED);
            Self(page)
        }

        fn address(&self) -> usize {
            self.0.addr()
        }
    }

    impl Drop for NoAccess {
        fn drop(&mut self) {
            // SAFETY: this value's own mapping.
            unsafe { libc::munmap(self.0, Self::SIZE) };
        }
    }
}
