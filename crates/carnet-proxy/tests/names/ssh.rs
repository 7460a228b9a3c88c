use carnet_proxy::{NameReader, rules::Protocol};

use crate::read_in_pieces;

pub const OPENSSH: &[u8] = include_bytes!("../hello/openssh.bin");

#[test]
fn banners() {
    let longest = format!("SSH-2.0-x {}\r\n", "c".repeat(243));
    assert_eq!(longest.len(), 255);
    for (banner, software) in [
        (OPENSSH, Some("OpenSSH_9.2p1")),
        (b"SSH-2.0-libssh2_1.10.0\r\n\0\0\x05\xdc", Some("libssh2_1.10.0")),
        (b"SSH-1.99-a-b c\n", Some("a-b")),
        (b"SSH-2.0-\x1b[2J\xff\r\n", Some("\\x1b[2J\\xff")),
        (b"SSH-2.0-\r\n", None),
        (longest.as_bytes(), Some("x")),
    ] {
        let found = read_in_pieces(banner, &[3]).unwrap_or_else(|| panic!("{}", banner.escape_ascii()));
        assert_eq!((found.protocol, found.name), (Protocol::Ssh, None));
        assert_eq!(found.software.as_deref(), software);
    }
}

#[test]
fn what_is_no_banner_is_left() {
    let endless = format!("SSH-2.0-{}\r\n", "x".repeat(246));
    assert_eq!(endless.len(), 256);
    for bytes in ["SSH-\n", "SSH-2.0\r\n", "SSH--x\r\n", "SSH-two-x\r\n", &endless] {
        let mut reader = NameReader::new();
        assert_eq!(reader.read(bytes.as_bytes()), None, "{bytes:?}");
        assert!(reader.is_done(), "{bytes:?}");
    }
}
