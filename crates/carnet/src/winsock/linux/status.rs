//! `OVERLAPPED::Internal` holds an NTSTATUS, from which `WSAGetOverlappedResult` makes an error number.

use crate::winsock::numbers::*;

/// The pairs that have names of their own; the rest is carried in the facility that Windows has for such numbers.
const PAIRS: [(i32, i32); 12] = [
    (0, STATUS_SUCCESS),
    (WSAEFAULT, STATUS_ACCESS_VIOLATION),
    (WSAEACCES, STATUS_ACCESS_DENIED),
    (ERROR_INSUFFICIENT_BUFFER.cast_signed(), STATUS_BUFFER_TOO_SMALL),
    (WSAENOTSOCK, STATUS_OBJECT_TYPE_MISMATCH),
    (WSAENOBUFS, STATUS_INSUFFICIENT_RESOURCES),
    (WSAEOPNOTSUPP, STATUS_NOT_SUPPORTED),
    (WSA_OPERATION_ABORTED, STATUS_CANCELLED),
    (WSAENOTCONN, STATUS_INVALID_CONNECTION),
    (WSAEISCONN, STATUS_CONNECTION_ACTIVE),
    (WSAEINVAL, STATUS_NOT_FOUND),
    (FWP_E_NOT_FOUND, STATUS_FWP_NOT_FOUND),
];

/// `NTSTATUS_FROM_WIN32`: severity "error", facility 7, and the number.
const FROM_WIN32: u32 = 0xC007_0000;

pub(crate) fn of(error: i32) -> i32 {
    match PAIRS.iter().find(|pair| pair.0 == error) {
        Some(&(_, status)) => status,
        None => (FROM_WIN32 | error.cast_unsigned() & 0xFFFF).cast_signed(),
    }
}

/// 0 where the operation has succeeded.
pub(crate) fn to_error(status: i32) -> i32 {
    match PAIRS.iter().find(|pair| pair.1 == status) {
        Some(&(error, _)) => error,
        None if status.cast_unsigned() & 0xFFFF_0000 == FROM_WIN32 => status & 0xFFFF,
        // Nobody but us writes there.
        None => WSAEINVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for error in [
            0,
            ERROR_INSUFFICIENT_BUFFER.cast_signed(),
            WSA_OPERATION_ABORTED,
            WSAEINTR,
            WSAEACCES,
            WSAEFAULT,
            WSAEINVAL,
            WSAENOTSOCK,
            WSAENOPROTOOPT,
            WSAEOPNOTSUPP,
            WSAENETDOWN,
            WSAENOBUFS,
            WSAEISCONN,
            WSAENOTCONN,
            FWP_E_NOT_FOUND,
        ] {
            assert_eq!(to_error(of(error)), error);
            assert_ne!(of(error), STATUS_PENDING);
        }
    }
}
