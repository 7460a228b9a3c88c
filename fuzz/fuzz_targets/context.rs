//! Redirect contexts of Windows: whatever a callout gives, it is a flow and the filter's bytes, the filter's bytes, or malformed.
#![no_main]

use carnet::{ErrorKind, Flow};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Flow::from_context(bytes) {
        Ok((None, own)) => assert!(own == bytes && !bytes.starts_with(&Flow::CONTEXT_MAGIC)),
        Ok((Some(flow), own)) => {
            let head = bytes.strip_suffix(own).expect("the filter's bytes are the last");
            let flow_bytes = head.strip_prefix(&Flow::CONTEXT_MAGIC).expect("the magic is first");
            assert_eq!(Flow::from_bytes(flow_bytes).ok(), Some(flow));
            assert_eq!(usize::from(u16::from_ne_bytes([flow_bytes[2], flow_bytes[3]])), flow_bytes.len());
        }
        Err(error) => {
            assert_eq!((error.kind(), error.os_error()), (ErrorKind::Malformed, None));
            assert!(bytes.starts_with(&Flow::CONTEXT_MAGIC));
        }
    }
});
