//! What each system has its own calls for: memory of every kind, whether the process is elevated, and whether the system
//! is Wine.

#[cfg(target_os = "linux")]
pub use linux::{ORIGINAL_DESTINATION, is_elevated, survive_faults, take_fault};
#[cfg(windows)]
pub use windows::{
    ORIGINAL_DESTINATION, ask_for_ancillary_data, is_elevated, survive_faults, take_fault, wine_version,
};

#[cfg(target_os = "linux")]
mod linux {
    use std::{io, ptr};

    use crate::calls::Pages;

    pub use libc::SO_ORIGINAL_DST as ORIGINAL_DESTINATION;

    impl Pages {
        pub fn new() -> io::Result<Self> {
            let length = 3 * Self::SIZE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a mapping of the kernel's choice replaces none.
            let base = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            for (piece, protection) in [(1, libc::PROT_NONE), (2, libc::PROT_READ)] {
                // SAFETY: a part of the mapping just made, of which nobody knows yet.
                let done =
                    unsafe { libc::mprotect(base.wrapping_byte_add(piece * Self::SIZE), Self::SIZE, protection) };
                if done != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(Self { base })
        }
    }

    /// The library's calls look before they touch memory, so there are none.
    pub fn survive_faults() {}

    pub fn take_fault() -> bool {
        false
    }

    pub fn is_elevated() -> bool {
        rustix::process::geteuid().is_root()
    }
}

#[cfg(windows)]
mod windows {
    use std::{
        ffi::{CStr, c_char},
        io, mem, ptr,
        sync::atomic::{AtomicBool, Ordering},
    };

    use windows_sys::Win32::{
        Foundation::CloseHandle,
        Networking::WinSock,
        Security::{GetTokenInformation, TOKEN_ELEVATION, TOKEN_QUERY, TokenElevation},
        System::{
            Diagnostics::Debug::{EXCEPTION_POINTERS, SetUnhandledExceptionFilter},
            LibraryLoader::{GetModuleHandleA, GetProcAddress},
            Memory::{
                MEM_COMMIT, MEM_RESERVE, PAGE_NOACCESS, PAGE_READONLY, PAGE_READWRITE, VirtualAlloc, VirtualProtect,
            },
            Threading::{ExitThread, GetCurrentProcess, OpenProcessToken},
        },
    };

    use crate::calls::Pages;

    pub use WinSock::SO_ORIGINAL_DST as ORIGINAL_DESTINATION;

    impl Pages {
        pub fn new() -> io::Result<Self> {
            let length = 3 * Self::SIZE;
            // SAFETY: memory of the system's choice replaces none.
            let base = unsafe { VirtualAlloc(ptr::null(), length, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) };
            if base.is_null() {
                return Err(io::Error::last_os_error());
            }
            for (piece, protection) in [(1, PAGE_NOACCESS), (2, PAGE_READONLY)] {
                let mut before = 0;
                // SAFETY: a part of the memory just made, of which nobody knows yet.
                let done = unsafe {
                    VirtualProtect(base.wrapping_byte_add(piece * Self::SIZE), Self::SIZE, protection, &mut before)
                };
                if done == 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(Self { base })
        }
    }

    static FAULT: AtomicBool = AtomicBool::new(false);

    /// From here on a thread that touches memory which it may not, and does not handle that, ends alone: a system may
    /// look at a wrong pointer in the caller's own code.
    pub fn survive_faults() {
        unsafe extern "system" fn end_the_thread(_: *const EXCEPTION_POINTERS) -> i32 {
            FAULT.store(true, Ordering::Release);
            // SAFETY: only threads of single cases touch such memory. What such a thread holds is not needed again.
            unsafe { ExitThread(1) }
        }
        // SAFETY: the function is there for ever.
        unsafe { SetUnhandledExceptionFilter(Some(end_the_thread)) };
    }

    /// Whether a thread has ended by that since the last time.
    pub fn take_fault() -> bool {
        FAULT.swap(false, Ordering::Acquire)
    }

    /// No where it cannot be found out.
    pub fn is_elevated() -> bool {
        let mut token = ptr::null_mut();
        // SAFETY: the variable is there during the call.
        if unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &mut token) } == 0 {
            return false;
        }
        let mut elevation = TOKEN_ELEVATION { TokenIsElevated: 0 };
        let (size, mut length) = (size_of::<TOKEN_ELEVATION>() as u32, 0);
        // SAFETY: the structure is there during the call and as long as told; the token is this function's own.
        let done = unsafe {
            let done = GetTokenInformation(token, TokenElevation, (&raw mut elevation).cast(), size, &mut length);
            CloseHandle(token);
            done
        };
        done != 0 && elevation.TokenIsElevated != 0
    }

    /// Wine says its version by a function that Windows does not have.
    pub fn wine_version() -> Option<String> {
        // SAFETY: names that end in 0; the module is in every process and stays there.
        let found = unsafe {
            GetProcAddress(GetModuleHandleA(c"ntdll.dll".as_ptr().cast()), c"wine_get_version".as_ptr().cast())
        };
        // SAFETY: Wine declares the function so, and says a constant that ends in 0.
        found.map(|found| unsafe {
            let tell: unsafe extern "C" fn() -> *const c_char = mem::transmute(found);
            CStr::from_ptr(tell()).to_string_lossy().into_owned()
        })
    }

    /// `setsockopt` with a true `DWORD`, and what `getsockopt` says of it then: the errors, or 0, and the value.
    pub fn ask_for_ancillary_data(socket: usize, level: i32, option: i32) -> (i32, i32, u32) {
        let (yes, mut value) = (1_u32, 0_u32);
        let mut length = 4;
        // SAFETY: both variables are there during the calls, and have four bytes.
        unsafe {
            let set = WinSock::setsockopt(socket, level, option, (&raw const yes).cast(), 4);
            let set = if set == 0 { 0 } else { WinSock::WSAGetLastError() };
            let got = WinSock::getsockopt(socket, level, option, (&raw mut value).cast(), &mut length);
            let got = if got == 0 { 0 } else { WinSock::WSAGetLastError() };
            (set, got, value)
        }
    }
}
