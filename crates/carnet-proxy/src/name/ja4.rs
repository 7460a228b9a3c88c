use std::fmt::{self, Write as _};

use ring::digest;

/// What JA4 counts of a ClientHello (<https://github.com/FoxIO-LLC/ja4>, `technical_details/JA4.md`; JA4 itself, for TLS
/// clients, is under the BSD licence). GREASE values are in the lists, and are left out here.
#[derive(Debug, Default)]
pub(super) struct Ja4<'h> {
    /// `legacy_version`.
    pub(super) version: u16,
    /// In `supported_versions`; `None`: there is no such extension.
    pub(super) versions: Option<Vec<u16>>,
    pub(super) ciphers: Vec<u16>,
    pub(super) extensions: Vec<u16>,
    pub(super) signature_algorithms: Vec<u16>,
    /// The first protocol in ALPN.
    pub(super) protocol: Option<&'h [u8]>,
}

impl fmt::Display for Ja4<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ciphers = without_grease(&self.ciphers);
        let mut extensions = without_grease(&self.extensions);
        let version = match &self.versions {
            Some(versions) => without_grease(versions).into_iter().max(),
            None => Some(self.version),
        };
        let destination = if extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
        let (first, last) = ends(self.protocol.unwrap_or_default());
        write!(f, "t{}{destination}", version.map_or("00", named))?;
        write!(f, "{:02}{:02}{first}{last}", ciphers.len().min(99), extensions.len().min(99))?;

        ciphers.sort_unstable();
        extensions.sort_unstable();
        extensions.retain(|extension| ![SERVER_NAME, PROTOCOLS].contains(extension));
        let mut described = list(&extensions);
        let algorithms = without_grease(&self.signature_algorithms);
        if !extensions.is_empty() && !algorithms.is_empty() {
            described += "_";
            described += &list(&algorithms);
        }
        write!(f, "_{}_{}", hash(&list(&ciphers)), hash(&described))
    }
}

/// Extensions of which the fingerprint tells in clear.
pub(super) const SERVER_NAME: u16 = 0;
pub(super) const PROTOCOLS: u16 = 16;

/// RFC 8701.
fn without_grease(values: &[u16]) -> Vec<u16> {
    let is_grease = |value: &u16| value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff;
    values.iter().copied().filter(|value| !is_grease(value)).collect()
}

fn named(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// The first and last character of a protocol's name, or of its hexadecimal digits.
fn ends(protocol: &[u8]) -> (char, char) {
    let (Some(&first), Some(&last)) = (protocol.first(), protocol.last()) else {
        return ('0', '0');
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return (first.into(), last.into());
    }
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 0xf)]);
    (digit(first >> 4), digit(last))
}

fn list(values: &[u16]) -> String {
    let mut list = String::with_capacity(values.len() * 5);
    for (index, value) in values.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(list, "{comma}{value:04x}");
    }
    list
}

/// 12 digits of the SHA-256; zeros for nothing.
fn hash(list: &str) -> String {
    if list.is_empty() {
        return "0".repeat(12);
    }
    let hash = digest::digest(&digest::SHA256, list.as_bytes());
    hash.as_ref()[..6].iter().fold(String::with_capacity(12), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `technical_details/JA4.md`, and its variant without signature algorithms.
    #[test]
    fn the_examples_of_the_specification() {
        let mut hello = Ja4 {
            version: 0x0303,
            versions: Some(vec![0x0a0a, 0x0304, 0x0303]),
            ciphers: vec![
                0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
                0x002f, 0x0035,
            ],
            extensions: vec![
                0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01,
                0x000b, 0x000a, 0x0015,
            ],
            signature_algorithms: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            protocol: Some(b"h2"),
        };
        assert_eq!(hello.to_string(), "t13d1516h2_8daaf6152771_e5627efa2ab1");

        // Anywhere.
        hello.ciphers.insert(0, 0x3a3a);
        hello.extensions.push(0xfafa);
        hello.signature_algorithms.insert(3, 0x0a0a);
        assert_eq!(hello.to_string(), "t13d1516h2_8daaf6152771_e5627efa2ab1");

        hello.signature_algorithms.clear();
        assert_eq!(hello.to_string(), "t13d1516h2_8daaf6152771_6d807ffa2a79");
    }

    /// The fingerprint which FoxIO's own tests expect of `pcap/sigalg-grease.pcapng`, from the same lists.
    #[test]
    fn a_browser_with_grease_among_its_signature_algorithms() {
        let hello = Ja4 {
            version: 0x0303,
            versions: Some(vec![0x7a7a, 0x0304, 0x0303]),
            ciphers: vec![
                0x5a5a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
                0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x1a1a, 0xfe0d, 0x0010, 0x0017, 0x0033, 0x44cd, 0xff01, 0x000a, 0x000d, 0x0023, 0x002b, 0x000b, 0xca34,
                0x002d, 0x0000, 0x0005, 0x001b, 0x0012, 0x4a4a,
            ],
            signature_algorithms: vec![
                0x0a0a, 0x0904, 0x0905, 0x0906, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
            ],
            protocol: Some(b"h2"),
        };
        assert_eq!(hello.to_string(), "t13d1517h2_8daaf6152771_cb7bf5808d99");
    }

    #[test]
    fn an_empty_hello() {
        assert_eq!(Ja4 { version: 0x0301, ..Ja4::default() }.to_string(), "t10i000000_000000000000_000000000000");
        let only_grease = Ja4 { versions: Some(vec![0xcaca]), ..Ja4::default() };
        assert_eq!(only_grease.to_string(), "t00i000000_000000000000_000000000000");
        let clear = Ja4 { extensions: vec![SERVER_NAME, PROTOCOLS], ciphers: vec![0x0a1a; 120], ..Ja4::default() };
        assert!(clear.to_string().starts_with("t00d990200_"));
        assert!(clear.to_string().ends_with("_000000000000"));
    }

    /// The last five are the specification's.
    #[test]
    fn ends_of_protocols() {
        for (protocol, expected) in [
            (&b"http/1.1"[..], ('h', '1')),
            (b"", ('0', '0')),
            (b"x", ('x', 'x')),
            (b"\xab", ('a', 'b')),
            (b"\xab\xcd", ('a', 'd')),
            (b"\x30\xab", ('3', 'b')),
            (b"\x30\x31\xab\xcd", ('3', 'd')),
            (b"\x30\xab\xcd\x31", ('0', '1')),
        ] {
            assert_eq!(ends(protocol), expected, "{protocol:?}");
        }
    }
}
