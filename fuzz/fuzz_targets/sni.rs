//! Names in TLS hellos: no bytes panic, cuts make no difference, and a name may be printed.
#![no_main]

use carnet_proxy::{Found, Name, NameReader};

// The first byte says how long the pieces are. The connection's first byte is not left to chance.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let bytes = [&[22], rest].concat();
    let whole = NameReader::new().read(&bytes);
    let mut reader = NameReader::new();
    let pieces: Vec<Found> = bytes.chunks(usize::from(length) + 1).filter_map(|piece| reader.read(piece)).collect();
    assert_eq!(pieces.first(), whole.as_ref());
    assert!(pieces.len() <= 1);

    if let Some(Found { name, alpn }) = whole {
        let Name::Sni(name) = name else { panic!("{name:?}") };
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte)), "{name:?}");
        assert!(alpn.iter().all(|protocol| protocol.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())));
    }
});
