//! Answers of `CARNET_FLOW`: no bytes panic, and what is read stays within what a flow can be.
#![no_main]

use carnet::{ErrorKind, Flow, MAX_HOPS};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Flow::from_bytes(bytes) {
        Ok(flow) => {
            assert!(flow.depth() <= MAX_HOPS && flow.chain().len() == flow.depth());
            assert!(flow.origin().comm.chars().count() <= 16);
            let longer = [bytes, b"later fields"].concat();
            assert_eq!(Flow::from_bytes(&longer).ok(), Some(flow));
        }
        Err(error) => assert_eq!((error.kind(), error.os_error()), (ErrorKind::Malformed, None)),
    }
});
