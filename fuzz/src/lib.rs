//! What the fuzz targets of the name readers share.

use carnet_proxy::{Found, NameReader, rules::Protocol};

/// Reads a connection's first bytes: nothing panics, cuts make no difference, and what is found may be printed.
///
/// `begin` is how the connection begins, which is not left to chance. The first of `bytes` says how long the pieces are.
pub fn read_name(begin: &[u8], bytes: &[u8], protocol: Protocol) {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let bytes = [begin, rest].concat();
    let whole = NameReader::new().read(&bytes);
    let mut reader = NameReader::new();
    let pieces: Vec<Found> = bytes.chunks(usize::from(length) + 1).filter_map(|piece| reader.read(piece)).collect();
    assert_eq!(pieces.first(), whole.as_ref());
    assert!(pieces.len() <= 1);

    if let Some(found) = whole {
        assert_eq!(found.protocol, protocol);
        let name = found.name.as_ref().map_or("", |name| name.as_str());
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte)), "{name:?}");
        let may_be_printed = |text: &String| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        assert!(found.alpn.iter().chain(&found.ja4).chain(&found.software).all(may_be_printed));
    }
}
