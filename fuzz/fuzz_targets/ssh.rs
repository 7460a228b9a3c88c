//! Banners of SSH clients.
#![no_main]

use carnet_fuzz::read_name;
use carnet_proxy::rules::Protocol;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read_name(b"SSH-", bytes, Protocol::Ssh));
