//! Names in HTTP/2 requests of clients that know beforehand.
#![no_main]

use carnet_fuzz::read_name;
use carnet_proxy::rules::Protocol;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read_name(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes, Protocol::Http2));
