//! Answers in words, the same on every system: what is compared is the text.

use carnet::winsock as ws;

use crate::{
    calls::{Told, UNTOUCHED},
    case::Stop,
};

impl Told {
    /// `ok` or the error, and the bytes returned. `size` is how many bytes the whole answer has.
    pub fn words(&self, size: Option<usize>) -> String {
        let result = match self.ret {
            0 => "ok".to_owned(),
            _ => error_name(self.error),
        };
        match self.bytes {
            None => result,
            Some(bytes) => format!("{result}, {}", bytes_words(bytes, size)),
        }
    }

    /// The same without the bytes.
    pub fn result(&self) -> String {
        Self { bytes: None, ..*self }.words(None)
    }

    pub fn is_ok(&self) -> bool {
        self.ret == 0
    }

    /// Itself, where an operation has begun: only then its end is told. A system may refuse it at once.
    pub fn begun(self) -> Result<Self, Stop> {
        match self.is_ok() || self.is_pending() {
            true => Ok(self),
            false => Err(Stop::Answered(format!("{}; no operation begins", self.words(None)))),
        }
    }

    pub fn is_pending(&self) -> bool {
        self.ret != 0 && self.error == ws::WSA_IO_PENDING
    }
}

pub fn bytes_words(bytes: u32, size: Option<usize>) -> String {
    match bytes {
        UNTOUCHED => "bytes untouched".to_owned(),
        0 => "bytes = 0".to_owned(),
        _ if size == Some(bytes as usize) => "bytes = size".to_owned(),
        _ => format!("bytes = {bytes}"),
    }
}

/// The name of an error number; those without one are told as numbers.
pub fn error_name(error: i32) -> String {
    macro_rules! name {
        ($($name:ident)*) => {
            match error {
                0 => "failed without an error".to_owned(),
                $(error if error == ws::$name as i32 => stringify!($name).to_owned(),)*
                // The facilities of NTSTATUS and HRESULT are read in hexadecimal.
                error if !(0..0x10000).contains(&error) => format!("error {error:#010x}"),
                error => format!("error {error}"),
            }
        };
    }
    name!(
        WSA_INVALID_HANDLE WSA_NOT_ENOUGH_MEMORY WSA_INVALID_PARAMETER ERROR_INSUFFICIENT_BUFFER WSA_WAIT_TIMEOUT
        ERROR_ABANDONED_WAIT_0 WSA_OPERATION_ABORTED WSA_IO_INCOMPLETE WSA_IO_PENDING ERROR_NOT_FOUND WSAEINTR WSAEACCES
        WSAEFAULT WSAEINVAL WSAEMFILE WSAEINPROGRESS WSAENOTSOCK WSAENOPROTOOPT WSAEOPNOTSUPP WSAENETDOWN WSAENOBUFS
        WSAEISCONN WSAENOTCONN FWP_E_NOT_FOUND
    )
}

/// What a wait answers, of those with few events.
pub fn wait_name(told: &Told) -> String {
    match u32::try_from(told.ret) {
        Ok(ws::WSA_WAIT_IO_COMPLETION) => "WSA_WAIT_IO_COMPLETION".to_owned(),
        Ok(ws::WSA_WAIT_TIMEOUT) => "WSA_WAIT_TIMEOUT".to_owned(),
        Ok(ws::WSA_WAIT_FAILED) => format!("WSA_WAIT_FAILED, {}", error_name(told.error)),
        Ok(index @ 0..64) => format!("WSA_WAIT_EVENT_0 + {index}"),
        _ => format!("{:#x}", told.ret),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_the_same_everywhere() {
        let told = Told { call: "", ret: -1, error: 122, bytes: Some(440) };
        assert_eq!(told.words(Some(440)), "ERROR_INSUFFICIENT_BUFFER, bytes = size");
        assert_eq!(told.words(None), "ERROR_INSUFFICIENT_BUFFER, bytes = 440");
        assert_eq!(Told { ret: 0, bytes: Some(0), ..told }.words(None), "ok, bytes = 0");
        assert_eq!(Told { bytes: None, error: 10014, ..told }.words(None), "WSAEFAULT");
        assert_eq!(Told { bytes: Some(UNTOUCHED), error: 5, ..told }.words(None), "error 5, bytes untouched");
        assert_eq!(error_name(0x8032_0008_u32.cast_signed()), "FWP_E_NOT_FOUND");
        assert_eq!(error_name(0x8032_0009_u32.cast_signed()), "error 0x80320009");
    }
}
