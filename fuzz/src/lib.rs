//! What the fuzz targets of the name readers share.

use carnet_proxy::{Found, Name, NameReader};

/// Reads a name from a connection's first bytes: nothing panics, cuts make no difference, and a name may be printed.
///
/// `begin` is the connection's first byte, which is not left to chance. The first of `bytes` says how long the pieces are.
pub fn read_name(begin: u8, bytes: &[u8], expected: fn(Name) -> Option<String>) {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let bytes = [&[begin], rest].concat();
    let whole = NameReader::new().read(&bytes);
    let mut reader = NameReader::new();
    let pieces: Vec<Found> = bytes.chunks(usize::from(length) + 1).filter_map(|piece| reader.read(piece)).collect();
    assert_eq!(pieces.first(), whole.as_ref());
    assert!(pieces.len() <= 1);

    if let Some(Found { name, alpn }) = whole {
        let name = expected(name).expect("a name of the other protocol");
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte)), "{name:?}");
        assert!(alpn.iter().all(|protocol| protocol.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())));
    }
}
