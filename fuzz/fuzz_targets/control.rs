//! Control data beside a datagram, in Windows' form: messages are whole, and written again they are read again.
#![no_main]

use carnet::{
    ErrorKind,
    datagram::{Redirected, control},
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let messages: Vec<_> = control::messages(bytes).collect();
    let inside = bytes.as_ptr_range();
    for message in &messages {
        let data = message.data.as_ptr_range();
        assert!(inside.start < data.start && data.end <= inside.end);
    }
    let written = control::encode(&messages);
    assert_eq!(control::messages(&written).collect::<Vec<_>>(), messages);

    match Redirected::from_control(bytes) {
        Ok(redirected) => {
            assert_eq!(Redirected::from_control(&written).ok(), Some(redirected.clone()));
            drop((redirected.flow(), redirected.context()));
        }
        Err(error) => assert_eq!((error.kind(), error.os_error()), (ErrorKind::Malformed, None)),
    }
});
