//! Records blobs: no bytes panic, and accepted ones come back as they were.
#![no_main]

use carnet::{ErrorKind, RECORDS_MAX, Records};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Records::from_bytes(bytes) {
        Ok(records) => assert!(records.as_bytes() == bytes && bytes.len() <= RECORDS_MAX),
        Err(error) => assert_eq!((error.kind(), error.os_error()), (ErrorKind::Malformed, None)),
    }
});
