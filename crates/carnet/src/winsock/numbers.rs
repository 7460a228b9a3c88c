//! The numbers of the contract. They are Windows' own on every system, so that what one program stores, logs or sends
//! another can read. Where windows-sys is there, the build fails unless it has the same: wrong ones are about.

/// Declares constants, and compares them with those of the same name in a module of windows-sys.
macro_rules! numbers {
    ($($home:path { $($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)* })*) => {
        $($($(#[$doc])* pub const $name: $type = $value;)*)*

        $(#[cfg(windows)]
        const _: () = {
            use $home as theirs;
            // The types differ (there, an NTSTATUS is signed and an ERROR_ number is not); the 32 bits may not.
            $(assert!($name as u32 == theirs::$name as u32, stringify!($name));)*
        };)*
    };
}

numbers! {
    windows_sys::Win32::Networking::WinSock {
        /// Reads the records blob of an accepted socket: `_WSAIOW(IOC_VENDOR, 220)`.
        SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS: u32 = vendor_code(220);
        /// Reads the redirect context of an accepted socket: `_WSAIOW(IOC_VENDOR, 221)`.
        SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT: u32 = vendor_code(221);
        /// Puts a records blob on an outgoing socket: `_WSAIOW(IOC_VENDOR, 222)`.
        SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS: u32 = vendor_code(222);
        /// Ends a socket's pending operations with [`WSA_OPERATION_ABORTED`].
        SIO_FLUSH: u32 = 0x2800_0004;

        /// Type of the control message which carries records with a datagram, and of the option that asks for it.
        IP_WFP_REDIRECT_RECORDS: i32 = 60;
        /// As [`IP_WFP_REDIRECT_RECORDS`], for the context.
        IP_WFP_REDIRECT_CONTEXT: i32 = 70;
        /// [`IP_WFP_REDIRECT_RECORDS`] at the level of IPv6.
        IPV6_WFP_REDIRECT_RECORDS: i32 = 60;
        /// [`IP_WFP_REDIRECT_CONTEXT`] at the level of IPv6.
        IPV6_WFP_REDIRECT_CONTEXT: i32 = 70;

        /// What a call answers that fails, or has begun an operation.
        SOCKET_ERROR: i32 = -1;
        /// No socket.
        INVALID_SOCKET: usize = usize::MAX;
        /// Of `WSASocketW`: a socket that takes overlapped operations. `socket()` makes such ones, too.
        WSA_FLAG_OVERLAPPED: u32 = 1;
        /// Of `WSASocketW`: a socket that child processes do not inherit.
        WSA_FLAG_NO_HANDLE_INHERIT: u32 = 0x80;

        /// The event, or the port, is none (any more).
        WSA_INVALID_HANDLE: i32 = 6;
        /// No memory, or no descriptor, for an event.
        WSA_NOT_ENOUGH_MEMORY: i32 = 8;
        /// A socket has a completion port already, or an argument is not acceptable.
        WSA_INVALID_PARAMETER: i32 = 87;
        /// The operation was cancelled: by a call, with its socket, or with the thread that began it.
        WSA_OPERATION_ABORTED: i32 = 995;
        /// The operation goes on.
        WSA_IO_INCOMPLETE: i32 = 996;
        /// The operation has begun, and its end will be told.
        WSA_IO_PENDING: i32 = 997;
        /// A wait was interrupted by `WSACancelBlockingCall`, which nobody has.
        WSAEINTR: i32 = 10004;
        /// The caller may not: the newest redirect was not to its service (Linux), or it is not elevated (Windows).
        WSAEACCES: i32 = 10013;
        /// A pointer leads nowhere.
        WSAEFAULT: i32 = 10014;
        /// An argument is not acceptable, or the connection has no record.
        WSAEINVAL: i32 = 10022;
        /// No more descriptors.
        WSAEMFILE: i32 = 10024;
        /// A callback is in progress.
        WSAEINPROGRESS: i32 = 10036;
        /// Not a socket.
        WSAENOTSOCK: i32 = 10038;
        /// No such protocol.
        WSAEPROTONOSUPPORT: i32 = 10043;
        /// No such type of socket.
        WSAESOCKTNOSUPPORT: i32 = 10044;
        /// No such family.
        WSAEAFNOSUPPORT: i32 = 10047;
        /// Queries: not a socket of TCP.
        WSAENOPROTOOPT: i32 = 10042;
        /// The code is not known, or no engine answers.
        WSAEOPNOTSUPP: i32 = 10045;
        /// The network is down.
        WSAENETDOWN: i32 = 10050;
        /// No memory for the record.
        WSAENOBUFS: i32 = 10055;
        /// Records are set before `connect()`.
        WSAEISCONN: i32 = 10056;
        /// Queries: the socket is not connected.
        WSAENOTCONN: i32 = 10057;

        /// Wait without end.
        WSA_INFINITE: u32 = u32::MAX;
        /// Most events of one wait.
        WSA_MAXIMUM_WAIT_EVENTS: u32 = 64;
        /// The first event is signalled; the second is this number plus 1, and so on.
        WSA_WAIT_EVENT_0: u32 = 0;
        /// Completion routines have run.
        WSA_WAIT_IO_COMPLETION: u32 = 0xC0;
        /// The time is over.
        WSA_WAIT_TIMEOUT: u32 = 258;
        /// The wait was refused.
        WSA_WAIT_FAILED: u32 = u32::MAX;
    }
    windows_sys::Win32::Foundation {
        /// The buffer is too small; how large it must be is in the bytes returned.
        ERROR_INSUFFICIENT_BUFFER: u32 = 122;
        /// The buffer is too small, as some drivers put it.
        ERROR_MORE_DATA: u32 = 234;
        /// The completion port was closed meanwhile.
        ERROR_ABANDONED_WAIT_0: u32 = 735;
        /// There is no such operation.
        ERROR_NOT_FOUND: u32 = 1168;
        /// The connection was redirected, and has no context.
        FWP_E_NOT_FOUND: i32 = 0x8032_0008_u32.cast_signed();

        /// [`OVERLAPPED::Internal`](super::OVERLAPPED): done.
        STATUS_SUCCESS: i32 = 0;
        /// The operation goes on.
        STATUS_PENDING: i32 = 0x103;
        /// [`WSAEFAULT`].
        STATUS_ACCESS_VIOLATION: i32 = 0xC000_0005_u32.cast_signed();
        /// [`WSAEACCES`].
        STATUS_ACCESS_DENIED: i32 = 0xC000_0022_u32.cast_signed();
        /// [`ERROR_INSUFFICIENT_BUFFER`].
        STATUS_BUFFER_TOO_SMALL: i32 = 0xC000_0023_u32.cast_signed();
        /// [`WSAENOTSOCK`].
        STATUS_OBJECT_TYPE_MISMATCH: i32 = 0xC000_0024_u32.cast_signed();
        /// [`WSAENOBUFS`].
        STATUS_INSUFFICIENT_RESOURCES: i32 = 0xC000_009A_u32.cast_signed();
        /// [`WSAEOPNOTSUPP`].
        STATUS_NOT_SUPPORTED: i32 = 0xC000_00BB_u32.cast_signed();
        /// [`WSA_OPERATION_ABORTED`].
        STATUS_CANCELLED: i32 = 0xC000_0120_u32.cast_signed();
        /// [`WSAENOTCONN`].
        STATUS_INVALID_CONNECTION: i32 = 0xC000_0140_u32.cast_signed();
        /// [`WSAEISCONN`].
        STATUS_CONNECTION_ACTIVE: i32 = 0xC000_023B_u32.cast_signed();
        /// [`WSAEINVAL`]: there is no record.
        STATUS_NOT_FOUND: i32 = 0xC000_0225_u32.cast_signed();
        /// [`FWP_E_NOT_FOUND`].
        STATUS_FWP_NOT_FOUND: i32 = 0xC022_0008_u32.cast_signed();
    }
}

/// `_WSAIOW(IOC_VENDOR, number)`. The two queries have a code of the direction "in", too, though they put out.
const fn vendor_code(number: u32) -> u32 {
    const IOC_IN: u32 = 0x8000_0000;
    const IOC_VENDOR: u32 = 0x1800_0000;
    IOC_IN | IOC_VENDOR | number
}

const _: () = {
    assert!(SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS == 0x9800_00DC);
    assert!(SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT == 0x9800_00DD);
    assert!(SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS == 0x9800_00DE);
};
