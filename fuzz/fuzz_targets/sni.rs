//! Names and fingerprints in TLS hellos.
#![no_main]

use carnet_fuzz::read_name;
use carnet_proxy::rules::Protocol;

/// The content type of a handshake.
const HANDSHAKE: u8 = 22;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read_name(&[HANDSHAKE], bytes, Protocol::Tls));
