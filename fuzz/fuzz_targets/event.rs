//! Events of the kernel program: whatever is in the ring buffer, it is an event of these very bytes or none.
#![no_main]

use carnet_abi::{Event, flow_id};
use zerocopy::IntoBytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(event) = Event::from_bytes(bytes) else {
        assert!(bytes.len() < size_of::<Event>());
        return;
    };
    assert_eq!(event.as_bytes(), &bytes[..size_of::<Event>()]);
    for address in [event.remote, event.local, event.record.origin.remote, event.record.origin.local] {
        assert_eq!(address.to_socket_addr().port(), address.port);
    }
    let comm = event.record.origin.comm();
    assert!(comm.len() <= 16 && !comm.contains(&0));
    assert_eq!(flow_id(event.record.flow) as u64, event.record.flow[0]);
});
